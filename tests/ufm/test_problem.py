from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralcollapse.ufm import UFM, Point, collapse_thresholds, softmax_code
from tests.ufm.cases import CASES, torch_objective


@pytest.mark.parametrize("name", CASES)
def test_closed_forms_agree_with_autodiff(name: str) -> None:
    problem = CASES[name]
    point = problem.random_point(3)
    point = Point(point.W, point.H, np.random.default_rng(4).standard_normal(len(point.b)))
    vector = torch.tensor(point.to_vector())
    value = float(torch_objective(problem, vector))
    gradient = torch.func.grad(lambda x: torch_objective(problem, x))(vector)
    hessian = torch.func.hessian(lambda x: torch_objective(problem, x))(vector)
    assert problem.objective(point) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(problem.gradient(point).to_vector(), gradient, atol=1e-14)
    operator = problem.hessian(point)
    columns = operator.matmat(np.eye(len(vector)))
    np.testing.assert_allclose(columns, hessian, atol=1e-13)
    np.testing.assert_array_equal(problem.point(point.to_vector()).H, point.H)


@pytest.mark.parametrize("name", CASES)
def test_the_model_by_class_is_the_same_function(name: str) -> None:
    problem = CASES[name]
    small = problem.by_class.random_point(1)
    large = problem.expand(small)
    assert problem.by_class.objective(small) == pytest.approx(problem.objective(large), rel=1e-13)
    ours, full = problem.by_class.gradient(small), problem.gradient(large)
    np.testing.assert_allclose(ours.W, full.W, atol=1e-14)
    starts = np.cumsum([0, *problem.class_counts[:-1]])
    np.testing.assert_allclose(ours.H, np.add.reduceat(full.H, starts, axis=1), atol=1e-14)
    anywhere = problem.random_point(2)
    averaged = problem.by_class.objective(problem.average(anywhere))
    assert averaged <= problem.objective(anywhere) + 1e-14, "averaging within classes never raises f"


def test_logits_of_ten_thousand_do_not_overflow() -> None:
    problem = CASES["d=K"]
    point = problem.random_point(0, scale=100.0)
    assert np.abs(point.W @ point.H).max() > 1e4
    assert np.isfinite(problem.objective(point))
    assert np.isfinite(problem.gradient(point).to_vector()).all()
    certificate = problem.certify(point)
    assert certificate.gap >= 0


def test_work_in_blocks_is_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import neuralcollapse.ufm.objective as module

    problem, direction = CASES["unequal"], CASES["unequal"].random_point(6)
    point = problem.random_point(5)
    whole = (problem.objective(point), problem.gradient(point), problem.hessian_product(point, direction))
    monkeypatch.setattr(module, "_BLOCK", 3)
    assert problem.objective(point) == pytest.approx(whole[0], rel=1e-14)
    np.testing.assert_allclose(problem.gradient(point).to_vector(), whole[1].to_vector(), atol=1e-15)
    np.testing.assert_allclose(problem.hessian_product(point, direction).to_vector(), whole[2].to_vector(), atol=1e-15)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1, 5, 4), {}, "num_classes=1 must be at least 2"),
        ((3, 0, 4), {}, "samples_per_class=0 must be positive whole numbers"),
        ((3, [1, 2], 4), {}, r"samples_per_class has shape \(2,\): give one number, or 3"),
        ((3, [1, 2, 0], 4), {}, "must be positive whole numbers"),
        ((3, 2.5, 4), {}, "must be positive whole numbers"),
        ((3, 5, 0), {}, "feature_dim=0 must be at least 1"),
        ((3, 5, 2.5), {}, "feature_dim=2.5 must be a whole number"),
        ((3.0, 5, 2), {}, "num_classes=3.0 must be a whole number"),
        ((3, 5, 3), {"loss": "hinge"}, "loss='hinge' is unknown"),
        ((3, 5, 3), {"lambda_b": float("inf")}, "bias=False leaves it out"),
        ((3, 5, 3), {"lambda_w": 0.0}, "lambda_w=0.0 must be positive"),
        ((3, 5, 3), {"lambda_h": -1.0}, "lambda_h=-1.0 must be positive"),
        ((3, 5, 3), {"lambda_h": float("nan")}, "lambda_h=nan must be positive"),
        ((3, 5, 3), {"lambda_b": -0.1}, "lambda_b=-0.1 must be zero or positive"),
    ],
)
def test_bad_problems(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UFM(*arguments, **{"lambda_w": 1e-2, "lambda_h": 1e-2, **options})


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_seeds_and_sizes() -> None:
    with pytest.raises(ValueError, match="seed=-1 must be at least 0"):
        CASES["d=K"].solve(seed=-1)
    with pytest.raises(ValueError, match="seed=-1 must be at least 0"):
        softmax_code(9, 3, seed=-1)
    with pytest.raises(ValueError, match=r"adds up to \d+ samples: at most 2\^53"):
        collapse_thresholds([10**20, 2, 2], 1e-2, 1e-3)
    with pytest.raises(ValueError, match=r"loss='focal:-1': gamma=-1\.0 must be zero"):
        UFM(3, 5, 3, lambda_w=1e-2, lambda_h=1e-2, loss="focal:-1")


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_points() -> None:
    problem = CASES["d=K"]
    good = problem.random_point()
    with pytest.raises(ValueError, match=r"H has shape \(4, 3\): this model needs \(4, 20\)"):
        problem.certify(Point(good.W, good.H[:, :3], good.b))
    for takes in (problem.certify, problem.objective, problem.hessian, problem.descent_direction):
        with pytest.raises(
            TypeError, match=r"point is a ndarray: pass Point\(W, H, b\), with W \(K, d\).*class by class"
        ):
            takes(good.H)
    with pytest.raises(TypeError, match=r"start is a tuple: pass Point\(W, H, b\)"):
        problem.solve(start=(good.W, good.H, good.b))
    with pytest.raises(ValueError, match="W has NaN or infinite entries"):
        problem.certify(Point(good.W * np.nan, good.H, good.b))
    with pytest.raises(ValueError, match="feature_dim=2 is too small for the closed form of 6 classes"):
        CASES["narrow"].global_optimum()
    with pytest.raises(ValueError, match="the closed form needs equal classes"):
        CASES["unequal"].global_optimum()
    with pytest.raises(ValueError, match="method='sprint' is unknown"):
        problem.solve(method="sprint")
    with pytest.raises(ValueError, match="tol=0 must be positive"):
        problem.solve(tol=0)
