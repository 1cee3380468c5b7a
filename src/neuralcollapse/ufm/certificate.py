"""A proof of how far a point is from optimal, and the way down where it is a strict saddle."""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass

import numpy as np

from neuralcollapse.ufm.balance import balance_ratio
from neuralcollapse.ufm.bound import lower_bound, margin, top_residual
from neuralcollapse.ufm.norms import euclidean
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import TOLERANCE, Point

_CRITICAL = 1e-6
"""Gradient, relative to the terms that cancel in it, under which a point counts as critical."""
_MANY_ROUNDINGS = 1e3 * float(np.finfo(float).eps)
"""What sums of rounded terms may be off by, relative to the terms."""
_LEAST_EXCESS = 1e-10
"""Share by which ||G||₂ must exceed τ to be told from rounding."""


class Verdict(enum.Enum):
    """What a certificate says of a point."""

    OPTIMAL = "globally optimal"
    SADDLE = "strict saddle"
    NOT_CRITICAL = "not critical"
    NOT_TIGHT = "relaxation not tight"
    ROUNDING = "critical up to rounding"
    NO_CERTIFICATE = "no certificate exists"


_MEANING = {
    Verdict.OPTIMAL: "no point has a value lower by more than the gap",
    Verdict.SADDLE: "critical, and a direction of negative curvature leads down",
    Verdict.NOT_CRITICAL: "the gradient is not zero: follow it",
    Verdict.NOT_TIGHT: "critical, but optimality cannot be certified: no unused direction of feature space leads down, "
    "and the convex bound lies below (out of reach where feature_dim is below num_classes - 1)",
    Verdict.ROUNDING: "rounding in float64 hides what is left of the gradient or of the gap: no tighter certificate "
    "can be had here",
    Verdict.NO_CERTIFICATE: "critical, and nothing leads down along an unused direction; the loss is not convex in the "
    "logits, so that no bound can prove more",
}


@dataclass(frozen=True)
class Certificate:
    """How far a point is from the global minimum, with a bound that holds for every point."""

    value: float
    """f at the point."""
    lower_bound: float | None
    """f is nowhere smaller; None for a loss that is not convex."""
    gap: float | None
    """value - lower_bound."""
    residual_ratio: float
    """||G||₂/τ, G the loss's gradient over logits: for a convex loss a critical point with at most 1 is a global
    minimum (Lemma C.4)."""
    gradient_norm: float
    """Norm of the gradient of f, over all samples."""
    verdict: Verdict
    """What follows."""
    curvature: float | None
    """Exact curvature of f along the way down, for a strict saddle (Theorem 3.2)."""

    def to_dict(self) -> dict[str, float | str | None]:
        """Everything by name."""
        return {**dataclasses.asdict(self), "verdict": self.verdict.value}

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: {_MEANING[self.verdict]}"]
        lines += [f"{name:<16}{value:.9g}" for name, value in self.to_dict().items() if isinstance(value, float)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Direction:
    """A direction of negative curvature."""

    step: Point
    """Δ, in the coordinates of the model."""
    curvature: float
    """Second derivative of f along Δ: -2(||G||₂ - τ)."""

    @property
    def rayleigh(self) -> float:
        """Curvature of the unit vector along Δ: an upper bound of the Hessian's least eigenvalue."""
        return self.curvature / self.step.norm() ** 2


def certify(problem: UFM, point: Point, *, tol: float = TOLERANCE, known_bound: float = 0.0) -> Certificate:
    """Bound from below what any point can reach, and judge this one. All arithmetic is in float64.

    Args:
        problem: the model.
        point: any point of it, with the columns of H class by class, as ``problem.labels`` has them.
        tol: gap, as a share of the value, up to which the point is called globally optimal.
        known_bound: a lower bound of f known from elsewhere; the better of the two counts.

    Raises:
        ValueError: if the point does not fit the model, is not finite or so large that f overflows, or ``tol`` is not
            a positive number below 1.
        TypeError: if the point is no :class:`Point`.
    """
    check_tolerance(tol)
    problem.check(point)
    with np.errstate(over="ignore", invalid="ignore"):
        value, gradient = problem.value_and_gradient(point)
        gradient_norm, balanced, noise = _gradient_size(problem, point, gradient)
    if not (math.isfinite(value) and math.isfinite(gradient_norm)):
        raise ValueError("f overflows at this point: its entries are too large for float64")
    bound = max(lower_bound(problem, point), known_bound) if problem.loss.convex else None
    gap = None if bound is None else value - bound
    norm, left = top_residual(problem, point)
    excess = norm / problem.tau - 1
    curvature = None
    if gap is not None and gap <= tol * value:
        verdict = Verdict.OPTIMAL
    elif balanced > noise and balanced > noise + _logit_rounding(problem, point):
        verdict = Verdict.NOT_CRITICAL
    elif balanced > noise or (gap is not None and gap <= 2 * margin(problem) * value):
        verdict = Verdict.ROUNDING
    elif excess > max(tol, _LEAST_EXCESS) and excess > _use(point, left) and _leaves_room(problem, point):
        verdict, curvature = Verdict.SADDLE, -2 * (norm - problem.tau)
    elif problem.loss.convex and _leaves_room(problem, point):  # a critical point is a minimum or a strict saddle here
        verdict = Verdict.NOT_CRITICAL
    else:
        verdict = Verdict.NO_CERTIFICATE if gap is None else Verdict.NOT_TIGHT
    return Certificate(value, bound, gap, norm / problem.tau, gradient_norm, verdict, curvature)


def check_tolerance(tol: float) -> None:
    """Refuse what is no relative tolerance.

    Raises:
        ValueError: if ``tol`` is not a positive number below 1.
    """
    if not tol > 0:
        raise ValueError(f"tol={tol} must be positive")
    if not tol < 1:
        raise ValueError(f"tol={tol} must be below 1: it is the gap as a share of the value")


def _gradient_size(problem: UFM, point: Point, gradient: Point) -> tuple[float, float, float]:
    """The gradient's norm over all samples; where both decays are τ, and the norm that counts as zero there.

    The gradient is compared with the terms that cancel in it. With both decays τ this does not depend on how W and H
    share their product.
    """
    ratio = balance_ratio(problem)
    roots = np.sqrt(problem.weights)
    weight, features, bias = gradient.W, gradient.H / roots, gradient.b
    if problem.nonnegative:  # at the edge only a pull inwards counts
        features = np.where(point.H > 0, features, np.minimum(features, 0))
    norm = Point(weight, features, bias).norm()
    balanced = Point(weight * ratio, features / ratio, bias).norm()
    size = _balanced_size(problem, point)
    residual = top_residual(problem, point)[0]
    scale = problem.tau * size + problem.lambda_b * euclidean(point.b)
    return norm, balanced, _CRITICAL * scale + _MANY_ROUNDINGS * residual * size


def _balanced_size(problem: UFM, point: Point) -> float:
    """The norm of W and H where both decays are τ, at least 1."""
    ratio = balance_ratio(problem)
    return max(1.0, math.hypot(euclidean(point.W) / ratio, ratio * euclidean(point.H * np.sqrt(problem.weights))))


def _logit_rounding(problem: UFM, point: Point) -> float:
    """By how much rounded logits move the gradient: with small decays, all there is of a squared error's residual."""
    moved = []
    for part, logits, targets in problem.blocks(point):
        change = problem.loss.hessian_product(logits, targets, np.abs(logits)) / problem.total
        moved.append(euclidean(change * np.sqrt(problem.weights[part])))
    return _MANY_ROUNDINGS * math.hypot(*moved) * _balanced_size(problem, point)


def descent_direction(problem: UFM, point: Point) -> Direction:
    """Theorem 3.2: from a critical point with ||G||₂ > τ and a null vector a of W, a way down.

    With u, v the top singular vectors of G, Δ_W = (λH/λW)^¼ u a', Δ_H = -(λH/λW)^-¼ a v', Δ_b = 0 has
    curvature exactly -2(||G||₂ - τ).

    Raises:
        ValueError: if ||G||₂ <= τ (then a critical point is a global minimum), no direction of feature
            space is unused by W and H, or features are nonnegative.
    """
    problem.check(point)
    if problem.nonnegative:
        raise ValueError("the theorem's direction makes features negative, which this model does not allow")
    norm, left = top_residual(problem, point)
    if norm <= problem.tau * (1 + _LEAST_EXCESS):
        raise ValueError(f"||G||₂/τ = {norm / problem.tau:.6g} is at most 1: a critical point here is a global minimum")
    null = _null_vector(problem, point)
    if null is None:
        raise ValueError(
            f"W and H use all feature_dim={problem.feature_dim} directions: the theorem needs an unused one, which "
            "every larger feature_dim has"
        )
    right = np.empty(len(problem.labels))
    for part, residual in problem.residuals(point):
        right[part] = left @ residual / norm
    scale = balance_ratio(problem)
    step = Point(scale * np.outer(left, null), -np.outer(null, right) / scale, np.zeros(problem.num_classes))
    return Direction(step, -2 * (norm - problem.tau))


def _use(point: Point, direction: np.ndarray) -> float:
    """The share of W in a direction of logits.

    At a critical point every direction in which ||G||₂ exceeds τ is unused. Near a global minimum ||G||₂ exceeds τ a
    little too, but there it does so in a direction that W uses.
    """
    return euclidean(direction @ point.W) / (euclidean(point.W) or 1.0)


def _leaves_room(problem: UFM, point: Point) -> bool:
    """Whether Theorem 3.2's direction exists: it makes features negative along an unused direction."""
    return not problem.nonnegative and _null_vector(problem, point) is not None


def _null_vector(problem: UFM, point: Point) -> np.ndarray | None:
    """A unit vector of feature space that neither W nor H uses, or None."""
    ratio = balance_ratio(problem)
    weight, features = point.W / ratio, ratio * point.H * np.sqrt(problem.weights)
    values, vectors = np.linalg.eigh(weight.T @ weight + features @ features.T)
    return vectors[:, 0] if values[0] <= 1e-12 * max(float(values[-1]), 1e-8) else None
