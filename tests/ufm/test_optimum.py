"""Each closed form against a multi-start L-BFGS of the plain objective, which shares no code with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from neuralcollapse.ufm import UFM, Verdict
from tests.ufm.cases import torch_objective

CASES = {
    "cross-entropy": {"loss": "cross_entropy"},
    "cross-entropy, decayed bias": {"loss": "cross_entropy", "lambda_b": 0.03},
    "label smoothing": {"loss": "label_smoothing:0.1"},
    "label smoothing, decayed bias": {"loss": "label_smoothing:0.3", "lambda_b": 0.1},
    "focal": {"loss": "focal:3"},
    "focal, half": {"loss": "focal:0.5", "lambda_b": 0.1},
    "mse": {"loss": "mse"},
    "mse, no bias": {"loss": "mse", "bias": False},
    "mse, decayed bias": {"loss": "mse", "lambda_b": 0.5},
    "mse, unequal": {"loss": "mse", "unequal": True},
    "mse, unequal, no bias": {"loss": "mse", "bias": False, "unequal": True},
    "mse, small d": {"loss": "mse", "narrow": 2},
    "mse, small d, decayed bias": {"loss": "mse", "narrow": 2, "lambda_b": 0.5},
    "mse, small d, unequal, no bias": {"loss": "mse", "narrow": 2, "unequal": True, "bias": False},
    "binary": {"loss": "binary_cross_entropy"},
    "binary, no bias": {"loss": "binary_cross_entropy", "bias": False},
    "binary, decayed bias": {"loss": "binary_cross_entropy", "lambda_b": 0.05},
    "binary, strongly decayed bias": {"loss": "binary_cross_entropy", "lambda_b": 1.0},
    "relu": {"loss": "cross_entropy", "nonnegative": True},
    "relu, no bias, unequal": {"loss": "cross_entropy", "nonnegative": True, "bias": False, "unequal": True},
    "relu, label smoothing": {"loss": "label_smoothing:0.1", "nonnegative": True, "lambda_b": 0.1},
    "relu, mse, unequal": {"loss": "mse", "nonnegative": True, "bias": False, "unequal": True},
}


def settings(name: str, number: int) -> Iterator[UFM]:
    """Problems of a case, with decays on both sides of the threshold."""
    options = dict(CASES[name])
    unequal, narrow = options.pop("unequal", False), options.pop("narrow", 0)
    rng = np.random.default_rng(sum(map(ord, name)))
    for index in range(number):
        k = int(rng.integers(2, 5)) + bool(narrow)
        counts = rng.integers(1, 6, size=k).tolist() if unequal else [int(rng.integers(1, 5))] * k
        # K² n λW λH from far below to beyond one
        strength = 10 ** rng.uniform(-4, -0.3) if index % 3 else 10 ** rng.uniform(-0.3, 1)
        tau = math.sqrt(strength / (k**2 * np.mean(counts)))
        ratio = 10 ** rng.uniform(-1, 1)
        d = 2 if narrow else k + index % 2
        yield UFM(k, counts, d, lambda_w=tau * ratio, lambda_h=tau / ratio, **options)


def oracle(problem: UFM, expected: float) -> tuple[float, np.ndarray]:
    """Value and logits of the best of several runs of SciPy's L-BFGS on torch's objective.

    Four runs at least. Behind a ReLU there are local minima, so that up to 40 runs look for the expected value.
    """
    k, d, n = problem.num_classes, problem.feature_dim, problem.total

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.tensor(x, requires_grad=True)
        value = torch_objective(problem, vector)
        value.backward()
        return value.item(), vector.grad.numpy()

    best = None
    for seed in range(40):
        if seed >= 4 and best.fun <= expected + 1e-6:
            break
        start = (0.05, 0.5, 1.0, 2.0)[seed % 4] * np.random.default_rng(seed).standard_normal(k * d + d * n + k)
        low = [-np.inf] * (k * d) + [0 if problem.nonnegative else -np.inf] * (d * n) + [-np.inf] * k
        start = np.maximum(start, [-bound if bound == 0 else bound for bound in low])
        options = {"maxiter": 10_000, "maxfun": 30_000, "ftol": 0, "gtol": 1e-10, "maxcor": 30}
        bounds = [(bound, None) for bound in low]
        found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options, bounds=bounds)
        best = found if best is None or found.fun < best.fun else best
    weight, features, bias = np.split(best.x, [k * d, k * d + d * n])
    return float(best.fun), weight.reshape(k, d) @ features.reshape(d, n) + bias[:, None] * problem.bias


@pytest.mark.parametrize("number", [4, pytest.param(24, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", CASES)
def test_closed_forms_are_what_descent_finds(name: str, number: int) -> None:
    zero = set()
    for problem in settings(name, number):
        solution = problem.global_optimum()
        point = problem.check(solution.point)
        assert problem.objective(point) == pytest.approx(solution.value, abs=1e-12)
        certificate = solution.certificate
        if problem.loss.convex:
            if "small d" not in name:
                assert certificate.gap < 1e-9, problem
                assert certificate.verdict is Verdict.OPTIMAL
        else:
            assert certificate.gap is None
            assert certificate.verdict is Verdict.NO_CERTIFICATE
        assert certificate.gradient_norm < 1e-7, problem
        value, logits = oracle(problem, solution.value)
        assert solution.value == pytest.approx(value, abs=1e-6), problem
        zero.add(bool(np.abs(point.W).max() < 1e-9))
        ours = point.W @ point.H + point.b[:, None]
        if "small d" in name:  # which of the equal singular values are kept is free: their sizes are not
            ours, logits = (np.linalg.svd(each, compute_uv=False) for each in (ours, logits))
            assert np.abs(ours - logits).max() < 1e-6, problem
            continue
        if problem.loss.name not in ("mse", "binary_cross_entropy"):
            ours, logits = ours - ours.mean(0), logits - logits.mean(0)  # softmax does not see the mean
        assert np.abs(ours - logits).max() < 1e-6, problem
    assert number == 4 or zero == {True, False}, "both sides of the threshold"
