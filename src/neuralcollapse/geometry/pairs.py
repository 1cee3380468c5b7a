"""Everything that needs all pairs of classes, tile by tile: a K x K matrix is never held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_TILE = 1024
"""Rows and columns of a K x K matrix that are held at once."""

_COARSE = 1e-4
"""Squared distance, relative to the squared norms, below which it is computed again from the difference."""


@dataclass(frozen=True)
class Cosines:
    """Moments of the cosines between all pairs of different vectors."""

    spread: float
    """Standard deviation. Papyan et al. 2020, Figure 3."""
    distance: float
    """Mean of abs(cosine + 1/(K-1)): how far from maximal equiangularity. Papyan et al. 2020, Figure 4."""


def cosines(vectors: Float[Tensor, "K d"]) -> Cosines:
    """Spread of the pairwise cosines, and their mean distance to -1/(K-1); NaN if a vector is zero."""
    num_classes = len(vectors)
    units = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    pairs = num_classes * (num_classes - 1)
    first = second = absolute = 0.0
    for (row, column), tile in _tiles(units, units):
        deviation = tile + 1 / (num_classes - 1)  # small at collapse, so its moments keep their digits
        weight = 2
        if row == column:
            deviation.diagonal().zero_()
            weight = 1
        first += weight * float(deviation.sum())
        second += weight * float(deviation.square().sum())
        absolute += weight * float(deviation.abs().sum())
    variance = second / pairs - (first / pairs) ** 2
    return Cosines(math.sqrt(max(variance, 0.0)) if variance == variance else math.nan, absolute / pairs)


def distance_normalised_variance(
    means: Float[Tensor, "K d"],
    traces: Float[Tensor, "K"],
    tolerance: Float[Tensor, "K"],
    exponent: int = 1,
) -> tuple[float, int]:
    """Mean over pairs of (v_i + v_j) / (2 |m_i - m_j|^(2 exponent)), and the number of pairs whose means coincide.

    Args:
        means: class means.
        traces: traces of the class covariances v.
        tolerance: error of each mean; means closer than the sum of theirs count as one point.
        exponent: 1 as in Galanti, György and Hutter 2022; 2 as in Wu and Papyan 2024.

    Returns:
        The mean, infinite if a pair with variance coincides and NaN if one without does; and how many coincide.
    """
    centred = means - means.mean(0)
    squares = centred.square().sum(1)
    total, coincident = 0.0, 0
    for (row, column), tile in _tiles(centred, centred):
        rows, columns = slice(row, row + len(tile)), slice(column, column + tile.shape[1])
        sizes = squares[rows, None] + squares[columns]
        distances = sizes - 2 * tile
        if row == column:
            distances.diagonal().fill_(math.inf)
        coarse = (distances <= _COARSE * sizes).nonzero()
        if row == column:
            coarse = coarse[coarse[:, 0] < coarse[:, 1]]
        for i, j in (piece.T for piece in coarse.split(_TILE)):
            exact = torch.linalg.vector_norm(means[row + i] - means[column + j], dim=1)
            same = exact <= tolerance[row + i] + tolerance[column + j]
            coincident += int(same.sum())
            exact[same] = 0.0
            distances[i, j] = exact.square()
            if row == column:
                distances[j, i] = exact.square()
        ratio = (traces[rows, None] + traces[columns]) / (2 * distances**exponent)
        total += (1 if row == column else 2) * float(ratio.sum())
    return total / (len(means) * (len(means) - 1)), coincident


def product_norm(left: Float[Tensor, "K d"], right: Float[Tensor, "K d"]) -> float:
    """Frobenius norm of ``left @ right.T``: from d x d matrices where d < K and no digits are lost by it."""
    if left.shape[1] < len(left):
        first, second = left.T @ left, right.T @ right
        square = float((first * second).sum())
        if square > 1e-6 * float(first.norm() * second.norm()):
            return math.sqrt(square)
    symmetric = left is right
    total = sum(
        float(tile.square().sum()) * (1 if not symmetric or row == column else 2)
        for (row, column), tile in _tiles(left, right, symmetric)
    )
    return math.sqrt(total)


def _tiles(
    left: Float[Tensor, "K d"], right: Float[Tensor, "K d"], symmetric: bool = True
) -> Iterator[tuple[tuple[int, int], Float[Tensor, "rows columns"]]]:
    """Tiles of ``left @ right.T`` with the indices of their corner; on and above the diagonal if symmetric."""
    for row in range(0, len(left), _TILE):
        for column in range(row if symmetric else 0, len(right), _TILE):
            yield (row, column), left[row : row + _TILE] @ right[column : column + _TILE].T
