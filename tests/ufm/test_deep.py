from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralcollapse.ufm.deep import DeepOptimum, deep_optimum
from tests.ufm.oracle import multi_start

SETTINGS = [
    (counts, d, layers, decay)
    for counts, d in (([4, 4], 2), ([5, 2], 3), ([6, 3, 1], 3), ([6, 3, 2], 2))
    for layers in (1, 2, 3)
    for decay in (0.02, 0.15)
]


def plain(counts: list[int], lambdas: list[float], lambda_h: float, *parts: torch.Tensor) -> torch.Tensor:
    *weights, features = parts
    targets = torch.eye(len(counts), dtype=torch.float64).repeat_interleave(torch.tensor(counts), 1)
    outputs = features
    for weight in weights:
        outputs = weight @ outputs
    decay = sum(each * weight.square().sum() for each, weight in zip(lambdas, weights, strict=True))
    return ((outputs - targets).square().sum() / sum(counts) + decay + lambda_h * features.square().sum()) / 2


def value_at(found: DeepOptimum, counts: list[int], lambdas: list[float], lambda_h: float) -> float:
    features = torch.tensor(found.features).repeat_interleave(torch.tensor(counts), 1)
    return float(plain(counts, lambdas, lambda_h, *map(torch.tensor, found.weights), features))


def outputs_of(weights: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    for weight in weights:
        features = weight @ features
    return features


def per_sample(found: DeepOptimum, counts: list[int]) -> np.ndarray:
    return np.repeat(found.product @ found.features, counts, axis=1)


@pytest.mark.parametrize(("counts", "d", "layers", "decay"), SETTINGS)
def test_closed_form_against_many_starts(counts: list[int], d: int, layers: int, decay: float) -> None:
    lambdas = [decay * (1 + 0.5 * layer) for layer in range(layers)]
    found = deep_optimum(counts, d, lambdas=lambdas, lambda_h=decay / 2)
    assert value_at(found, counts, lambdas, decay / 2) == pytest.approx(found.value, abs=1e-12)
    shapes = [(d, d)] * (layers - 1) + [(len(counts), d), (d, sum(counts))]
    reached, (*weights, features) = multi_start(
        lambda *parts: plain(counts, lambdas, decay / 2, *parts), shapes, starts=6, seed=layers
    )
    assert reached == pytest.approx(found.value, abs=1e-9)
    assert np.abs(outputs_of(weights, features) - per_sample(found, counts)).max() < 1e-9


@pytest.mark.parametrize("layers", [1, 2, 3, 7])
def test_both_sides_of_the_jump(layers: int) -> None:
    lambdas, counts = [0.1] * layers, [50, 20]
    probe = deep_optimum(counts, 2, lambdas=lambdas, lambda_h=0.1)
    # Which decay puts the second class exactly at its threshold?
    power = (layers + 1) / (2 * layers)
    scale = (math.sqrt(20) / probe.threshold) ** (1 / power)
    below = deep_optimum(counts, 2, lambdas=[0.1 * scale * (1 - 1e-6)] * layers, lambda_h=0.1 * scale * (1 - 1e-6))
    above = deep_optimum(counts, 2, lambdas=[0.1 * scale * (1 + 1e-6)] * layers, lambda_h=0.1 * scale * (1 + 1e-6))
    assert below.erased == ()
    assert above.erased == (1,)
    assert below.value == pytest.approx(above.value, rel=1e-5)
    assert below.singular_values[1] == pytest.approx(math.sqrt(20) * (layers - 1) / layers, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_descent_jumps_where_the_closed_form_does(layers: int, factor: float) -> None:
    counts = [5, 2]
    probe = deep_optimum(counts, 2, lambdas=[0.1] * layers, lambda_h=0.1)
    decay = 0.1 * factor * (math.sqrt(2) / probe.threshold) ** (2 * layers / (layers + 1))
    lambdas = [decay] * layers
    found = deep_optimum(counts, 2, lambdas=lambdas, lambda_h=decay)
    assert (1 in found.erased) == (factor > 1)
    shapes = [(2, 2)] * layers + [(2, 7)]
    reached, (*weights, features) = multi_start(
        lambda *parts: plain(counts, lambdas, decay, *parts), shapes, starts=12, seed=layers
    )
    assert reached == pytest.approx(found.value, abs=1e-9)
    assert np.abs(outputs_of(weights, features) - per_sample(found, counts)).max() < 1e-9


def test_layers_share_the_decay_equally() -> None:
    found = deep_optimum([9, 5, 2], 4, lambdas=[0.01, 0.03, 0.02], lambda_h=0.005)
    sizes = [decay * (w**2).sum() for decay, w in zip([0.01, 0.03, 0.02], found.weights, strict=True)]
    sizes.append(0.005 * ((found.features**2).sum(0) * [9, 5, 2]).sum())
    assert np.ptp(sizes) < 1e-12


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"class_counts": [3]}, "class_counts"),
        ({"class_counts": [3, 0]}, "class_counts"),
        ({"class_counts": [3.5, 2]}, "class_counts"),
        ({"feature_dim": 0}, "feature_dim"),
        ({"feature_dim": 2.5}, "feature_dim"),
        ({"lambdas": []}, "lambdas is empty"),
        ({"lambdas": [0.1, 0.0]}, r"lambdas\[1\]"),
        ({"lambda_h": math.nan}, "lambda_h"),
    ],
)
def test_bad_input_is_refused(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        deep_optimum(**{"class_counts": [3, 2], "feature_dim": 2, "lambdas": [0.1], "lambda_h": 0.1, **change})
