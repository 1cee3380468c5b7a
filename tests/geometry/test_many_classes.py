from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcollapse import (
    gnc1,
    gnc2,
    gnc3,
    hyperspherical_uniformity,
    measure_features,
    one_vs_rest_margin,
    simplex_etf,
    unc3,
)


def polygon(k: int) -> torch.Tensor:
    angles = torch.arange(k, dtype=torch.float64) * 2 * math.pi / k
    return torch.stack([angles.cos(), angles.sin()], 1)


def units(k: int, d: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((k, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [3, 4, 5, 6, 9, 17, 40])
def test_margin_of_polygons(k: int) -> None:
    expected = 1.5 if k == 3 else 1 - math.cos(2 * math.pi / k)
    assert abs(float(one_vs_rest_margin(polygon(k))) - expected) < 1e-9


@pytest.mark.parametrize(("k", "d"), [(2, 1), (2, 5), (3, 2), (4, 3), (10, 9), (10, 40), (100, 99)])
def test_margin_of_the_simplex(k: int, d: int) -> None:
    found = one_vs_rest_margin(3 * simplex_etf(k, d, dtype=torch.float64, rotation="random"))
    assert torch.allclose(found.distances, torch.full((k,), k / (k - 1), dtype=torch.float64), rtol=0, atol=1e-9)
    assert found.gap < 1e-9


@pytest.mark.parametrize("d", [2, 3, 7, 30])
def test_margin_of_the_cross_polytope(d: int) -> None:
    eye = torch.eye(d, dtype=torch.float64)
    assert abs(one_vs_rest_margin(torch.cat([eye, -eye])).margin - 1) < 1e-9


@pytest.mark.parametrize(
    ("k", "d", "normalize"), [(6, 3, True), (12, 4, True), (30, 2, True), (15, 3, False), (8, 12, False)]
)
def test_each_distance_against_cvxpy(k: int, d: int, normalize: bool) -> None:
    import cvxpy as cp

    rows = np.random.default_rng(k).standard_normal((k, d))
    found = one_vs_rest_margin(torch.tensor(rows), normalize=normalize)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalize else rows
    for i in range(k):
        shares = cp.Variable(k - 1, nonneg=True)
        nearest = np.delete(rows, i, 0).T @ shares
        program = cp.Problem(cp.Minimize(cp.norm(rows[i] - nearest)), [cp.sum(shares) == 1])
        assert float(found.distances[i]) == pytest.approx(program.solve(solver="CLARABEL"), abs=1e-6)


def test_a_thousand_classes_with_a_proof() -> None:
    rows = units(1000, 64)
    found = one_vs_rest_margin(torch.tensor(rows))
    assert found.gap < 1e-6
    worst = int(found.distances.argmin())
    # The hyperplane halfway is a proof of its own: no row but its own lies beyond.
    assert 0.3 < found.margin < 1
    others = np.delete(rows, worst, 0)
    assert found.margin <= np.linalg.norm(others - rows[worst], axis=1).min()


@settings(deadline=None, max_examples=60)
@given(k=st.integers(2, 25), d=st.integers(1, 8), seed=st.integers(0, 10**6), copies=st.integers(0, 2))
def test_margin_is_proved_and_turns_with_its_rows(k: int, d: int, seed: int, copies: int) -> None:
    rows = units(k, d, seed)
    rows[:copies] = rows[-1]
    found = one_vs_rest_margin(torch.tensor(rows))
    assert found.gap < 1e-7
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    turned = one_vs_rest_margin(torch.tensor(7 * rows @ turn))
    assert torch.allclose(found.distances, turned.distances, rtol=0, atol=1e-7)
    nearest = min(np.linalg.norm(rows[i] - rows[j]) for i in range(k) for j in range(i))
    assert found.margin <= nearest + 1e-12


@pytest.mark.parametrize(("k", "d"), [(5, 4), (12, 3), (1100, 2), (40, 20)])
@pytest.mark.parametrize("kernel", ["log", 1.0, 2.5])
def test_uniformity_against_numpy(k: int, d: int, kernel: str | float) -> None:
    rows = units(k, d)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)[np.triu_indices(k, 1)]
    values = -np.log(distances) if kernel == "log" else distances ** -float(kernel)
    found = hyperspherical_uniformity(torch.tensor(5 * rows), kernel)
    assert found.energy == pytest.approx(values.mean(), rel=1e-6)
    assert found.variation == pytest.approx(values.std() / abs(values.mean()), rel=1e-5)


def test_uniformity_of_the_simplex_is_the_least() -> None:
    found = hyperspherical_uniformity(simplex_etf(6, 8))
    assert found.energy == pytest.approx(-math.log(12 / 5) / 2, abs=1e-6)
    assert found.variation < 1e-6
    assert all(hyperspherical_uniformity(torch.tensor(units(6, 8, seed))).energy > found.energy for seed in range(20))


def test_gnc_measures_against_numpy() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(9), 12)
    features = rng.standard_normal((9, 3))[labels] + 0.2 * rng.standard_normal((108, 3))
    weight = rng.standard_normal((9, 3))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([features[labels == k].mean(0) for k in range(9)])
    wanted = measure_features(torch.tensor(unit), torch.tensor(labels)).nc1
    assert gnc1(torch.tensor(features), torch.tensor(labels)) == pytest.approx(wanted, rel=1e-10)
    products = (weight * means).sum(1)
    cosines = products / np.linalg.norm(weight, axis=1) / np.linalg.norm(means, axis=1)
    pair = torch.tensor(weight), torch.tensor(means)
    assert gnc3(*pair) == pytest.approx(1 - cosines.mean(), abs=1e-12)
    assert unc3(*pair) == pytest.approx(products.var(), rel=1e-12)
    assert unc3(*pair, normalize=True) == pytest.approx(cosines.var(), rel=1e-12)
    assert gnc3(pair[0], 1e-200 * pair[0]) < 1e-15


@pytest.mark.parametrize("kernel", ["log", 2.0])
@pytest.mark.parametrize("gap", [1e-2, 1e-5, 1e-9])
def test_uniformity_of_many_directions_and_of_twins(kernel: str | float, gap: float) -> None:
    """Float32 tiles beyond 2,048 directions; every direction has a twin that only their difference tells apart."""
    rows = units(2200, 5)
    rows[1::2] = rows[::2] + gap * rows[1::2]
    exact = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    i, j = np.triu_indices(2200, 1)
    distances = np.linalg.norm(exact[i] - exact[j], axis=1)
    values = -np.log(distances) if kernel == "log" else distances**-2.0
    found = hyperspherical_uniformity(torch.tensor(rows), kernel)
    assert found.energy == pytest.approx(values.mean(), rel=1e-5)
    assert found.variation == pytest.approx(values.std() / abs(values.mean()), rel=1e-4)


@pytest.mark.parametrize("size", [1e-4, 1e-8])
def test_the_variation_near_a_simplex_keeps_its_digits(size: float) -> None:
    etf = simplex_etf(60, 59, dtype=torch.float64)
    step = torch.randn(etf.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near, reference = (hyperspherical_uniformity(etf + x * step).variation for x in (size, 1e-2 * size))
    assert near / reference == pytest.approx(100, rel=2e-2)


def test_gnc2_is_the_margin_of_the_rows_at_length_one() -> None:
    weight = torch.tensor(units(9, 4) * np.arange(1, 10)[:, None])
    assert gnc2(weight) == one_vs_rest_margin(weight).margin
    assert gnc2(3 * simplex_etf(5, 4)) == pytest.approx(1.25)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    good = torch.eye(3)
    for bad in (torch.eye(1), torch.ones(3), torch.full((3, 3), torch.nan), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match="weight"):
            one_vs_rest_margin(bad)
    with pytest.raises(ValueError, match=r"zero row \(1\)"):
        one_vs_rest_margin(torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(ValueError, match="class_means has shape"):
        gnc3(good, good[:2])
    for kernel in ("riesz", 0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="kernel="):
            hyperspherical_uniformity(good, kernel)
