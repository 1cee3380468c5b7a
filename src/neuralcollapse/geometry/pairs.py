"""Everything that needs all pairs of classes, in one symmetric sweep of tiles: a K x K matrix is never held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import row_norms

_TILE = 512
"""Rows and columns of a K x K matrix that are held at once."""

_EXACT_CLASSES = 2048
"""Up to so many classes tiles are float64: it costs nothing there."""

_COARSE = {torch.float32: 0.1, torch.float64: 1e-4}
"""Squared distance, relative to the squared norms, below which a tile has lost digits, in each precision."""

_MANY = 0.02
"""Share of lost pairs beyond which a float32 tile is computed again in float64, before single pairs are."""

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


@dataclass(frozen=True)
class _Tile:
    """Cosines of some rows with some columns, on or above the diagonal."""

    rows: slice
    columns: slice
    cosines: Tensor

    @property
    def diagonal(self) -> bool:
        return self.rows == self.columns


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
    shifted = means - means.mean(0)
    lengths = row_norms(shifted)
    largest = float(lengths.max()) or 1.0
    spread = float(traces.max()) or 1.0
    sizes, spreads = (lengths / largest).square(), traces / spread
    units = _units(shifted, lengths)
    fast = _precision(units)
    far = 0.0
    near: list[Tensor] = []
    angles = 0.0
    for tile in _tiles(units, fast):
        angles += _cosine_sum(tile, len(units))
        inverse, lost = _inverse_squares(tile, units, lengths / largest, sizes)
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
    units = _units(vectors, lengths)
    if not bool((lengths > 0).all()):
        return math.nan
    for precision in (_precision(units), torch.float64):
        total = sum(_cosine_sum(tile, len(units)) for tile in _tiles(units, precision))
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
    units = _units(vectors, lengths)
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
    for tile in _tiles(units, torch.float64):
        deviation = tile.cosines - mean  # small where all are alike, so its moments keep their digits
        if tile.diagonal:
            deviation.diagonal().zero_()
        weight = 1 if tile.diagonal else 2
        first += weight * float(deviation.sum())
        second += weight * float(deviation.square().sum())
    return math.sqrt(max(second / pairs - (first / pairs) ** 2, 0.0))


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
        square = sum(float((left[i : i + _TILE] @ right.T).square().sum()) for i in range(0, len(left), _TILE))
    return math.sqrt(square) * scales[0] * scales[1]


def _units(vectors: Float[Tensor, "K d"], lengths: Float[Tensor, " K"]) -> Float[Tensor, "K d"]:
    """Vectors of length one; zero for those of length zero."""
    return vectors / lengths.where(lengths > 0, math.inf)[:, None]


def _precision(units: Float[Tensor, "K d"]) -> torch.dtype:
    return torch.float64 if len(units) <= _EXACT_CLASSES else torch.float32


def _tiles(units: Float[Tensor, "K d"], precision: torch.dtype) -> Iterator[_Tile]:
    """Tiles of the cosines on and above the diagonal, each in the memory of the one before."""
    units = units.to(precision)
    buffer = units.new_empty(_TILE * _TILE)
    for row in range(0, len(units), _TILE):
        for column in range(row, len(units), _TILE):
            rows, columns = slice(row, row + _TILE), slice(column, column + _TILE)
            left, right = units[rows], units[columns]
            out = buffer[: len(left) * len(right)].view(len(left), len(right))
            yield _Tile(rows, columns, torch.mm(left, right.T, out=out))


def _cosine_sum(tile: _Tile, number: int) -> float:
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


def _squares(tile: _Tile, lengths: Float[Tensor, " K"], sizes: Float[Tensor, " K"]) -> Tensor:
    """Squared distances |a|² + |b|² - 2 |a| |b| cos; infinite on the diagonal."""
    to = tile.cosines
    squares = (to * (-2 * lengths[tile.columns]).to(to)).mul_(lengths[tile.rows, None].to(to))
    squares.add_(sizes[tile.columns].to(to)).add_(sizes[tile.rows, None].to(to))
    if tile.diagonal:
        squares.diagonal().fill_(math.inf)
    return squares


def _lost(squares: Tensor, tile: _Tile, sizes: Float[Tensor, " K"]) -> Tensor:
    """Where a distance is so much smaller than the vectors that the tile's precision does not hold it."""
    rows, columns = (sizes[part].to(squares) * _COARSE[squares.dtype] for part in (tile.rows, tile.columns))
    return squares <= rows[:, None] + columns


def _inverse_squares(
    tile: _Tile, units: Float[Tensor, "K d"], lengths: Float[Tensor, " K"], sizes: Float[Tensor, " K"]
) -> tuple[Tensor, Int[Tensor, "pairs 2"]]:
    """Inverse squared distances, zero where they are lost; and the pairs i < j that are.

    A float32 tile that has lost many is computed again in float64.
    """
    squares = _squares(tile, lengths, sizes)
    lost = _lost(squares, tile, sizes)
    count = int(lost.sum())
    if squares.dtype == torch.float32 and count > _MANY * squares.numel():
        again = _Tile(tile.rows, tile.columns, units[tile.rows] @ units[tile.columns].T)
        return _inverse_squares(again, units, lengths, sizes)
    found = torch.empty(0, 2, dtype=torch.int64, device=squares.device)
    if count:
        squares.masked_fill_(lost, math.inf)
        found = lost.nonzero()
        found[:, 0] += tile.rows.start
        found[:, 1] += tile.columns.start
        found = found[found[:, 0] < found[:, 1]]
    return squares.reciprocal_(), found


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
