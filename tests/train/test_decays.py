"""Predicted norms against a numerical minimum of the objective written anew, on a network that is exactly optimal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.gallery import certificates
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.optimality import Optimality
from tests.paper.runs import with_snapshot, written

K, SAMPLES = 10, 100
SIMPLEX = np.sqrt(K / (K - 1)) * (np.eye(K) - 1 / K)


def cross_entropy(weight: np.ndarray, means: np.ndarray) -> float:
    logits = weight @ means.T
    shifted = logits - logits.max(0)
    return float(np.mean(np.log(np.exp(shifted).sum(0)) - np.diag(shifted)))


def best(lambda_w: float, n_lambda_h: float, weight_scale: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """W and class means, multiples of a simplex, that minimise the penalised cross-entropy."""

    def parts(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w, h = np.exp(logs)
        return (w if weight_scale is None else weight_scale) * SIMPLEX, h * SIMPLEX

    def value(logs: np.ndarray) -> float:
        weight, means = parts(logs)
        return cross_entropy(weight, means) + lambda_w / 2 * (weight**2).sum() + n_lambda_h / 2 * (means**2).sum()

    found = minimize(value, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000})
    return parts(found.x)


def network(folder: Path, weight: np.ndarray, means: np.ndarray, **options: object) -> Outcome:
    """A run whose class means lie away from the origin and turned out of W's axes, as after ReLU."""
    config = TrainConfig(dataset="mnist", samples_per_class=SAMPLES, epochs=10, **options)  # type: ignore[arg-type]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((K + 5, K)))[0]
    run = written(folder, Experiment("mnist"), config)
    return with_snapshot(run, weight @ turn.T, means @ turn.T, np.zeros(K))


def certified(run: Outcome) -> Optimality | None:
    return certificates([run])[0].get(run.experiment.name)


def test_decay_on_features_is_predicted_without_a_fit(tmp_path: Path) -> None:
    weight, means = best(0.01, SAMPLES * 1e-5 / (K * SAMPLES))
    found = certified(network(tmp_path, 3 * weight, means / 7, feature_decay=1e-5, weight_decay=0.01))
    assert found is not None
    assert found.decays.fitted == "nothing"
    assert found.predicted.weight == pytest.approx(np.linalg.norm(weight), rel=1e-4)
    assert found.predicted.features == pytest.approx(np.linalg.norm(means), rel=1e-4)
    assert found.predicted.loss == pytest.approx(cross_entropy(weight, means), rel=1e-3)
    assert found.measured.weight == pytest.approx(3 * np.linalg.norm(weight), rel=1e-5)
    assert found.measured.loss == pytest.approx(cross_entropy(3 * weight, means / 7), rel=1e-4)


@pytest.mark.parametrize("size", [1.0, 2.5])
def test_decay_on_parameters_fits_the_ratio_and_predicts_the_size(tmp_path: Path, size: float) -> None:
    weight, means = best(5e-4, 3e-6)
    found = certified(network(tmp_path, size * weight, size * means, weight_decay=5e-4))
    assert found is not None
    assert found.predicted.weight == pytest.approx(np.linalg.norm(weight), rel=1e-4)
    assert found.predicted.features == pytest.approx(np.linalg.norm(means), rel=1e-4)
    assert found.predicted.loss == pytest.approx(cross_entropy(weight, means), rel=1e-3)


def test_fixed_classifier(tmp_path: Path) -> None:
    weight, means = best(0.0, 1e-4, weight_scale=1.0)
    found = certified(network(tmp_path, weight, means, head="etf"))
    assert found is not None
    assert found.predicted.weight == pytest.approx(np.linalg.norm(weight), rel=1e-6)
    assert found.predicted.features == pytest.approx(np.linalg.norm(means), rel=1e-4)
    assert found.predicted.loss == pytest.approx(cross_entropy(weight, means), rel=1e-3)
    untrained = network(tmp_path / "untrained", weight, -means, head="etf")
    assert "hardly trained" in certificates([untrained])[1][untrained.experiment.name]


def test_fixed_classifier_with_decay_on_the_features(tmp_path: Path) -> None:
    """The features have their own decay, and W none: its norm is given, not a prediction of --weight-decay."""
    weight, means = best(0.0, 1e-3 / K, weight_scale=1.0)
    found = certified(network(tmp_path, weight, means / 2, head="etf", feature_decay=1e-3, weight_decay=0.01))
    assert found is not None
    assert found.decays.fitted == "λW, from the given ||W||"
    assert (found.decays.features, found.decays.bias) == (1e-3 / K, 0.01)
    assert found.predicted.weight == pytest.approx(np.linalg.norm(weight), rel=1e-6)
    assert found.predicted.features == pytest.approx(np.linalg.norm(means), rel=1e-4)
    assert found.predicted.loss == pytest.approx(cross_entropy(weight, means), rel=1e-3)


def test_runs_without_a_snapshot_have_no_certificate(tmp_path: Path) -> None:
    run = written(tmp_path, Experiment("mnist"), TrainConfig(epochs=10))
    assert certified(run) is None
    assert "has no snapshots" in certificates([run])[1][run.experiment.name]
