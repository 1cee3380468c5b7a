from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralcollapse.geometry.regression import regression_metrics
from neuralcollapse.ufm.regression import regression_optimum
from tests.ufm.oracle import multi_start


def draw(outputs: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((9, outputs)) @ np.diag(1.0 + np.arange(outputs)) + 2


def plain(targets: np.ndarray, lambda_w: float, lambda_h: float, bias: bool):
    def objective(weight: torch.Tensor, features: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        outputs = weight @ features + (offset[:, None] if bias else 0)
        error = (outputs - torch.tensor(targets.T)).square().sum() / len(targets)
        return (error + lambda_w * weight.square().sum() + lambda_h * features.square().sum()) / 2

    return objective


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("outputs", "d"), [(1, 1), (2, 2), (2, 4), (3, 2), (3, 3)])
@pytest.mark.parametrize(("lambda_w", "lambda_h"), [(0.02, 0.05), (0.4, 0.3)])
def test_closed_form_against_many_starts(outputs: int, d: int, bias: bool, lambda_w: float, lambda_h: float) -> None:
    targets = draw(outputs, outputs + d)
    found = regression_optimum(targets, d, lambda_w=lambda_w, lambda_h=lambda_h, bias=bias)
    objective = plain(targets, lambda_w, lambda_h, bias)
    ours = objective(torch.tensor(found.W), torch.tensor(found.H), torch.tensor(found.b))
    assert float(ours) == pytest.approx(found.value, abs=1e-12)
    reached, (weight, features, offset) = multi_start(objective, [(outputs, d), (d, 9), (outputs,)])
    assert reached == pytest.approx(found.value, abs=1e-9)
    logits = weight @ features + (offset[:, None] if bias else 0)
    assert np.abs(logits - (found.W @ found.H + found.b[:, None])).max() < 1e-9


def test_both_sides_of_the_threshold() -> None:
    targets = draw(2, 0)
    singular = np.linalg.svd(targets - targets.mean(0), compute_uv=False)
    for factor, rank in ((0.999, 2), (1.001, 1)):
        decay = factor * singular[1] / 9
        found = regression_optimum(targets, 2, lambda_w=decay, lambda_h=decay)
        assert found.rank == rank
        objective = plain(targets, decay, decay, bias=True)
        reached, (weight, features, _) = multi_start(objective, [(2, 2), (2, 9), (2,)])
        assert reached == pytest.approx(found.value, abs=1e-9)
        assert np.abs(weight @ features - found.W @ found.H).max() < 1e-9
    assert regression_optimum(targets, 2, lambda_w=10.0, lambda_h=10.0).rank == 0


def test_the_optimum_reads_zero() -> None:
    found = regression_optimum(draw(3, 1), 6, lambda_w=0.01, lambda_h=0.02)
    read = regression_metrics(torch.tensor(found.H.T.copy()), torch.tensor(draw(3, 1)), torch.tensor(found.W))
    assert max(read.nrc1, read.nrc2, read.nrc3) < 1e-10
    tau = math.sqrt(0.01 * 0.02)
    # Σ^½ - sqrt(γ) I with the decay's own γ: N τ on the singular values is sqrt(N) τ on Σ^½.
    assert read.gamma == pytest.approx(9 * tau**2, rel=1e-5)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    good = {"targets": draw(2, 0), "feature_dim": 2, "lambda_w": 0.1, "lambda_h": 0.1}
    for change, match in (
        ({"targets": np.zeros(3)}, "targets have shape"),
        ({"targets": np.full((3, 1), np.nan)}, "targets hold NaN"),
        ({"feature_dim": 0}, "feature_dim"),
        ({"feature_dim": 1.5}, "feature_dim"),
        ({"lambda_w": 0.0}, "lambda_w"),
        ({"lambda_h": math.inf}, "lambda_h"),
    ):
        with pytest.raises(ValueError, match=match):
            regression_optimum(**{**good, **change})
