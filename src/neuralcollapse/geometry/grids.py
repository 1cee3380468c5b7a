"""Class-distance normalised variance, and what lies behind the means over pairs: the K x K grids themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.arithmetic import full_precision, in_unit, times_power_of_two
from neuralcollapse.geometry.collapse import mean_errors
from neuralcollapse.geometry.inputs import Rows, as_real, as_rows
from neuralcollapse.geometry.moments import Moments
from neuralcollapse.geometry.pairs import pair_measures
from neuralcollapse.geometry.statistics import ClassStatistics

_GRID_BYTES = 2 << 30
"""Largest grid that is made in one piece: K = 16,384."""

_PIECE = 1024
"""Rows and columns of a piece of a grid."""


@dataclass(frozen=True)
class GridTile:
    """A piece of a grid, on or above its diagonal; the grid is symmetric."""

    rows: slice
    columns: slice
    values: Float[Tensor, "rows columns"]


def cdnv(moments: Moments | ClassStatistics, *, exponent: int = 1) -> float:
    r"""Class-distance normalised variance: the mean over pairs of (v_i + v_j) / (2 |m_i - m_j|^(2 exponent)).

    v is the trace of the covariance of a class. In [0, ∞), 0 at collapse; infinite where two means are one point.
    With exponent 1 it has no unit. Exponent 2, of the paper on language models, has that of 1 / length².

    Args:
        moments: class moments of features; classes without samples are left out.
        exponent: power of the squared distance: 1 as in Galanti, György and Hutter 2022, 2 as in Wu and Papyan 2024.

    Raises:
        ValueError: if fewer than two classes have samples, or the exponent is neither 1 nor 2.

    Cost: one symmetric sweep over all pairs, half a K x K product.

    >>> moments = Moments.from_features(torch.tensor([[1.0], [3.0], [9.0], [11.0]]), torch.tensor([0, 0, 1, 1]))
    >>> cdnv(moments), cdnv(moments, exponent=2)
    (0.015625, 0.000244140625)
    """
    _check_exponent(exponent)
    means, traces, tolerance, unit = _parts(moments)
    with full_precision(means.device):
        found = pair_measures(means, means - means.mean(0), traces, tolerance, exponent=exponent)
    return float(times_power_of_two(torch.tensor(found.cdnv, dtype=torch.float64), unit * (2 - 2 * exponent)))


def cdnv_grid(moments: Moments | ClassStatistics, *, exponent: int = 1) -> Float[Tensor, "P P"]:
    """The class-distance normalised variance of each pair of classes; NaN on the diagonal, where it is undefined.

    Args:
        moments: class moments of features; the rows are the classes that have samples.
        exponent: as in :func:`cdnv`.

    Raises:
        ValueError: as :func:`cdnv`, and if the grid would take more than 2 GiB: read it with :func:`cdnv_tiles`.

    Cost: O(K²d) differences, no matrix product: exact also for means that nearly coincide.

    >>> moments = Moments.from_features(torch.tensor([[1.0], [3.0], [9.0], [11.0]]), torch.tensor([0, 0, 1, 1]))
    >>> cdnv_grid(moments).tolist()
    [[nan, 0.015625], [0.015625, nan]]
    """
    _check_size(int((_as_moments(moments).counts > 0).sum()), "cdnv_tiles")
    return _whole(cdnv_tiles(moments, exponent=exponent))


def cdnv_tiles(moments: Moments | ClassStatistics, *, exponent: int = 1, size: int = _PIECE) -> Iterator[GridTile]:
    """:func:`cdnv_grid` piece by piece, on and above the diagonal: for any number of classes.

    Args:
        moments: as in :func:`cdnv_grid`.
        exponent: as in :func:`cdnv`.
        size: rows and columns of a piece, at least 1.

    Raises:
        ValueError: as :func:`cdnv`, or if the size is less than 1.
    """
    _check_exponent(exponent)
    means, traces, tolerance, unit = _parts(moments)
    for rows, columns in _pieces(len(means), size):
        exact = torch.cdist(means[rows], means[columns], compute_mode="donot_use_mm_for_euclid_dist")
        exact.masked_fill_(exact <= tolerance[rows, None] + tolerance[columns], 0.0)
        values = (traces[rows, None] + traces[columns]) / (2 * exact.square() ** exponent)
        values = times_power_of_two(values, unit * (2 - 2 * exponent))
        if rows == columns:
            values.diagonal().fill_(torch.nan)
        yield GridTile(rows, columns, values)


def cosine_grid(vectors: Float[Tensor, "K d"] | Rows) -> Float[Tensor, "K K"]:
    """The cosine of each pair of vectors, in float64: rows of W, or class means that were centred before.

    At collapse every one off the diagonal is -1/(K-1). Cost: one K x K product.

    Raises:
        ValueError: if there are fewer than two vectors, one is zero or not finite, or the grid would take more than
            2 GiB: read it with :func:`cosine_tiles`.

    >>> cosine_grid(torch.tensor([[2.0, 0.0], [0.0, -1.0]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    vectors = as_real(vectors, "vectors")
    _check_size(vectors.shape[0] if vectors.ndim else 0, "cosine_tiles")
    return _whole(cosine_tiles(vectors))


def cosine_tiles(vectors: Float[Tensor, "K d"] | Rows, *, size: int = _PIECE) -> Iterator[GridTile]:
    """:func:`cosine_grid` piece by piece, on and above the diagonal: for any number of vectors.

    Args:
        vectors: as in :func:`cosine_grid`.
        size: rows and columns of a piece, at least 1.

    Raises:
        ValueError: if there are fewer than two vectors, one is zero or not finite, or the size is less than 1.

    >>> [tile.values.tolist() for tile in cosine_tiles(torch.tensor([[2.0, 0.0], [0.0, -1.0]]), size=1)]
    [[[1.0]], [[0.0]], [[1.0]]]
    """
    units = as_rows(vectors, "vectors", True)
    for rows, columns in _pieces(len(units), size):
        with full_precision(units.device):
            values = (units[rows] @ units[columns].T).clamp_(-1, 1)
        if rows == columns:
            values.diagonal().fill_(1.0)
        yield GridTile(rows, columns, values)


def _pieces(number: int, size: int) -> Iterator[tuple[slice, slice]]:
    if size < 1:
        raise ValueError(f"size={size} must be at least 1: the rows and columns of a piece")
    starts = range(0, number, size)
    yield from (
        (slice(row, min(row + size, number)), slice(column, min(column + size, number)))
        for row in starts
        for column in starts
        if column >= row
    )


def _whole(tiles: Iterator[GridTile]) -> Float[Tensor, "K K"]:
    """Both triangles of a grid."""
    pieces = list(tiles)
    number = pieces[-1].rows.stop
    grid = pieces[0].values.new_empty(number, number)
    for piece in pieces:
        grid[piece.rows, piece.columns] = piece.values
        grid[piece.columns, piece.rows] = piece.values.T
    return grid


def _as_moments(moments: Moments | ClassStatistics) -> Moments:
    return moments.moments() if isinstance(moments, ClassStatistics) else moments


def _parts(moments: Moments | ClassStatistics) -> tuple[Tensor, Tensor, Tensor, int]:
    """Means, traces and rounding of the classes that have samples, in units of 2**e, and e.

    The fourth power of a distance overflows much earlier than its square, for which moments have their unit.
    """
    moments = _as_moments(moments)
    present = moments.present
    if len(present) < 2:
        raise ValueError(f"{len(present)} classes have samples: pairs need at least 2")
    means, unit = in_unit(moments.means[present])
    traces = times_power_of_two(moments.within_traces[present], -2 * unit)
    return means, traces, mean_errors(means, traces, moments.counts[present]), unit + math.frexp(moments.scale)[1] - 1


def _check_exponent(exponent: int) -> None:
    if exponent not in (1, 2):
        raise ValueError(f"exponent={exponent} must be 1 (Galanti et al. 2022) or 2 (Wu and Papyan 2024)")


def _check_size(number: int, way: str) -> None:
    if 8 * number**2 > _GRID_BYTES:
        raise ValueError(
            f"a grid of {number:,} x {number:,} takes {8e-9 * number**2:.3g} GB, more than {_GRID_BYTES >> 30} GiB: "
            f"read it piece by piece with {way}(...)"
        )
