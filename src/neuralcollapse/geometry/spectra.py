"""How many dimensions a matrix really uses, and how separation grows from layer to layer."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.inputs import Rows, as_real, as_tensor


@torch.no_grad()
def effective_rank(matrix: Float[Tensor, "N d"] | Rows) -> float:
    r"""Exp of the entropy of the normalised singular values.

    .. math:: \exp(-\sum_i p_i \log p_i), \quad p_i = \sigma_i / \sum_j \sigma_j

    In [1, min(N, d)]; features centred on their mean have K - 1 at collapse. Source: Roy and Vetterli, "The effective
    rank: a measure of effective dimensionality", EUSIPCO 2007. Cost: one SVD.

    Raises:
        ValueError: if the matrix is empty, zero, or not finite.

    >>> effective_rank(torch.eye(3))
    3.0
    """
    return effective_rank_of(_singular_values(matrix))


def effective_rank_of(singular: Float[Tensor, " r"]) -> float:
    """The effective rank of a matrix whose singular values these are; the largest is positive."""
    shares = singular / singular.sum()
    return _settle(math.exp(float(torch.special.entr(shares).sum())), len(singular))


def _settle(value: float, largest: int) -> float:
    """Within [1, min(N, d)], and exactly an integer where only rounding of the exponential keeps it from one."""
    nearest = float(round(value))
    return min(max(nearest if abs(value - nearest) < 1e-12 * max(value, 1.0) else value, 1.0), float(largest))


@torch.no_grad()
def stable_rank(matrix: Float[Tensor, "N d"] | Rows) -> float:
    """||A||_F² / ||A||₂²: the sum of the squared singular values over the largest, unmoved by small ones.

    In [1, rank]; features centred on their mean have K - 1 at collapse. Source: Rudelson and Vershynin, "Sampling from
    large matrices", JACM 2007. Cost: one SVD.

    Raises:
        ValueError: if the matrix is empty, zero, or not finite.

    >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0])))
    1.25
    """
    return stable_rank_of(_singular_values(matrix))


def stable_rank_of(singular: Float[Tensor, " r"]) -> float:
    """The stable rank of a matrix whose singular values these are, largest first."""
    return float((singular / singular[0]).square().sum())


@torch.no_grad()
def numerical_rank(matrix: Float[Tensor, "N d"] | Rows, tolerance: float | None = None) -> int:
    """How many singular values exceed ``tolerance`` times the largest.

    In [1, min(N, d)]; features centred on their mean have K - 1 at collapse. Source: Golub and Van Loan, Matrix
    Computations, Section 5.4. Cost: one SVD.

    Args:
        matrix: N x d.
        tolerance: relative; by default max(N, d) times the rounding of the matrix's own dtype, as NumPy does.

    Raises:
        ValueError: if the matrix is empty, zero or not finite, or the tolerance is not in [0, 1).

    >>> numerical_rank(torch.ones(4, 3))
    1
    """
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must be at least 0 and below 1: it is relative to the largest")
    matrix = as_real(matrix, "matrix")
    singular = _singular_values(matrix)
    relative = max(matrix.shape) * torch.finfo(matrix.dtype).eps if tolerance is None else tolerance
    return numerical_rank_of(singular, relative)


def numerical_rank_of(singular: Float[Tensor, " r"], tolerance: float) -> int:
    """How many singular values, largest first, exceed the tolerance times the largest."""
    return int((singular > tolerance * singular[0]).sum())


@dataclass(frozen=True)
class SeparationLaw:
    """D_l = D_0 ρ^l, fitted to the layers of one network."""

    rate: float
    """ρ: what one more layer multiplies D by. Below 1, each layer separates by the same factor."""
    correlation: float
    """Pearson correlation of log D with depth: -1 where the law holds exactly; NaN where D does not change."""
    start: float
    """D_0, the fitted value at the first layer given."""


def separation_law(separations: Sequence[float] | Float[Tensor, " L"] | Rows) -> SeparationLaw:
    r"""Fit the law of data separation: :math:`D = tr(Σ_W Σ_B^†)` falls by a constant factor per layer.

    A least-squares line through log D against the layer's index, O(L) for L layers. The rate is in (0, ∞), below 1
    where layers separate; the correlation in [-1, 1], -1 at the ideal, where the law holds exactly. Any constant
    multiple of D will do, such as NC1 = D/K. Source: He and Su, "A law of data separation in deep learning", PNAS 2023,
    equations (1) and (2).

    Args:
        separations: D of each layer, in the order of depth; at least two, positive and finite.

    Raises:
        ValueError: if there are fewer than two, or one is not positive and finite.

    >>> law = separation_law([8.0, 4.0, 2.0, 1.0])
    >>> round(law.rate, 12), round(law.correlation, 12), round(law.start, 12)
    (0.5, -1.0, 8.0)
    """
    values = as_tensor(separations, "separations")
    if values.is_complex():
        raise TypeError(f"separations has dtype {values.dtype}: expected real numbers")
    values = values.double().flatten()
    if len(values) < 2:
        raise ValueError(f"separations has {len(values)} values: a rate needs at least 2 layers")
    for layer, value in enumerate(values.tolist()):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"separations[{layer}]={value} must be positive and finite: its logarithm is fitted")
    logs = values.log()
    depth = torch.arange(len(logs), dtype=torch.float64, device=logs.device)
    across, along = logs - logs.mean(), depth - depth.mean()
    slope = float(along @ across / along.square().sum())
    scale = float(along.norm() * across.norm())
    correlation = min(max(float(along @ across) / scale, -1.0), 1.0) if scale > 0 else math.nan
    rate, start = (_exp(power) for power in (slope, float(logs.mean()) - slope * float(depth.mean())))
    return SeparationLaw(rate, correlation, start)


def _exp(power: float) -> float:
    """The exponential, infinite where it is no number of float64."""
    return math.exp(power) if power < math.log(sys.float_info.max) else math.inf


def _singular_values(matrix: Tensor | Rows) -> Float[Tensor, " r"]:
    """Singular values in float64, largest first; or what is wrong with the matrix."""
    matrix = as_real(matrix, "matrix")
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"matrix has shape {tuple(matrix.shape)}: expected (N, d), both at least 1")
    values = matrix.double()
    if not bool(values.isfinite().all()):
        raise ValueError("matrix has non-finite entries (NaN or infinity)")
    largest = values.abs().max()
    if not float(largest):
        raise ValueError("matrix is zero: its effective and stable rank are undefined")
    return torch.linalg.svdvals(values / largest)
