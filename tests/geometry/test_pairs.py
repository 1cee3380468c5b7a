from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralcollapse import simplex_etf
from neuralcollapse.geometry import pairs
from neuralcollapse.geometry.pairs import cosine_distance, cosine_spread, pair_measures, product_norm


def points(number: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(number, dim, generator=generator, dtype=torch.float64)
    return means, torch.rand(number, generator=generator, dtype=torch.float64)


def distances(means: torch.Tensor) -> np.ndarray:
    """All distances, each from its own difference."""
    x = means.numpy()
    return np.stack([np.linalg.norm(x - row, axis=1) for row in x])


def expected(means: torch.Tensor, traces: torch.Tensor, exponent: int) -> float:
    v, away = traces.numpy(), ~np.eye(len(means), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (v[:, None] + v) / (2 * distances(means) ** (2 * exponent))
    return float(ratio[away].mean())


def sweep(means: torch.Tensor, traces: torch.Tensor, exponent: int = 1, error: float = 1e-15) -> pairs.PairMeasures:
    tolerance = torch.full((len(means),), error, dtype=torch.float64)
    return pair_measures(means, means - means.mean(0), traces, tolerance, exponent=exponent)


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize(("number", "dim"), [(2, 1), (7, 3), (600, 2), (900, 40), (3000, 3)])
def test_all_pairs_agree_with_numpy(number: int, dim: int, exponent: int) -> None:
    means, traces = points(number, dim)
    found = sweep(means, traces, exponent)
    assert found.coincident == 0
    # Float32 tiles, beyond 2048 classes, keep six digits of each pair that is not recomputed.
    assert found.cdnv == pytest.approx(expected(means, traces, exponent), rel=1e-6 if number > 2048 else 1e-9)
    centred = (means - means.mean(0)).numpy()
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = (units @ units.T)[~np.eye(number, dtype=bool)]
    assert found.cosine_distance == pytest.approx(np.abs(cosines + 1 / (number - 1)).mean(), rel=1e-6, abs=1e-14)
    assert cosine_distance(torch.tensor(centred)) == pytest.approx(found.cosine_distance, rel=1e-6, abs=1e-14)
    assert cosine_spread(torch.tensor(centred)) == pytest.approx(cosines.std(), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_any_scale(scale: float) -> None:
    means, traces = points(2500, 5)
    found = sweep(means * scale, traces, error=0.0)
    reference = sweep(means, traces)
    assert found.cdnv * scale**2 == pytest.approx(reference.cdnv, rel=1e-6)
    assert found.cosine_distance == pytest.approx(reference.cosine_distance, rel=1e-6)


@pytest.mark.parametrize("number", [40, 2600])
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-10])
def test_close_pairs_are_computed_from_their_difference(number: int, gap: float) -> None:
    """Every class has a twin at a distance of ``gap``, and half of all classes stand in one cluster."""
    means, traces = points(number, 4)
    means[: number // 2] = 5 + 1e-3 * means[: number // 2]
    means[1::2] = means[::2] + gap * means[1::2]
    assert sweep(means, traces).cdnv == pytest.approx(expected(means, traces, 1), rel=1e-6)


def test_coincident_means_are_infinite_or_undefined_never_a_number() -> None:
    means, traces = points(30, 4)
    means[7] = means[3] + 1e-16
    found = sweep(means, traces)
    assert found.cdnv == math.inf
    assert found.coincident == 1
    traces[[3, 7]] = 0.0
    assert math.isnan(sweep(means, traces).cdnv)


def test_tiny_and_large_classes_side_by_side() -> None:
    means, traces = points(2300, 3)
    scale = torch.where(torch.arange(2300) < 1150, 1e-20, 1.0).double()
    means, traces = means * scale[:, None], traces * scale**2
    assert sweep(means, traces, error=0.0).cdnv == pytest.approx(expected(means, traces, 1), rel=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9])
def test_cosines_near_collapse_keep_their_digits(size: float) -> None:
    etf = simplex_etf(40, 39, dtype=torch.float64)
    step = torch.randn(etf.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference, near = etf + 1e-2 * size * step, etf + size * step
    for measure in (cosine_spread, cosine_distance):
        assert measure(near) / measure(reference) == pytest.approx(100, rel=2e-2)


@pytest.mark.parametrize(("number", "dim"), [(5, 9), (700, 9)])
def test_product_norm(number: int, dim: int) -> None:
    left, right = (points(number, dim, seed)[0] for seed in (0, 1))
    exact = float((left @ right.T).norm())
    assert product_norm(left, right) == pytest.approx(exact, rel=1e-12)
    assert product_norm(left, left) == pytest.approx(float((left @ left.T).norm()), rel=1e-12)
    assert product_norm(1e-200 * left, 1e200 * right) == pytest.approx(exact, rel=1e-12)
    # Orthogonal row spaces: the d x d form would leave rounding in place of a small number.
    first, second = left.clone(), right.clone()
    first[:, dim // 2 :], second[:, : dim // 2] = 1e-9 * first[:, dim // 2 :], 0.0
    assert product_norm(first, second) == pytest.approx(float((first @ second.T).norm()), rel=1e-9)


def test_a_zero_vector_has_no_cosines() -> None:
    means, traces = points(5, 3)
    means[2] = 0
    assert math.isnan(cosine_distance(means))
    assert math.isnan(cosine_spread(means))
    assert math.isnan(pair_measures(means, means, traces, torch.zeros(5).double()).cosine_distance)
