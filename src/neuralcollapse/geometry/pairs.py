"""The measures that need all pairs of classes, each from sweeps of tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import row_norms
from neuralcollapse.geometry.tiles import TILE, Tile, far_squares, precision_of, tiles, units_of

_KERNEL_FLOOR = 1e-4
"""Spread of a kernel, relative to its mean, below which float32 tiles have lost digits."""

_COSINE_FLOOR = 1e-3
"""Mean distance of cosines below which float32 tiles have lost digits."""


@dataclass(frozen=True)
class PairMeasures:
    """What one sweep over all pairs of class means finds."""

    cdnv: float
    """Mean of (v_i + v_j) / (2 |m_i - m_j|²): infinite if a pair coincides that has variance, NaN if one has none."""
    coincident: int
    """Pairs of class means that are one point to the precision of the means."""
    cosine_distance: float
    """Mean of abs(cosine + 1/(K-1)) between centred means; NaN if one of them is zero."""


def pair_measures(
    means: Float[Tensor, "K d"],
    centred: Float[Tensor, "K d"],
    traces: Float[Tensor, " K"],
    tolerance: Float[Tensor, " K"],
    *,
    exponent: int = 1,
) -> PairMeasures:
    """Class-distance normalised variance and maximal equiangularity of the class means, in one sweep.

    Tiles are float32 for many classes, sums float64. A pair whose distance a tile has lost is computed again in
    float64 from the difference of the two means.

    Args:
        means: class means.
        centred: the same, centred; zero rows for those without direction.
        traces: traces of the class covariances v.
        tolerance: rounding of each mean; two means closer than the sum of theirs count as one point.
        exponent: power of the squared distance: 1 as in Galanti, György and Hutter 2022, 2 as in Wu and Papyan 2024.
    """
    void = bool((centred == 0).all(1).any())
    shifted = means - means.mean(0) if void else centred
    lengths = row_norms(shifted)
    largest = float(lengths.max()) or 1.0
    spread = float(traces.max()) or 1.0
    sizes, spreads = (lengths / largest).square(), traces / spread
    units = units_of(shifted, lengths)
    fast = precision_of(units)
    far = 0.0
    near: list[Tensor] = []
    angles = 0.0
    for tile in tiles(units, fast):
        angles += _cosine_sum(tile, len(units))
        squares, lost = far_squares(tile, units, lengths / largest, sizes)
        inverse = squares.reciprocal_()
        both = spreads[tile.rows, None].to(inverse) + spreads[tile.columns].to(inverse)
        inverse = inverse if exponent == 1 else inverse.pow_(exponent)
        total = float(inverse.mul_(both).sum(dtype=torch.float64))
        far += total / 2 if tile.diagonal else total
        near.append(lost)
    close, coincident = _by_difference(torch.cat(near), means, traces, tolerance, exponent)
    pairs = len(means) * (len(means) - 1) / 2
    cdnv = (far / 2 * (spread / largest / largest ** (2 * exponent - 1)) + close) / pairs
    distance = _settled(angles / (2 * pairs), fast, centred, shifted)
    return PairMeasures(cdnv, coincident, distance)


def cosine_distance(vectors: Float[Tensor, "K d"]) -> float:
    """Mean over pairs of abs(cosine + 1/(K-1)), Papyan et al. 2020, Figure 4; NaN if a vector is zero."""
    lengths = row_norms(vectors)
    units = units_of(vectors, lengths)
    if not bool((lengths > 0).all()):
        return math.nan
    for precision in (precision_of(units), torch.float64):
        total = sum(_cosine_sum(tile, len(units)) for tile in tiles(units, precision))
        distance = total / (len(units) * (len(units) - 1))
        if precision == torch.float64 or distance > _COSINE_FLOOR:
            break
    return distance


def cosine_spread(vectors: Float[Tensor, "K d"]) -> float:
    """Standard deviation of the cosines over pairs, Papyan et al. 2020, Figure 3; NaN if a vector is zero.

    It needs no pairs where d < K: the sum of their squares is that of the d x d matrix U'U, U the unit vectors.
    Near collapse, where the difference of two such sums has no digits left, the pairs are visited after all.
    """
    lengths = row_norms(vectors)
    if not bool((lengths > 0).all()):
        return math.nan
    units = units_of(vectors, lengths)
    number = len(units)
    pairs = number * (number - 1)
    mean = (float(units.sum(0).square().sum()) - number) / pairs
    if units.shape[1] < number:
        squares = float((units.T @ units).square().sum())
        variance = (squares - number) / pairs - mean**2
        error = 8 * torch.finfo(torch.float64).eps * (squares + number) / pairs
        if error < 1e-8 * variance:
            return math.sqrt(variance)
    first = second = 0.0
    for tile in tiles(units, torch.float64):
        deviation = tile.cosines - mean  # small where all are alike, so its moments keep their digits
        if tile.diagonal:
            deviation.diagonal().zero_()
        weight = 1 if tile.diagonal else 2
        first += weight * float(deviation.sum())
        second += weight * float(deviation.square().sum())
    return math.sqrt(max(second / pairs - (first / pairs) ** 2, 0.0))


@dataclass(frozen=True)
class KernelMoments:
    """A kernel of the distances of unit vectors, over pairs."""

    mean: float
    spread: float
    """Standard deviation."""


def kernel_moments(units: Float[Tensor, "K d"], power: float) -> KernelMoments:
    """Moments over pairs of |u_i - u_j|^-power, or of log(1/|u_i - u_j|) for power 0; infinite if two are one point.

    Sums are of what the kernel exceeds its value at the mean squared distance by, which needs no pairs: near a simplex
    that keeps the digits of the spread.
    """
    number = len(units)
    pairs = number * (number - 1) / 2
    between = (number**2 - float(units.sum(0).square().sum())) / pairs
    centre = float(_kernel(torch.tensor(between, dtype=torch.float64), power))
    ones = torch.ones(number, dtype=torch.float64, device=units.device)
    for precision in (precision_of(units), torch.float64):
        first = second = 0.0
        near: list[Tensor] = []
        for tile in tiles(units, precision):
            squares, lost = far_squares(tile, units, ones, ones)
            hidden = squares == math.inf
            values = _kernel(squares, power).sub_(centre).masked_fill_(hidden, 0.0)
            share = 0.5 if tile.diagonal else 1.0
            first += share * float(values.sum(dtype=torch.float64))
            second += share * float(values.square_().sum(dtype=torch.float64))
            near.append(lost)
        for i, j in (piece.T for piece in torch.cat(near).split(max(1, (1 << 20) // units.shape[1]))):
            values = _kernel(row_norms(units[i] - units[j]).square(), power) - centre
            first, second = first + float(values.sum()), second + float(values.square().sum())
        mean = first / pairs
        spread = math.sqrt(max(second / pairs - mean**2, 0.0)) if math.isfinite(mean) else math.nan
        if precision == torch.float64 or not spread < _KERNEL_FLOOR * abs(centre + mean):
            break
    return KernelMoments(centre + mean, spread)


def _kernel(squares: Tensor, power: float) -> Tensor:
    """Of squared distances, in their memory."""
    return squares.log_().mul_(-0.5) if power == 0 else squares.pow_(-power / 2)


def product_norm(left: Float[Tensor, "K d"], right: Float[Tensor, "K d"]) -> float:
    """Frobenius norm of ``left @ right.T``: from d x d matrices where d < K and no digits are lost by it."""
    scales = [float(matrix.abs().max()) or 1.0 for matrix in (left, right)]
    same = right is left
    left = left / scales[0]
    right = left if same else right / scales[1]
    square = math.nan
    if left.shape[1] < len(left):
        first = left.T @ left
        second = first if same else right.T @ right
        square = float((first * second).sum())
        if not square > 1e-6 * float(first.norm() * second.norm()):
            square = math.nan
    if math.isnan(square):
        square = sum(float((left[i : i + TILE] @ right.T).square().sum()) for i in range(0, len(left), TILE))
    return math.sqrt(square) * scales[0] * scales[1]


def _cosine_sum(tile: Tile, number: int) -> float:
    """Sum over ordered pairs of the tile, and of its mirror image, of abs(cosine + 1/(K-1))."""
    deviation = (tile.cosines + 1 / (number - 1)).abs_()
    if tile.diagonal:
        deviation.diagonal().zero_()
    return float(deviation.sum(dtype=torch.float64)) * (1 if tile.diagonal else 2)


def _settled(
    distance: float, precision: torch.dtype, centred: Float[Tensor, "K d"], shifted: Float[Tensor, "K d"]
) -> float:
    """Mean distance of the cosines, computed anew where float32 lost it or some means have no direction."""
    void = bool((centred == 0).all(1).any())
    if void:
        return math.nan
    return cosine_distance(shifted) if precision == torch.float32 and distance <= _COSINE_FLOOR else distance


def _by_difference(
    pairs: Int[Tensor, "pairs 2"],
    means: Float[Tensor, "K d"],
    traces: Float[Tensor, " K"],
    tolerance: Float[Tensor, " K"],
    exponent: int,
) -> tuple[float, int]:
    """Sum of (v_i + v_j) / (2 |m_i - m_j|^(2 exponent)) over these pairs, and how many of them coincide."""
    total, coincident = 0.0, 0
    for i, j in (piece.T for piece in pairs.split(max(1, (1 << 20) // means.shape[1]))):
        squares = row_norms(means[i] - means[j])
        squares = squares.where(squares > tolerance[i] + tolerance[j], 0.0).square()
        coincident += int((squares == 0).sum())
        total += float(((traces[i] + traces[j]) / (2 * squares**exponent)).sum())
    return total, coincident
