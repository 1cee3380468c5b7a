from __future__ import annotations

import math
from collections import Counter

import pytest

from neuralcollapse.ufm import UFM
from neuralcollapse.ufm.theorem import _HOLDS, check_point, check_theorem
from tests.ufm.cases import make, near


@pytest.mark.parametrize("points", [40, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_no_critical_point_is_an_exception(points: int) -> None:
    found = check_theorem(points, seed=1)
    assert found.exceptions == []
    assert len(found.points) == points == found.starts - found.dropped
    kinds = {(point.kind, point.full_rank) for point in found.points}
    assert kinds == {("minimum", True), ("minimum", False), ("strict saddle", False)}
    report = found.to_dict()
    assert len(report["by_loss"]) == 5
    more = Counter(point.problem.feature_dim - point.problem.num_classes for point in found.points)
    assert report["by_dimension"] == {
        "d = K-1": more[-1], "d = K": more[0], "d > K": sum(count for extra, count in more.items() if extra > 0)
    }  # fmt: skip
    assert all(math.isfinite(value) for name, value in report.items() if name.startswith("worst"))
    assert "Exceptions: none" in str(found)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "binary_cross_entropy", "focal:2"])
def test_a_point_that_is_not_critical_fails_a_step(loss: str) -> None:
    """The check can fail: beside a critical point the equations do not hold."""
    problem = UFM(3, [4, 2, 1], 3, lambda_w=1e-2, lambda_h=1e-2, lambda_b=1e-2, loss=loss)
    point = problem.solve().class_point
    assert not check_point(problem, point).exception
    assert check_point(problem, near(point, 0.1, 0)).exception


def test_a_local_minimum_below_the_least_dimension_is_refused() -> None:
    narrow = make(5, 10, 3)
    with pytest.raises(ValueError, match="feature_dim=3 must be at least 4 for the theorem"):
        check_point(narrow, narrow.by_class.random_point(0))
    with pytest.raises(ValueError, match="points=0 must be at least 1"):
        check_theorem(0)
    assert _HOLDS < 1e-3


def test_two_classes_are_enough() -> None:
    found = check_theorem(2, max_classes=2)
    assert found.exceptions == []
    assert len(found.points) == 2
    with pytest.raises(ValueError, match="max_classes=1 at least 2"):
        check_theorem(2, max_classes=1)
