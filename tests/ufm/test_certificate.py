from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.sparse.linalg import eigsh

from neuralcollapse import measure_features
from neuralcollapse.ufm import UFM, Focal, Point, Stop, Verdict
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


def test_a_large_problem_has_its_optimum_too() -> None:
    problem = make(1000, 1000, 1024, 1e-6, 1e-6)
    solution = problem.global_optimum()
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
        pytest.param(10, [20] * 10, 0.0, marks=pytest.mark.exhaustive),
        pytest.param(10, [65, 40, 30, 20, 15, 12, 8, 5, 3, 2], 1e-2, marks=pytest.mark.exhaustive),
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


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "label_smoothing:0.1", "mse", "focal:2"])
@pytest.mark.parametrize("counts", [[4, 4, 4], [9, 3, 1]])
def test_a_point_beside_a_minimum_is_no_saddle(loss: str, counts: list[int]) -> None:
    """There ||G||₂ exceeds τ as well, by what is left of the gradient; beside a saddle it exceeds τ by much more."""
    problem = UFM(3, counts, 5, lambda_w=1e-2, lambda_h=1e-3, loss=loss)
    minimum = problem.solve(tol=1e-10).point
    used = np.linalg.svd(minimum.W)[2][:3]  # two directions of the feature space stay unused
    line = problem.replace(feature_dim=1).solve(tol=1e-10).point  # critical with more dimensions too, and a saddle
    beyond = set()
    for scale in (1e-9, 1e-8, 1e-7):
        moved = near(minimum, scale, int(-np.log10(scale)))
        moved = Point(moved.W @ used.T @ used, used.T @ used @ moved.H, moved.b)
        found = problem.certify(moved, tol=1e-10)
        assert found.verdict in (Verdict.OPTIMAL, Verdict.NOT_CRITICAL, Verdict.NO_CERTIFICATE)
        beyond.add(found.residual_ratio > 1 + 1e-10)
        around = near(line, scale / 100, 0)
        saddle = Point(np.pad(around.W, ((0, 0), (0, 4))), np.pad(around.H, ((0, 4), (0, 0))), around.b)
        assert problem.certify(saddle, tol=1e-10).verdict is Verdict.SADDLE
    assert True in beyond, "the case that was mistaken for a saddle"


@pytest.mark.parametrize("narrower", [0, 1])
@pytest.mark.parametrize(("classes", "tol"), [(3, 1e-14), (10, 1e-13), (100, 1e-12)])
def test_an_exact_optimum_is_critical_up_to_rounding_where_the_bound_s_margin_exceeds_the_tolerance(
    classes: int, tol: float, narrower: int
) -> None:
    problem = UFM(classes, 5, classes - narrower, lambda_w=5e-5, lambda_h=5e-6, lambda_b=1e-2)
    optimum = problem.global_optimum().class_point
    assert problem.by_class.certify(optimum, tol=tol).verdict in (Verdict.ROUNDING, Verdict.OPTIMAL)
    assert problem.by_class.certify(optimum, tol=1e-10).verdict is Verdict.OPTIMAL
    moved = Point(optimum.W * 1.01, optimum.H, optimum.b)
    assert problem.by_class.certify(moved, tol=tol).verdict is Verdict.NOT_CRITICAL


@pytest.mark.parametrize("loss", ["mse", "label_smoothing:0.1", "binary_cross_entropy"])
@pytest.mark.parametrize(("counts", "bias"), [([4] * 3, 0.0), ([7, 3, 1], 0.0), ([7, 3, 1], 1e-2)])
def test_certificates_of_other_losses_agree_with_cvxpy(loss: str, counts: list[int], bias: float) -> None:
    problem = UFM(3, counts, 3, lambda_w=2e-2, lambda_h=5e-3, lambda_b=bias, loss=loss)
    found = problem.solve(tol=1e-8).certificate
    expected = convex_optimum(problem)
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert found.lower_bound == pytest.approx(expected, abs=1e-5)
    assert found.verdict is Verdict.OPTIMAL


OTHERS = [
    UFM(3, counts, d, lambda_w=w, lambda_h=5e-3, lambda_b=b, loss=loss, bias=bias, nonnegative=relu)
    for loss in ("cross_entropy", "mse", "label_smoothing:0.2", "binary_cross_entropy")
    for counts, d, w, b, bias, relu in [
        (4, 3, 2e-2, 0.0, True, False), ([7, 3, 1], 3, 2e-2, 1e-2, True, False), ([5, 1, 1], 4, 0.5, 0.0, True, False),
        ([5, 2, 2], 2, 1e-3, 0.0, False, False), ([5, 2, 2], 3, 1e-3, 1e-300, True, True),
    ]
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    index=st.integers(0, len(OTHERS) - 1), scale=st.floats(-3, 1.5), seed=st.integers(0, 10**6), around=st.booleans(),
    precision=st.sampled_from([np.float64, np.float32, np.float16]),
)  # fmt: skip
def test_no_bound_of_another_loss_lies_above_a_point(
    index: int, scale: float, seed: int, around: bool, precision: type
) -> None:
    """In any precision: the arithmetic is float64, with a margin for rounding."""
    problem = OTHERS[index]
    best = BEST.setdefault(index, problem.solve())
    point = near(best.point, 10**scale, seed) if around else problem.random_point(seed, 10**scale)
    features = np.maximum(point.H, 0) if problem.nonnegative else point.H
    point = Point(*(part.astype(precision) for part in (point.W, features, point.b * problem.bias)))
    found = problem.certify(point)
    assert found.lower_bound <= best.value
    assert found.gap >= 0
    assert found.value >= best.certificate.lower_bound


def test_small_decays_are_judged_relative_to_the_value() -> None:
    problem = make(4, 5, 4, 1e-9, 1e-9)
    best = problem.global_optimum()
    worse = problem.certify(Point(1.3 * best.point.W, 1.3 * best.point.H, best.point.b))
    assert worse.gap < 1e-6 < worse.gap / worse.value
    assert worse.verdict is not Verdict.OPTIMAL
    assert best.certificate.verdict is Verdict.OPTIMAL
    assert best.certificate.gap < 1e-9 * best.value


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "label_smoothing:0.1"])
@pytest.mark.parametrize("decays", [(1e-308, 1e300), (1e300, 1e-308), (1e-300, 1e-300), (2.0, 1e-9), (1e300, 1e300)])
def test_extreme_decays(loss: str, decays: tuple[float, float]) -> None:
    problem = UFM(3, 5, 3, lambda_w=decays[0], lambda_h=decays[1], loss=loss)
    found = problem.global_optimum().certificate
    assert found.verdict is Verdict.OPTIMAL
    assert 0 <= found.gap < 1e-12 * found.value
    unequal = problem.replace(samples_per_class=[5, 2, 1]).solve()
    assert unequal.certificate.verdict is Verdict.OPTIMAL
    assert unequal.certificate.gap <= 1e-8 * unequal.value


SMALL = [(1e-300, 1e-300), (1e-280, 1e-280), (1e-200, 1e-200), (1e-100, 1e-100), (1e-30, 1e-30), (1e-13, 1e-13),
         (1e-310, 1e-3), (1e-3, 1e-300), (1e-30, 1e-3), (1e-3, 1e-13), (1e-200, 1e10)]  # fmt: skip


BIASES = [(False, 0.0), (True, 0.0), pytest.param(True, 1e-2, marks=pytest.mark.exhaustive),
          pytest.param(True, 1e-300, marks=pytest.mark.exhaustive)]  # fmt: skip


@pytest.mark.parametrize(("bias", "lambda_b"), BIASES)
@pytest.mark.parametrize(
    "loss",
    ["cross_entropy", *(pytest.param(each, marks=pytest.mark.exhaustive)
                        for each in ("label_smoothing:0.1", "binary_cross_entropy"))],
)  # fmt: skip
def test_small_decays_of_unequal_classes_are_certified(loss: str, bias: bool, lambda_b: float) -> None:
    for w, h in SMALL:
        problem = UFM(3, [5, 3, 1], 3, lambda_w=w, lambda_h=h, lambda_b=lambda_b, bias=bias, loss=loss)
        solution = problem.solve()
        assert solution.stop is Stop.CERTIFIED, problem
        assert -1e-12 * solution.value <= solution.certificate.gap <= 1e-8 * solution.value, problem


@pytest.mark.parametrize(("bias", "lambda_b"), BIASES)
def test_small_decays_of_squared_error_are_certified_or_said_to_be_lost_in_rounding(
    bias: bool, lambda_b: float
) -> None:
    for decay in (1e-10, 1e-12, 1e-13, 1e-16, 1e-20):
        problem = UFM(3, [5, 3, 1], 3, lambda_w=decay, lambda_h=decay, lambda_b=lambda_b, bias=bias, loss="mse")
        found = problem.solve().certificate
        assert found.verdict is Verdict.OPTIMAL, problem
        assert -1e-12 * found.value <= found.gap <= 1e-8 * found.value, problem
    for decay in (1e-30, 1e-100, 1e-300):
        problem = UFM(3, [5, 3, 1], 3, lambda_w=decay, lambda_h=decay, lambda_b=lambda_b, bias=bias, loss="mse")
        found = problem.solve().certificate
        assert found.verdict in (Verdict.ROUNDING, Verdict.OPTIMAL)
        assert found.gap >= 0


def test_decays_that_float64_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="the root of their product must be at least 1e-300"):
        UFM(3, 5, 3, lambda_w=1e-310, lambda_h=1e-310)
    assert UFM(3, 5, 3, lambda_w=1e-310, lambda_h=1.0).solve().stop is Stop.CERTIFIED


def test_a_loss_that_is_not_convex_has_no_certificate() -> None:
    problem = UFM(3, 4, 3, lambda_w=1e-2, lambda_h=1e-3, loss=Focal(3.0))
    found = problem.solve()
    assert found.stop is Stop.CRITICAL
    assert found.value == pytest.approx(problem.global_optimum().value, abs=1e-9)
    assert found.certificate.lower_bound is found.certificate.gap is None
    assert "no certificate exists" in str(found)
    with pytest.raises(ValueError, match="focal:3 is not convex in the logits: no certificate exists"):
        lower_bound(problem, found.point)


def test_points_from_anywhere() -> None:
    problem = CASES["d=K"]
    best = problem.global_optimum().point
    tensors = Point(torch.tensor(best.W, requires_grad=True), torch.tensor(best.H).float(), best.b.tolist())
    assert tensors.W.dtype == tensors.H.dtype == tensors.b.dtype == np.float64
    assert problem.certify(tensors).gap < 1e-6
    assert problem.certify(Point(best.W.tolist(), best.H.tolist(), [0, 0, 0, 0])).verdict is Verdict.OPTIMAL
    assert Point(torch.tensor(best.W).bfloat16(), best.H, best.b).W.dtype == np.float64
    for bad, message in [("text", "W has dtype"), ([[1], [1, 2]], "rows of different length"), (best.W + 0j, "real"),
                         (best.b, "it must have 2 axes"), (None, "W has dtype object")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Point(bad, best.H, best.b)


@pytest.mark.parametrize("tol", [0.0, -1.0, float("inf"), float("nan"), 1.0])
def test_tolerances_are_shares_of_the_value(tol: float) -> None:
    problem = CASES["d=K"]
    with pytest.raises(ValueError, match=f"tol={tol} must be"):
        problem.certify(problem.random_point(), tol=tol)
    with pytest.raises(ValueError, match=f"tol={tol} must be"):
        problem.solve(tol=tol)


def test_one_tolerance_for_the_stop_and_the_verdict() -> None:
    for method in ("sgd", "lbfgs"):
        found = CASES["two classes"].solve(method=method, tol=1e-2)
        assert found.stop is Stop.CERTIFIED
        assert found.certificate.verdict is Verdict.OPTIMAL
        assert found.certificate.gap <= 1e-2 * found.value


def test_counts_without_end() -> None:
    with pytest.raises(ValueError, match=r"at most 2\^53 are counted exactly"):
        make(4, 2**62, 4)
    many = make(4, 2**45, 4, 1e-9, 1e-9)
    assert many.global_optimum().certificate.verdict is Verdict.OPTIMAL
    with pytest.raises(ValueError, match="too many for one feature each: work with `by_class`"):
        many.random_point()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("options", "message"), [
    ({"max_iterations": -3}, "max_iterations=-3 must be at least 1"), ({"max_iterations": 0}, "must be at least 1"),
    ({"max_iterations": 2.5}, "max_iterations=2.5 must be a whole number"), ({"every": 0}, "every=0 must be"),
])  # fmt: skip
def test_iterations_are_whole_and_positive(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CASES["d=K"].solve(**options)
