from __future__ import annotations

import numpy as np
import pytest

from neuralcollapse.ufm import METHODS, Stop, Verdict
from tests.ufm.cases import CASES, make, near


@pytest.mark.parametrize("starts", [1, pytest.param(100, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_random_starts(method: str, width: int, starts: int) -> None:
    problem = make(3, 4, 3 * width, 5e-3, 5e-3, 1e-2)
    bound = 1e-3 if method == "sgd" else 1e-6
    for seed in range(starts):
        solution = problem.solve(method=method, seed=seed, tol=bound / 10)
        assert solution.certificate.gap < bound, seed


@pytest.mark.parametrize("method", METHODS)
def test_another_problem_without_bias_decay(method: str) -> None:
    problem = make(4, 5, 4, 5e-3, 1e-3, 0.0)
    expected = problem.global_optimum().value
    bound = 1e-3 if method == "sgd" else 1e-6
    for seed in range(1 if method == "sgd" else 2):
        solution = problem.solve(method=method, seed=seed, tol=bound / 10)
        assert solution.value == pytest.approx(expected, abs=bound)
        assert solution.stop is Stop.CERTIFIED
        assert solution.history[-1].gap <= bound / 10
        assert solution.point.H.shape == (4, 20)


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_the_atlas_and_the_way_out_of_each_saddle(k: int) -> None:
    problem = make(k, 3, k, 5e-3, 1e-3, 1e-2)
    optimum = problem.global_optimum().value
    shapes = set()
    for critical in problem.saddles():
        shapes.add(critical.shape)
        assert critical.certificate.gradient_norm <= 1e-10
        full = problem.certify(problem.expand(critical.point))
        assert full.gradient_norm <= 1e-10
        assert critical.rank <= len(critical.shape) - 1
        if len(critical.shape) == k:
            assert critical.certificate.verdict is Verdict.OPTIMAL
            assert critical.certificate.value == pytest.approx(optimum, abs=1e-10)
            assert critical.morse_index == 0
            continue
        assert critical.certificate.verdict is Verdict.SADDLE
        assert critical.morse_index > 0
        if k <= 4:
            values = np.linalg.eigvalsh(problem.hessian(problem.expand(critical.point)).matmat(
                np.eye(k * k + k * 3 * k + k)))  # fmt: skip
            assert critical.morse_index == (values < -1e-9).sum()
        escaped = problem.solve(method="newton", start=critical.point, tol=1e-8)
        assert escaped.value == pytest.approx(optimum, abs=1e-8), critical.shape
    assert len(shapes) == {2: 2, 3: 3, 4: 5, 5: 7, 6: 11}[k]


@pytest.mark.parametrize("name", ["unequal", "unequal with bias decay", "past the transition", "two classes"])
def test_problems_without_a_closed_form_are_certified(name: str) -> None:
    solution = CASES[name].solve(tol=1e-9)
    assert solution.certificate.gap <= 1e-9
    assert solution.certificate.residual_ratio <= 1 + 1e-3
    again = CASES[name].solve(method="lbfgs", start=near(solution.point, 0.01, 0), tol=1e-7)
    assert again.value == pytest.approx(solution.value, abs=1e-7)


def test_groups_must_be_a_symmetry() -> None:
    from neuralcollapse.ufm.saddles import critical_point

    with pytest.raises(ValueError, match="no partition of the classes 0 to 3"):
        critical_point(CASES["d=K"], ((0, 1), (2,)))
    with pytest.raises(ValueError, match="lump classes of different size"):
        critical_point(CASES["unequal"], ((0, 1), (2, 3)))


def test_stops_where_told_to() -> None:
    solution = CASES["d=K"].solve(method="gradient", max_iterations=2, tol=1e-12)
    assert solution.stop is Stop.ITERATIONS
    assert solution.history[-1].iteration == 2
    assert "max_iterations" in str(solution)
