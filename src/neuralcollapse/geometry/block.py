"""A block of samples: gathered batch by batch, then centred on its own class means and multiplied once."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import SAFE, row_norms, times_power_of_two
from neuralcollapse.geometry.moments import class_sums, first_samples

_BLOCK_ENTRIES = 1 << 22
"""Entries of the samples gathered before they are centred and their products added to the float64 sums."""

_PIECE = 256
"""Rows that are centred at once, so that they stay in the cache."""

_NARROWEST_STRIP, _WIDEST_STRIP = 64, 256
"""Columns of a symmetric product that are computed at once, between narrow products and unneeded halves."""


class SampleBlock:
    """Room for samples of one precision and, below them, for one row per class."""

    def __init__(self, num_classes: int, feature_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        capacity = max(_BLOCK_ENTRIES // feature_dim, 4 * num_classes, 1024)
        self.num_classes = num_classes
        self.filled = 0
        self.resolution = self.largest = 0.0
        self.labels = torch.empty(capacity, dtype=torch.int64, device=device)
        self.norms = torch.zeros(0, dtype=torch.float64, device=device)
        self.rows = torch.empty(capacity + num_classes, feature_dim, dtype=dtype, device=device)

    @property
    def full(self) -> bool:
        """Whether no further sample fits."""
        return self.filled == len(self.labels)

    def takes(self, dtype: torch.dtype) -> bool:
        """Whether samples of that precision may go in: a float64 block that is open takes float32 samples too."""
        return self.rows.dtype == dtype or (self.filled > 0 and dtype == torch.float32)

    def note(self, resolution: float, largest: float) -> None:
        """Remember the coarsest resolution and the largest entry of all samples that came in."""
        self.resolution, self.largest = max(self.resolution, resolution), max(self.largest, largest)

    @torch.no_grad()
    def take(self, features: Float[Tensor, "B d"], labels: Int[Tensor, " B"]) -> int:
        """Copy as many samples as fit; returns how many."""
        piece = slice(self.filled, min(self.filled + len(features), len(self.labels)))
        taken = piece.stop - piece.start
        self.rows[piece] = features[:taken]
        self.labels[piece] = labels[:taken]
        self.filled = piece.stop
        return taken

    def centre(self, exponent: int) -> tuple[Int[Tensor, " K"], Float[Tensor, "K d"], Float[Tensor, " K"]]:
        """Counts, means and sums of squares about them, in units of 2**exponent; the samples are centred in place."""
        rows, labels = self.rows[: self.filled], self.labels[: self.filled]
        if exponent:
            rows.copy_(times_power_of_two(rows, -exponent))
        counts = torch.bincount(labels, minlength=self.num_classes)
        means = centre_classes(rows, labels, counts)
        self.norms = row_norms(rows)
        traces = means.new_zeros(self.num_classes).index_add_(0, labels, self.norms.square())
        return counts, means, traces

    def scatter(self, corrections: Float[Tensor, "K d"]) -> Float[Tensor, "d d"]:
        """Scatter of the centred samples and of the rows that join them to what was gathered before."""
        block = self.rows[: self.filled + self.num_classes]
        block[self.filled :].copy_(corrections)
        return _gram(block, max(float(self.norms.max()), float(corrections.abs().max())))


def block_dtype(dtype: torch.dtype, largest: float) -> torch.dtype:
    """Precision of the products: float32 for float32 and narrower features of ordinary size, else float64."""
    low, high = 2.0 ** -SAFE[torch.float32], 2.0 ** SAFE[torch.float32]
    return torch.float32 if dtype != torch.float64 and (low < largest < high or largest == 0) else torch.float64


def _gram(rows: Float[Tensor, "B d"], longest: float) -> Float[Tensor, "d d"]:
    """``rows.T @ rows`` in float64, from products in the precision of the rows; tiny rows are scaled first."""
    exponent = 0
    if 0 < longest < 2.0 ** (-SAFE[rows.dtype] // 2):
        exponent = math.frexp(longest)[1]
        rows = times_power_of_two(rows, -exponent)
    return times_power_of_two(symmetric_product(rows), 2 * exponent)


def symmetric_product(rows: Float[Tensor, "B d"]) -> Float[Tensor, "d d"]:
    """``rows.T @ rows``, returned in float64: its upper triangle strip by strip.

    From 256 columns on that is five eighths of the work of the whole, or a little more.

    >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> symmetric_product(rows).tolist()
    [[10.0, 14.0], [14.0, 20.0]]
    """
    dim = rows.shape[1]
    product = torch.empty(dim, dim, dtype=torch.float64, device=rows.device)
    width = min(max(dim // 4, _NARROWEST_STRIP), _WIDEST_STRIP)
    for start in range(0, dim, width):
        strip = slice(start, start + width)
        product[strip, start:] = rows[:, strip].T @ rows[:, start:]
    return product.triu_().add_(product.triu(1).T)


def centre_classes(
    rows: Float[Tensor, "B d"], labels: Int[Tensor, " B"], counts: Int[Tensor, " K"]
) -> Float[Tensor, "K d"]:
    """Subtract its class mean from each row, in place; return the means (K, d) in float64.

    The means are summed in float64. Float32 rows lose the rounded mean first and what rounding left of it then, in
    pieces that stay in the cache.
    """
    pivots = rows[first_samples(labels, counts)] if rows.dtype == torch.float64 else None
    means = class_sums(rows, labels, len(counts), pivots=pivots).div_(counts.clamp(min=1)[:, None])
    means = (means if pivots is None else means.add_(pivots)).mul_((counts > 0)[:, None])
    rounded = means.to(rows.dtype)
    left = None if rows.dtype == torch.float64 else (means - rounded.double()).to(rows.dtype)
    for x, y in zip(rows.split(_PIECE), labels.split(_PIECE), strict=True):
        x.sub_(rounded.index_select(0, y))
        if left is not None:
            x.sub_(left.index_select(0, y))
    return means
