"""All pairs of K vectors, in one symmetric sweep of tiles: a K x K matrix is never held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE = 512
"""Rows and columns of a K x K matrix that are held at once."""

_EXACT_CLASSES = 2048
"""Up to so many classes tiles are float64: it costs nothing there."""

_COARSE = {torch.float32: 0.1, torch.float64: 1e-4}
"""Squared distance, relative to the squared norms, below which a tile has lost digits, in each precision."""

_MANY = 0.02
"""Share of lost pairs beyond which a float32 tile is computed again in float64, before single pairs are."""


@dataclass(frozen=True)
class Tile:
    """Cosines of some rows with some columns, on or above the diagonal."""

    rows: slice
    columns: slice
    cosines: Tensor

    @property
    def diagonal(self) -> bool:
        return self.rows == self.columns


def units_of(vectors: Float[Tensor, "K d"], lengths: Float[Tensor, " K"]) -> Float[Tensor, "K d"]:
    """Vectors of length one; zero for those of length zero."""
    return vectors / lengths.where(lengths > 0, math.inf)[:, None]


def precision_of(units: Float[Tensor, "K d"]) -> torch.dtype:
    return torch.float64 if len(units) <= _EXACT_CLASSES else torch.float32


def tiles(units: Float[Tensor, "K d"], precision: torch.dtype) -> Iterator[Tile]:
    """Tiles of the cosines on and above the diagonal, each in the memory of the one before."""
    units = units.to(precision)
    buffer = units.new_empty(TILE * TILE)
    for row in range(0, len(units), TILE):
        for column in range(row, len(units), TILE):
            rows, columns = slice(row, row + TILE), slice(column, column + TILE)
            left, right = units[rows], units[columns]
            out = buffer[: len(left) * len(right)].view(len(left), len(right))
            yield Tile(rows, columns, torch.mm(left, right.T, out=out))


def _squares(tile: Tile, lengths: Float[Tensor, " K"], sizes: Float[Tensor, " K"]) -> Tensor:
    """Squared distances |a|² + |b|² - 2 |a| |b| cos; infinite on the diagonal."""
    to = tile.cosines
    squares = (to * (-2 * lengths[tile.columns]).to(to)).mul_(lengths[tile.rows, None].to(to))
    squares.add_(sizes[tile.columns].to(to)).add_(sizes[tile.rows, None].to(to))
    if tile.diagonal:
        squares.diagonal().fill_(math.inf)
    return squares


def _lost(squares: Tensor, tile: Tile, sizes: Float[Tensor, " K"]) -> Tensor:
    """Where a distance is so much smaller than the vectors that the tile's precision does not hold it."""
    rows, columns = (sizes[part].to(squares) * _COARSE[squares.dtype] for part in (tile.rows, tile.columns))
    return squares <= rows[:, None] + columns


def far_squares(
    tile: Tile, units: Float[Tensor, "K d"], lengths: Float[Tensor, " K"], sizes: Float[Tensor, " K"]
) -> tuple[Tensor, Int[Tensor, "pairs 2"]]:
    """Squared distances, infinite on the diagonal and where they are lost; and the pairs i < j that are lost.

    A float32 tile that has lost many is computed again in float64.
    """
    squares = _squares(tile, lengths, sizes)
    lost = _lost(squares, tile, sizes)
    count = int(lost.sum())
    if squares.dtype == torch.float32 and count > _MANY * squares.numel():
        again = Tile(tile.rows, tile.columns, units[tile.rows] @ units[tile.columns].T)
        return far_squares(again, units, lengths, sizes)
    found = torch.empty(0, 2, dtype=torch.int64, device=squares.device)
    if count:
        squares.masked_fill_(lost, math.inf)
        found = lost.nonzero()
        found[:, 0] += tile.rows.start
        found[:, 1] += tile.columns.start
        found = found[found[:, 0] < found[:, 1]]
    return squares, found
