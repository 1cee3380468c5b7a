"""Values of single pairs, against NumPy, and the pieces that they come in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralcollapse import (
    ClassStatistics,
    Moments,
    cdnv,
    cdnv_grid,
    cdnv_tiles,
    cosine_grid,
    cosine_tiles,
    measure_features,
)
from neuralcollapse.geometry import grids
from tests.cases import CASES, Case


def expected(case: Case, exponent: int) -> np.ndarray:
    x, y = case.features.double().numpy(), case.labels.numpy()
    classes = np.unique(y)
    means = np.stack([x[y == k].mean(0) for k in classes])
    traces = np.array([((x[y == k] - x[y == k].mean(0)) ** 2).sum(1).mean() for k in classes])
    distances = np.linalg.norm(means[:, None] - means[None], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        grid = (traces[:, None] + traces) / (2 * distances ** (2 * exponent))
    np.fill_diagonal(grid, np.nan)
    return grid


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_pairs_and_their_mean_against_numpy(case: Case, exponent: int) -> None:
    moments = Moments.from_features(case.features, case.labels)
    wanted = expected(case, exponent)
    np.testing.assert_allclose(cdnv_grid(moments, exponent=exponent).numpy(), wanted, rtol=1e-6)
    off = wanted[~np.eye(len(wanted), dtype=bool)]
    assert cdnv(moments, exponent=exponent) == pytest.approx(off.mean(), rel=1e-6)
    if exponent == 1:
        assert cdnv(moments) == pytest.approx(measure_features(case.features, case.labels).cdnv, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30])
def test_the_unit_of_each_exponent(scale: float) -> None:
    case = CASES[0]
    plain = Moments.from_features(case.features.double(), case.labels)
    scaled = Moments.from_features(case.features.double() * scale, case.labels)
    assert cdnv(scaled) == pytest.approx(cdnv(plain), rel=1e-9)
    if scale < 1e30 and scale > 1e-100:
        assert cdnv(scaled, exponent=2) * scale**2 == pytest.approx(cdnv(plain, exponent=2), rel=1e-9)


def test_statistics_will_do_and_absent_classes_are_left_out() -> None:
    case = CASES[0]
    statistics = ClassStatistics(int(case.labels.max()) + 4, case.features.shape[1])
    statistics.update(case.features, case.labels)
    assert len(cdnv_grid(statistics)) == len(torch.unique(case.labels))
    assert cdnv(statistics) == pytest.approx(cdnv(Moments.from_features(case.features, case.labels)), rel=1e-6)


def test_cosines_against_numpy() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine_grid(torch.tensor(1e-200 * rows)).numpy(), unit @ unit.T, atol=1e-14)
    assert bool((cosine_grid(torch.tensor(rows)).diagonal() == 1).all())


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_pieces_cover_the_grid_once(size: int) -> None:
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    moments = Moments.from_features(rows.repeat(2, 1), torch.arange(80) % 40)
    for whole, pieces in ((cosine_grid(rows), cosine_tiles(rows, size=size)),
                          (cdnv_grid(moments), cdnv_tiles(moments, size=size))):  # fmt: skip
        seen = torch.zeros(40, 40)
        for piece in pieces:
            assert piece.columns.start >= piece.rows.start
            torch.testing.assert_close(piece.values, whole[piece.rows, piece.columns], equal_nan=True)
            seen[piece.rows, piece.columns] += 1
        assert bool((seen.triu() == torch.ones(40, 40).triu()).all())


def test_one_point_is_infinite_and_without_variance_undefined() -> None:
    features = torch.tensor([[0.0], [2.0], [0.5], [1.5], [7.0], [7.0], [7.0], [7.0]], dtype=torch.float64)
    grid = cdnv_grid(Moments.from_features(features, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])))
    assert float(grid[0, 1]) == math.inf
    assert math.isnan(float(grid[2, 3]))
    assert float(grid[0, 2]) == 1 / 72


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(40, 6)
    moments = Moments.from_features(rows.repeat(2, 1), torch.arange(80) % 40)
    with pytest.raises(ValueError, match="exponent=3 must be 1"):
        cdnv(moments, exponent=3)
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        next(cosine_tiles(rows, size=0))
    with pytest.raises(ValueError, match="zero row"):
        cosine_grid(0 * rows)
    monkeypatch.setattr(grids, "_GRID_BYTES", 1 << 13)
    for grid, given, way in ((cosine_grid, rows, "cosine_tiles"), (cdnv_grid, moments, "cdnv_tiles")):
        with pytest.raises(ValueError, match=f"a grid of 40 x 40 takes .*piece by piece with {way}"):
            grid(given)
