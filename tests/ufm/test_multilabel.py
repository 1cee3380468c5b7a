from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from neuralcollapse import multilabel_metrics
from neuralcollapse.ufm.multilabel import MultilabelOptimum, multilabel_optimum
from tests.ufm.oracle import multi_start

SAMPLES = [(2, {1: 3}), (3, {1: 2, 2: 1}), (4, {1: 2, 2: 1}), (4, {1: 1, 3: 2}), (4, {2: 2})]
DECAYS = [(0.002, 0.001), (0.01, 0.02), (0.04, 0.03), (0.3, 0.2)]


def plain(k: int, samples: dict[int, int], w: float, h: float):
    sets = [set_ for m in sorted(samples) for set_ in itertools.combinations(range(k), m) for _ in range(samples[m])]
    hot = torch.tensor([[tag in set_ for tag in range(k)] for set_ in sets], dtype=torch.float64)

    def objective(weight: torch.Tensor, features: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        losses = -(hot * torch.log_softmax((weight @ features).T + bias, 1)).sum()
        return (
            losses / len(sets)
            + (w * weight.square().sum() + h * features.square().sum() + 0.1 * bias.square().sum()) / 2
        )

    return objective, hot


def per_sample(found: MultilabelOptimum, samples: dict[int, int]) -> np.ndarray:
    return np.repeat(found.H, [samples[int(m)] for m in found.sets.sum(1)], axis=1)


@pytest.mark.parametrize(("k", "samples"), SAMPLES)
@pytest.mark.parametrize(("lambda_w", "lambda_h"), DECAYS)
def test_closed_form_against_many_starts(k: int, samples: dict[int, int], lambda_w: float, lambda_h: float) -> None:
    found = multilabel_optimum(k, samples, k, lambda_w=lambda_w, lambda_h=lambda_h)
    objective, hot = plain(k, samples, lambda_w, lambda_h)
    features = per_sample(found, samples)
    ours = objective(torch.tensor(found.W), torch.tensor(features), torch.zeros(k, dtype=torch.float64))
    assert float(ours) == pytest.approx(found.value, abs=1e-12)
    reached, (weight, theirs, bias) = multi_start(objective, [(k, k), (k, len(hot)), (k,)], starts=2)
    assert reached == pytest.approx(found.value, abs=1e-9)
    logits = weight @ theirs + bias[:, None]
    assert np.abs(logits - logits.mean(0) - found.W @ features).max() < 1e-9


@pytest.mark.parametrize(("k", "samples"), SAMPLES)
def test_both_sides_of_the_threshold(k: int, samples: dict[int, int]) -> None:
    low, high = 1e-4, 1.0  # τ between which the optimum leaves the origin
    for _ in range(60):
        middle = math.sqrt(low * high)
        vanished = not multilabel_optimum(k, samples, k, lambda_w=middle, lambda_h=middle).W.any()
        low, high = (low, middle) if vanished else (middle, high)
    objective, hot = plain(k, samples, 0.98 * low, 0.98 * low)
    origin = float(objective(*(torch.zeros(shape, dtype=torch.float64) for shape in ((k, k), (k, len(hot)), (k,)))))
    found = multilabel_optimum(k, samples, k, lambda_w=0.98 * low, lambda_h=0.98 * low)
    assert found.value < origin - 1e-8
    shapes = [(k, k), (k, len(hot)), (k,)]
    reached, (weight, theirs, _) = multi_start(objective, shapes, starts=2)
    assert reached == pytest.approx(found.value, abs=1e-12)
    assert np.abs(weight @ theirs - found.W @ per_sample(found, samples)).max() < 1e-9
    objective, _ = plain(k, samples, 1.02 * high, 1.02 * high)
    reached, (weight, theirs, _) = multi_start(objective, shapes, starts=2)
    assert reached == pytest.approx(origin, abs=1e-12)
    assert np.abs(weight @ theirs).max() < 1e-9


def test_tag_wise_average_is_what_the_measure_reads() -> None:
    samples = {1: 4, 2: 2, 3: 1}
    found = multilabel_optimum(5, samples, 6, lambda_w=1e-3, lambda_h=2e-3)
    hot = np.repeat(found.sets, [samples[int(m)] for m in found.sets.sum(1)], axis=0)
    read = multilabel_metrics(
        torch.tensor(per_sample(found, samples).T.copy()), torch.tensor(hot), torch.tensor(found.W)
    )
    assert max(read.nc1, read.nc2, read.nc3) < 1e-10
    assert read.tag_angle < 1e-5
    assert read.scales == pytest.approx(found.tag_scales)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"samples_per_set": {}}, "samples_per_set is empty"),
        ({"samples_per_set": {3: 1}}, "multiplicity 3"),
        ({"samples_per_set": {1: 0}}, r"samples_per_set\[1\]=0"),
        ({"feature_dim": 1}, "at least K - 1 = 2"),
        ({"lambda_w": -1.0}, "lambda_w"),
        ({"lambda_h": math.inf}, "lambda_h"),
    ],
)
def test_bad_input_is_refused(change: dict, match: str) -> None:
    good = {"num_classes": 3, "samples_per_set": {1: 2}, "feature_dim": 3, "lambda_w": 0.1, "lambda_h": 0.1}
    with pytest.raises(ValueError, match=match):
        multilabel_optimum(**{**good, **change})
