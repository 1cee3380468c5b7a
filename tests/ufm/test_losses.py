from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import torch

from neuralcollapse.ufm import UFM, Focal, LabelSmoothing
from neuralcollapse.ufm.losses import LOSSES, Loss, resolve_loss
from tests.ufm.cases import torch_loss, torch_objective

ALL = ["cross_entropy", "label_smoothing:0.2", "label_smoothing:0", "focal:3", "focal:0.5", "focal:0", "mse",
       "binary_cross_entropy"]  # fmt: skip
CONVEX = [name for name in ALL if resolve_loss(name).convex]
LABELS = np.array([0, 1, 2, 3, 4, 4, 0])
ONE_HOT = np.eye(5)[:, LABELS]


def logits_of(scale: float, seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(ONE_HOT.shape)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 8.0])
@pytest.mark.parametrize("name", ALL)
def test_derivatives_agree_with_autodiff(name: str, scale: float) -> None:
    loss, logits, change = resolve_loss(name), logits_of(scale), logits_of(1.0, seed=1)
    targets, z = torch.tensor(ONE_HOT), torch.tensor(logits)

    def total(x: torch.Tensor) -> torch.Tensor:
        return torch_loss(loss, x, targets).sum()

    gradient = torch.func.grad(total)
    np.testing.assert_allclose(loss.value(logits, ONE_HOT), torch_loss(loss, z, targets), atol=1e-14, rtol=1e-13)
    np.testing.assert_allclose(loss.gradient(logits, ONE_HOT), gradient(z), atol=1e-14)
    product = torch.func.jvp(gradient, (z,), (torch.tensor(change),))[1]
    np.testing.assert_allclose(loss.hessian_product(logits, ONE_HOT, change), product, atol=1e-13)
    columns = np.einsum("lkm,km->lm", loss.hessians(logits, ONE_HOT), change)
    np.testing.assert_allclose(columns, product, atol=1e-13)


@pytest.mark.parametrize("name", CONVEX)
def test_the_conjugate_is_the_supremum(name: str) -> None:
    """Fenchel's inequality everywhere, with equality at the gradient."""
    loss = resolve_loss(name)
    for seed in range(20):
        logits, others = logits_of(2.0, seed), logits_of(4.0, seed + 100)
        dual = loss.gradient(logits, ONE_HOT)
        conjugate = loss.conjugate(dual, ONE_HOT)
        np.testing.assert_allclose((dual * logits).sum(0) - loss.value(logits, ONE_HOT), conjugate, atol=1e-12)
        assert ((dual * others).sum(0) - loss.value(others, ONE_HOT) <= conjugate + 1e-12).all()


@pytest.mark.parametrize("name", CONVEX)
def test_centred_rows_sum_to_zero_and_stay_in_the_domain(name: str) -> None:
    loss, weights = resolve_loss(name), np.array([1.0, 2, 3, 0.5, 1, 1, 4])
    for seed in range(20):
        dual = loss.centre_rows(loss.gradient(logits_of(3.0, seed), ONE_HOT), weights, LABELS)
        np.testing.assert_allclose(dual @ weights, 0, atol=1e-13)
        share = loss.share(dual, ONE_HOT)
        assert 0 < share <= 1
        assert np.isfinite(loss.conjugate(share * dual, ONE_HOT)).all()
        others = logits_of(5.0, seed + 50)
        fenchel = (share * dual * others).sum(0) - loss.value(others, ONE_HOT)
        assert (fenchel <= loss.conjugate(share * dual, ONE_HOT) + 1e-12).all(), "still in the conjugate's domain"


@pytest.mark.parametrize("name", ["cross_entropy", "focal:2", "focal:0.5", "binary_cross_entropy"])
def test_small_losses_keep_their_digits(name: str) -> None:
    """At logits of 60 the loss is 1e-26, which 1 - p cannot see."""
    loss = resolve_loss(name)
    logits = 60 * np.eye(5)[:, :1] - (60 * (1 - np.eye(5)[:, :1]) if name == "binary_cross_entropy" else 0)
    values, gradient = loss.value_and_gradient(logits, np.eye(5)[:, :1])
    wrong = np.exp(-60.0) * (5 if name == "binary_cross_entropy" else 4)
    power = getattr(loss, "gamma", 0)
    assert values[0] == pytest.approx(wrong ** (1 + power), rel=1e-12)
    assert gradient[0, 0] == pytest.approx(
        -(wrong ** (1 + power)) * (1 + power) / (5 if "binary" in name else 1), rel=1e-12
    )
    assert np.isfinite(loss.hessian_product(logits, np.eye(5)[:, :1], gradient)).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal:2", "focal:0.5", "binary_cross_entropy"])
def test_small_curvatures_keep_their_digits(name: str) -> None:
    """Where the probability is 1 - 1e-26, p (1 - p) is not p - p²: against second differences in 120 digits."""
    loss, points = resolve_loss(name), [60.0, 0.0, -1.0]
    gamma = getattr(loss, "gamma", 0)
    if name == "binary_cross_entropy":
        points = [60.0, -58.0, -61.0]

    def plain(*z: mpmath.mpf) -> mpmath.mpf:
        if name == "binary_cross_entropy":
            return sum(mpmath.log(1 + mpmath.exp(each)) for each in z) - z[0]
        wrong = sum(mpmath.exp(each - z[0]) for each in z[1:])
        return (wrong / (1 + wrong)) ** gamma * mpmath.log(1 + wrong)

    found = loss.hessians(np.array(points)[:, None], np.eye(3)[:, :1])[:, :, 0]
    with mpmath.workdps(120):
        for i, j in itertools.product(range(3), repeat=2):
            orders = tuple((index == i) + (index == j) for index in range(3))
            expected = float(mpmath.diff(plain, tuple(map(mpmath.mpf, points)), orders))
            assert found[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-90)


@pytest.mark.parametrize("name", ALL)
def test_the_model_takes_every_loss(name: str) -> None:
    problem = UFM(4, [3, 1, 2, 2], 3, lambda_w=1e-2, lambda_h=1e-3, lambda_b=1e-2, loss=name)
    point = problem.random_point(1)
    vector = torch.tensor(point.to_vector())
    gradient = torch.func.grad(lambda x: torch_objective(problem, x))(vector)
    hessian = torch.func.hessian(lambda x: torch_objective(problem, x))(vector)
    assert problem.objective(point) == pytest.approx(float(torch_objective(problem, vector)), rel=1e-13)
    np.testing.assert_allclose(problem.gradient(point).to_vector(), gradient, atol=1e-13)
    np.testing.assert_allclose(problem.hessian(point).matmat(np.eye(len(vector))), hessian, atol=1e-12)
    np.testing.assert_allclose(problem.dense_hessian(point), hessian, atol=1e-12)


@pytest.mark.usefixtures("unchecked_shapes")
def test_losses_by_name() -> None:
    assert resolve_loss("label_smoothing:0.3") == LabelSmoothing(0.3)
    assert resolve_loss(Focal(2.0)) == Focal(2.0)
    for name, kind in LOSSES.items():
        assert isinstance(resolve_loss(name), Loss)
        assert resolve_loss(str(resolve_loss(name))) == kind()
    for bad, message in [
        ("hinge", "loss='hinge' is unknown: choose cross_entropy"), (3, "loss=3 is no loss"),
        ("mse:2", "mse has no parameter"), ("focal:x", "'x' is not a number"), ("focal:-1", "gamma=-1.0 must be zero"),
        ("label_smoothing:1", "alpha=1.0 must be at least 0 and below 1"), ("focal:inf", "gamma=inf"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            resolve_loss(bad)


def test_focal_is_convex_for_zero_alone() -> None:
    assert Focal(0.0).convex
    assert not Focal(0.5).convex
    assert not Focal(3.0).convex
