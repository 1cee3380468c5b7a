"""Measures against a target geometry: zero for an unequal optimum, where those against the simplex ETF are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralcollapse import ClassStatistics, collapse_metrics, measure_features
from neuralcollapse.ufm import UFM, target_geometry

SIZES = [[20, 5, 1], [30, 30, 3, 3], [9, 4, 4, 2, 1], [7, 7, 7]]


def unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix)


@pytest.mark.filterwarnings("ignore:classes with one sample")
@pytest.mark.parametrize("counts", SIZES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_certified_optimum_reads_zero(counts: list[int], loss: str) -> None:
    problem = UFM(len(counts), counts, 7, lambda_w=5e-3, lambda_h=1e-3, lambda_b=1e-2, loss=loss)
    solution = problem.solve(tol=1e-12) if len(set(counts)) > 1 else problem.global_optimum()
    target = target_geometry(counts, 5e-3, 1e-3, 1e-2, loss=loss)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))[0]
    features = torch.tensor(3 * (solution.point.H.T @ turn) + 1)  # another scale, origin and rotation
    labels, weight = torch.tensor(problem.labels), torch.tensor(0.5 * solution.point.W @ turn)
    found = measure_features(features, labels, weight, target=target)
    assert max(found.geometry_weights, found.geometry_means, found.geometry_duality) < 1e-6
    if len(set(counts)) > 1:
        assert min(found.nc2, found.nc2_means, found.nc3) > 5e-3
    statistics = ClassStatistics(len(counts), 7)
    statistics.update(features, labels)
    streamed = collapse_metrics(statistics, weight, target=target)
    assert streamed.geometry_means < 1e-6


def test_distances_against_numpy() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [9, 5, 3, 2])
    features, weight = rng.standard_normal((19, 6)), rng.standard_normal((4, 6))
    target = target_geometry([9, 5, 3, 2], 5e-3, 1e-3)
    means = np.stack([features[labels == k].mean(0) for k in range(4)])
    means -= means.mean(0)
    wanted = target.class_means - target.class_means.mean(0)
    found = measure_features(torch.tensor(features), torch.tensor(labels), torch.tensor(weight), target=target)
    for value, ours, theirs in (
        (found.geometry_weights, weight @ weight.T, target.weight @ target.weight.T),
        (found.geometry_means, means @ means.T, wanted @ wanted.T),
        (found.geometry_duality, weight @ means.T, target.weight @ wanted.T),
    ):
        assert value == pytest.approx(np.linalg.norm(unit(ours) - unit(theirs)), abs=1e-12)


def test_with_and_without_a_target() -> None:
    features, labels = torch.randn(12, 5), torch.arange(12) % 3
    plain = measure_features(features, labels)
    assert "geometry_means" not in plain.to_dict()
    target = target_geometry([4, 4, 4], 1e-3, 1e-3)
    found = measure_features(features, labels, target=target)
    assert found.geometry_weights is found.geometry_duality is None
    assert found.to_dict()["geometry_means"] == pytest.approx(found.nc2_means, abs=1e-6)  # equal classes: a simplex
    with pytest.raises(ValueError, match="target has 2 classes"):
        measure_features(features, labels, target=target_geometry([4, 4], 1e-3, 1e-3))
