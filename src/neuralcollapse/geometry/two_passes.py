"""The exact builder of moments: two passes over features in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import SAFE, exponent_of, row_norms, times_power_of_two
from neuralcollapse.geometry.moments import Moments, between_directions, class_sums, first_samples

_CHUNK_BYTES = 8 << 20
"""Features are walked through in pieces that stay in the processor's cache."""

_NEGLIGIBLE = 1e-9
"""Share of NC1 that rounding of the projected features may reach before they are projected again in float64."""

_UNDERFLOW = 2.0**-50
"""Spread of a class below which float32 squares lose digits: it is measured again in float64."""


def two_passes(features: Float[Tensor, "N d"], labels: Int[Tensor, " N"], num_classes: int, largest: float) -> Moments:
    exponent = exponent_of(largest)
    counts = torch.bincount(labels, minlength=num_classes)
    present = counts > 0
    resolution, largest = torch.finfo(features.dtype).eps, largest / 2.0**exponent
    means = _class_means(features, labels, counts, exponent)
    smallest = int(counts[present].min())
    directions, singular = between_directions(
        means[present], resolution, largest, smallest, lambda: _variances(features, labels, means, exponent)
    )
    ordinary = 2.0 ** -SAFE[torch.float32] < largest < 2.0 ** SAFE[torch.float32]
    precision = torch.float32 if features.dtype != torch.float64 and ordinary else torch.float64
    found = _second_moments(features, labels, counts, means, directions, exponent, precision)
    if precision == torch.float32 and _rounded(*found, counts, singular):
        found = _second_moments(features, labels, counts, means, directions, exponent, torch.float64)
    squares, pooled, balanced = found
    return Moments(
        counts=counts,
        means=means,
        within_traces=squares / counts.clamp(min=1),
        directions=directions,
        singular_values=singular,
        within=pooled / len(features),
        within_balanced=balanced / int(present.sum()),
        within_error=torch.zeros_like(singular),
        resolution=resolution,
        largest=largest,
        scale=2.0**exponent,
    )


def _rounded(squares: Tensor, pooled: Tensor, balanced: Tensor, counts: Tensor, singular: Float[Tensor, " r"]) -> bool:
    """Whether float32 was too narrow: some class is tighter than its squares, or the projection errs too much."""
    if bool(((counts > 1) & (squares < counts * _UNDERFLOW**2)).any()):
        return True
    # A projection errs by some rounding of the whole feature, which may be much longer than its shadow.
    weights = singular.reciprocal().square()
    error = torch.finfo(torch.float32).eps ** 2 * weights.sum()
    return any(
        bool(error * total > _NEGLIGIBLE * (matrix.diagonal() @ weights))
        for total, matrix in ((squares.sum(), pooled), ((squares / counts.clamp(min=1)).sum(), balanced))
    )


def _class_means(
    features: Float[Tensor, "N d"], labels: Int[Tensor, " N"], counts: Int[Tensor, " K"], exponent: int
) -> Float[Tensor, "K d"]:
    """Class means in units of 2**exponent, summed in float64; zeros for a class without samples."""
    pivots = None
    if features.dtype == torch.float64:  # the first of its class goes first, so that sums are no longer than spreads
        pivots = times_power_of_two(features[first_samples(labels, counts)], -exponent)
    sums = class_sums(features, labels, len(counts), exponent, pivots)
    means = sums / counts.clamp(min=1)[:, None]
    return means if pivots is None else (means + pivots) * (counts > 0)[:, None]


def _variances(
    features: Float[Tensor, "N d"], labels: Int[Tensor, " N"], means: Float[Tensor, "K d"], exponent: int
) -> Float[Tensor, " d"]:
    """Pooled variance of each coordinate within classes, in squares of 2**exponent."""
    squares = torch.zeros_like(means[0])
    for x, y in _chunks(features, labels, torch.float64):
        squares += (times_power_of_two(x.double(), -exponent) - means[y]).square().sum(0)
    return squares / len(features)


def _second_moments(
    features: Float[Tensor, "N d"],
    labels: Int[Tensor, " N"],
    counts: Int[Tensor, " K"],
    means: Float[Tensor, "K d"],
    directions: Float[Tensor, "r d"],
    exponent: int,
    precision: torch.dtype,
) -> tuple[Float[Tensor, " K"], Float[Tensor, "r r"], Float[Tensor, "r r"]]:
    """Sums of squares about the mean per class, and scatter along the directions: pooled, and balanced."""
    pivots, columns = means.to(precision), directions.T.to(precision)
    squares = torch.zeros(len(counts), dtype=torch.float64, device=features.device)
    pooled = torch.zeros(len(directions), len(directions), dtype=torch.float64, device=features.device)
    balanced = torch.zeros_like(pooled)
    shares = counts.clamp(min=1).double().reciprocal()
    equal = bool((counts[counts > 0] == counts.max()).all())
    roots = shares.sqrt().to(precision)
    buffer = None
    for x, y in _chunks(features, labels, precision):
        buffer = pivots.new_empty(x.shape) if buffer is None else buffer[: len(x)]
        shifted = torch.index_select(pivots, 0, y, out=buffer)
        torch.sub(times_power_of_two(x.to(precision), -exponent), shifted, out=shifted)
        norms = row_norms(shifted) if precision == torch.float64 else torch.linalg.vector_norm(shifted, dim=1).double()
        squares.index_add_(0, y, norms.square())
        projected = shifted @ columns
        pooled += projected.T @ projected
        if not equal:
            projected *= roots[y][:, None]
            balanced += projected.T @ projected
    # What rounding the pivots left over: the moments about the means are smaller by n |mean - pivot|^2.
    left_over = (means - pivots.double()) * (counts > 0)[:, None]
    squares = (squares - counts * left_over.square().sum(1)).clamp(min=0)
    shadows = left_over @ directions.T
    pooled = pooled - (counts[:, None] * shadows).T @ shadows
    balanced = pooled / counts.max() if equal else balanced - (shares * counts)[:, None].mul(shadows).T @ shadows
    for matrix in (pooled, balanced):
        matrix.diagonal().clamp_(min=0)
    return squares, pooled, balanced


def _chunks(
    features: Float[Tensor, "N d"], labels: Int[Tensor, " N"], precision: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and labels piece by piece, each of a size that stays in the cache in the given precision."""
    rows = max(1, _CHUNK_BYTES // (precision.itemsize * features.shape[1]))
    yield from zip(features.split(rows), labels.split(rows), strict=True)
