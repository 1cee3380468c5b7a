from __future__ import annotations

import time

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.sparse.linalg import eigsh

from neuralcollapse import measure_features
from neuralcollapse.ufm import Verdict
from neuralcollapse.ufm.bound import lower_bound
from tests.ufm.cases import CASES, convex_optimum, make, near

DECAYS = [(1e-6, 1e-6, 3), (5e-4, 1e-4, 10), (1e-2, 1e-3, 100), (0.1, 0.1, 5), (1.0, 1.0, 2), (1e-3, 1e-6, 7)]


@pytest.mark.parametrize("k", [2, 3, 10, 100])
@pytest.mark.parametrize("width", ["K-1", "K", "2K"])
def test_the_closed_form_is_critical_and_certified(k: int, width: str) -> None:
    d = {"K-1": k - 1, "K": k, "2K": 2 * k}[width]
    sides = set()
    for w, h, n in DECAYS:
        problem = make(k, n, d, w, h)
        solution = problem.global_optimum()
        sides.add(k**2 * n * w * h < 1)
        found = solution.certificate
        assert found.gradient_norm < 1e-12
        assert abs(found.gap) < 1e-10
        assert found.verdict is Verdict.OPTIMAL
        assert solution.value == pytest.approx(found.value, abs=1e-13)
        if k <= 10:
            assert problem.certify(solution.point).gap == pytest.approx(found.gap, abs=1e-12)
    assert sides == {True, False}, "both sides of the phase transition"


def test_the_closed_form_is_collapsed() -> None:
    problem = make(5, 6, 7)
    point = problem.global_optimum().point
    labels = torch.tensor(problem.labels)
    found = measure_features(torch.tensor(point.H.T.copy()), labels, torch.tensor(point.W), torch.tensor(point.b))
    for value in (found.nc1, found.nc2, found.nc3, found.nc4):
        assert value == pytest.approx(0, abs=1e-12)


def test_a_large_problem_answers_at_once() -> None:
    problem = make(1000, 1000, 1024, 1e-6, 1e-6)
    start = time.perf_counter()
    solution = problem.global_optimum()
    assert time.perf_counter() - start < 1
    assert solution.certificate.gradient_norm < 1e-12


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(CASES)),
    log_scale=st.floats(-3, 2.5),
    seed=st.integers(0, 10**6),
    around=st.booleans(),
)
def test_no_point_lies_below_a_bound(name: str, log_scale: float, seed: int, around: bool) -> None:
    """The bound of one point holds for all others, the best known among them."""
    problem = CASES[name]
    best = BEST.setdefault(name, problem.solve())
    point = near(best.point, 10**log_scale, seed) if around else problem.random_point(seed, 10**log_scale)
    bound = lower_bound(problem, point)
    assert bound <= best.value + 1e-12
    assert problem.certify(point).gap >= 0
    assert problem.objective(point) >= best.certificate.lower_bound - 1e-12


BEST: dict = {}


@pytest.mark.parametrize("points", [300, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_random_points_have_no_negative_gap(points: int) -> None:
    names = sorted(CASES)
    rng = np.random.default_rng(0)
    for index in range(points):
        problem = CASES[names[index % len(names)]]
        point = problem.random_point(rng, scale=10 ** rng.uniform(-2, 1.5))
        assert problem.objective(point) - lower_bound(problem, point) >= 0


@pytest.mark.parametrize(
    ("k", "counts", "bias"),
    [
        (4, [10] * 4, 0.0), (4, [10] * 4, 1e-2), (4, [25, 10, 4, 1], 0.0), (4, [25, 10, 4, 1], 1e-2),
        (10, [20] * 10, 0.0), (10, [65, 40, 30, 20, 15, 12, 8, 5, 3, 2], 1e-2),
    ],
)  # fmt: skip
def test_the_certified_value_is_cvxpys_optimum(k: int, counts: list[int], bias: float) -> None:
    problem = make(k, counts, k, 5e-3, 1e-3, bias)
    found = problem.solve(tol=1e-9).certificate
    options = {"solver": "SCS", "eps": 1e-7, "max_iters": 50_000} if k == 10 else {}
    assert found.gap < 1e-9
    expected = convex_optimum(problem, **options)
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert found.lower_bound == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["d=K", "d=2K", "two classes", "unequal", "unequal with bias decay", "partly equal"])
def test_curvature_along_the_theorems_direction(name: str) -> None:
    problem = CASES[name]
    met = 0
    for saddle in problem.saddles():
        if saddle.certificate.verdict is not Verdict.SADDLE:
            continue
        met += 1
        point = problem.expand(saddle.point)
        direction = problem.descent_direction(point)
        vector = direction.step.to_vector()
        operator = problem.hessian(point)
        assert float(vector @ operator.matvec(vector)) == pytest.approx(direction.curvature, abs=1e-8)
        assert direction.curvature == pytest.approx(saddle.certificate.curvature, abs=1e-10)
        least = eigsh(operator, k=1, which="SA", return_eigenvectors=False, tol=1e-10)[0]
        assert least <= direction.rayleigh + 1e-10
        assert problem.objective(point + 0.05 * direction.step) < problem.objective(point)
    assert met >= 1


def test_no_way_down_where_there_is_none() -> None:
    problem = CASES["d=K"]
    with pytest.raises(ValueError, match="at most 1: a critical point here is a global minimum"):
        problem.descent_direction(problem.global_optimum().point)
    with pytest.raises(ValueError, match="use all feature_dim=4 directions"):
        problem.descent_direction(problem.random_point(0))


def test_verdicts() -> None:
    problem = CASES["d=K"]
    assert problem.certify(problem.random_point(0)).verdict is Verdict.NOT_CRITICAL
    narrow = CASES["narrow"].solve()
    assert narrow.certificate.verdict is Verdict.NOT_TIGHT
    assert narrow.certificate.gap > 0.01
    assert narrow.relaxed.certificate.verdict is Verdict.OPTIMAL
    assert narrow.certificate.lower_bound == pytest.approx(narrow.relaxed.value, abs=1e-6)
    assert narrow.relaxed.value == pytest.approx(convex_optimum(CASES["narrow"]), abs=1e-5)
    assert "not tight" in str(narrow)
