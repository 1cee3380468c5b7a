"""A proof of how far a point is from optimal, and the way down where it is a strict saddle.

The convex program (37) of Zhu et al. bounds f from below; its Fenchel dual gives a bound anyone can check.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import entr

from neuralcollapse.ufm.problem import UFM, Point

_CRITICAL = 1e-7
"""Gradient norm under which a point counts as critical."""


class Verdict(enum.Enum):
    """What a certificate says of a point."""

    OPTIMAL = "globally optimal"
    SADDLE = "strict saddle"
    NOT_CRITICAL = "not critical"
    NOT_TIGHT = "relaxation not tight"


_MEANING = {
    Verdict.OPTIMAL: "no point has a value lower by more than the gap",
    Verdict.SADDLE: "critical, and a direction of negative curvature leads down",
    Verdict.NOT_CRITICAL: "the gradient is not zero: follow it",
    Verdict.NOT_TIGHT: "critical, with no null direction to leave by: the feature dimension may be too small for "
    "the convex bound to be reached",
}


@dataclass(frozen=True)
class Certificate:
    """How far a point is from the global minimum, with a bound that holds for every point."""

    value: float
    """f at the point."""
    lower_bound: float
    """D: f is nowhere smaller."""
    gap: float
    """value - lower_bound."""
    residual_ratio: float
    """||G||₂/τ, G = (P - Y)/N: a critical point with at most 1 is a global minimum (Lemma C.4)."""
    gradient_norm: float
    """Norm of the gradient of f."""
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


def certify(problem: UFM, point: Point, *, tol: float = 1e-6) -> Certificate:
    """Bound from below what any point can reach, and judge this one.

    Args:
        problem: the model.
        point: any point of it.
        tol: gap up to which the point is called globally optimal.

    Raises:
        ValueError: if the point does not fit the model or is not finite.
    """
    problem.check(point)
    value = problem.objective(point)
    bound = lower_bound(problem, point)
    gradient = problem.gradient(point)
    # In the model by class a gradient stands for all samples of the class: its norm is over all of them.
    gradient_norm = Point(gradient.W, gradient.H / np.sqrt(problem.weights), gradient.b).norm()
    norm = _top_residual(problem, point)[0]
    gap = value - bound
    curvature = None
    if gap <= tol:
        verdict = Verdict.OPTIMAL
    elif gradient_norm > _CRITICAL:
        verdict = Verdict.NOT_CRITICAL
    elif norm > problem.tau and _null_vector(problem, point) is not None:
        verdict, curvature = Verdict.SADDLE, -2 * (norm - problem.tau)
    else:
        verdict = Verdict.NOT_TIGHT
    return Certificate(value, bound, gap, norm / problem.tau, gradient_norm, verdict, curvature)


def lower_bound(problem: UFM, point: Point) -> float:
    """D of the dual of program (37), from the point's predictions: f is nowhere smaller.

    P' = (1-s) Y + s P with s = min(1, τ/||G||₂) is feasible for the dual, and
    D = mean entropy(P') - ||s G 1||²/(2 λb). Without bias decay G 1 = 0 is needed, so the bias is first put
    at its exact minimiser.
    """
    if problem.lambda_b == 0:
        bias = best_bias(problem, point)
        if bias is None:
            return 0.0  # s = 0: cross-entropies are never negative
        point = Point(point.W, point.H, bias)
    norm = _top_residual(problem, point)[0]
    share = min(1.0, problem.tau / norm) if norm > 0 else 1.0
    total, row_sums = 0.0, np.zeros(problem.num_classes)
    for part, softmax, _ in problem.blocks(point):
        labels, columns = problem.labels[part], np.arange(softmax.shape[1])
        mixed = share * softmax
        mixed[labels, columns] += 1 - share
        total += float(problem.weights[part] @ entr(mixed).sum(0))
        softmax[labels, columns] -= 1
        row_sums += softmax @ problem.weights[part]
    bound = total / problem.total
    if problem.lambda_b > 0:
        bound -= float(((share * row_sums / problem.total) ** 2).sum()) / (2 * problem.lambda_b)
    return max(bound, 0.0)


def best_bias(problem: UFM, point: Point) -> Float[np.ndarray, "K"] | None:
    """The bias that minimises the loss for fixed W and H, by K-dimensional Newton; None where it is out of reach.

    At the minimiser the predictions of each class add up to its samples. Rounds of matrix scaling come
    first: they are slower, but converge from anywhere.
    """
    bias = point.b.astype(float)
    wanted = problem.class_counts / problem.total
    loss, found, hessian = _bias_terms(problem, point, bias)
    for iteration in range(100):
        residual = found - wanted
        if np.abs(residual).max() < 1e-15:
            break
        if iteration < 5:
            candidate = bias + np.log(wanted) - np.log(np.maximum(found, 1e-300))
            terms = _bias_terms(problem, point, candidate)
        else:
            step = -np.linalg.lstsq(hessian + 1 / problem.num_classes, residual, rcond=None)[0]
            size = 1.0
            while True:
                candidate = bias + size * step
                terms = _bias_terms(problem, point, candidate)
                if terms[0] <= loss + 1e-4 * size * float(residual @ step) + 1e-16 or size < 1e-6:
                    break
                size /= 2
            if np.abs(terms[1] - wanted).max() >= np.abs(residual).max() and np.abs(residual).max() < 1e-13:
                break  # rounding is all that is left
        bias = candidate
        loss, found, hessian = terms
    return bias if np.abs(found - wanted).max() < 1e-12 else None


def _bias_terms(problem: UFM, point: Point, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, mean prediction and Hessian with respect to the bias."""
    k = problem.num_classes
    loss, mean, second = 0.0, np.zeros(k), np.zeros((k, k))
    for part, softmax, entropy in problem.blocks(Point(point.W, point.H, bias)):
        weights = problem.weights[part] / problem.total
        loss += float(weights @ entropy)
        mean += softmax @ weights
        second += (softmax * weights) @ softmax.T
    return loss, mean, np.diag(mean) - second


def descent_direction(problem: UFM, point: Point) -> Direction:
    """Theorem 3.2: from a critical point with ||G||₂ > τ and a null vector a of W, a way down.

    With u, v the top singular vectors of G, Δ_W = (λH/λW)^¼ u a', Δ_H = -(λH/λW)^-¼ a v', Δ_b = 0 has
    curvature exactly -2(||G||₂ - τ).

    Raises:
        ValueError: if ||G||₂ <= τ (then a critical point is a global minimum), or no direction of feature
            space is unused by W and H.
    """
    problem.check(point)
    norm, left = _top_residual(problem, point)
    if norm <= problem.tau:
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
    scale = (problem.lambda_h / problem.lambda_w) ** 0.25
    step = Point(scale * np.outer(left, null), -np.outer(null, right) / scale, np.zeros(problem.num_classes))
    return Direction(step, -2 * (norm - problem.tau))


def _top_residual(problem: UFM, point: Point) -> tuple[float, np.ndarray]:
    """Largest singular value of G over all samples, and its left singular vector, through the K x K Gram matrix."""
    gram = np.zeros((problem.num_classes, problem.num_classes))
    for part, residual in problem.residuals(point):
        gram += (residual * problem.weights[part]) @ residual.T
    values, vectors = np.linalg.eigh(gram)
    return math.sqrt(max(values[-1], 0.0)), vectors[:, -1]


def _null_vector(problem: UFM, point: Point) -> np.ndarray | None:
    """A unit vector of feature space that neither W nor H uses, or None."""
    used = problem.lambda_w * point.W.T @ point.W + problem.lambda_h * (problem.weights * point.H) @ point.H.T
    values, vectors = np.linalg.eigh(used)
    scale = max(float(values[-1]), problem.tau * 1e-8)
    return vectors[:, 0] if values[0] <= 1e-12 * scale else None
