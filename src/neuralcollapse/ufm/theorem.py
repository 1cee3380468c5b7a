"""Every critical point is a global minimum or a strict saddle, for d >= K-1: each step of the proof, checked on points.

Theorem 3.2 of Zhu et al. needs d > K and leaves d = K open. At a critical point G H' = -λW W and W'G = -λH H, hence:

1. λW W'W = λH H H' (multiply the two).
2. Where the columns of G sum to zero (cross-entropy, label smoothing, focal), 1'W = 0, so that rank W <= K-1.
3. Where W a = 0 for a unit a, also H'a = 0, and Theorem 3.2's direction exists: ||G||₂ <= τ, or a strict saddle.
4. Otherwise W has rank d, which needs d = K-1 (or d = K, where columns of G need not sum to zero), and all singular
   values of G that are not zero equal τ.

For a convex loss, ||G||₂ <= τ makes the point a global minimum (Lemma C.4).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from neuralcollapse.ufm.arguments import whole
from neuralcollapse.ufm.bound import gram_blocks
from neuralcollapse.ufm.certificate import certify, descent_direction
from neuralcollapse.ufm.losses import CrossEntropy
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point
from neuralcollapse.ufm.solvers.coordinates import Balanced
from neuralcollapse.ufm.solvers.lbfgs import lbfgs

_LOSSES = ("cross_entropy", "label_smoothing:0.1", "focal:2", "mse", "binary_cross_entropy")
_CRITICAL = 1e-9
"""Gradient, relative to the penalty's, at which a start counts as arrived."""
_HOLDS = 1e-5
"""Relative error up to which an equation of the proof holds."""
_STARTS_PER_POINT = 20
"""Starts after which the search for a point gives up."""


@dataclass(frozen=True)
class CheckedPoint:
    """A critical point, and by how much it misses each equation of the proof."""

    problem: UFM
    kind: str
    """``minimum`` (||G||₂ <= τ) or ``strict saddle``."""
    full_rank: bool
    """Whether W has rank d: step 4 instead of step 3."""
    balance: float
    """||λW W'W - λH H H'|| / τ, relative to the larger of 1 and ||W||²."""
    column_sum: float | None
    """||1'W|| where it must be zero, relative to the larger of 1 and ||W||."""
    final: float
    """Step 3: at a saddle the relative error of the curvature -2(||G||₂ - τ), at a minimum the gap relative to the
    value (for a convex loss). Step 4: the largest relative distance of a nonzero singular value of G from τ."""

    @property
    def exception(self) -> bool:
        """Whether a step of the proof fails here."""
        return bool(max(self.balance, self.column_sum or 0.0, self.final) > _HOLDS)


@dataclass(frozen=True)
class Report:
    """What became of all starts."""

    starts: int
    dropped: int
    """Starts that did not arrive at a critical point."""
    points: list[CheckedPoint]

    @property
    def exceptions(self) -> list[CheckedPoint]:
        """Points at which a step of the proof fails."""
        return [point for point in self.points if point.exception]

    def to_dict(self) -> dict[str, object]:
        """Counts and largest errors by name."""
        kinds = [f"{point.kind}, {'full rank' if point.full_rank else 'null direction'}" for point in self.points]
        return {
            "starts": self.starts,
            "dropped": self.dropped,
            "critical_points": len(self.points),
            "by_kind": dict(sorted(Counter(kinds).items())),
            "by_dimension": dict(sorted(Counter(_dimension(point.problem) for point in self.points).items())),
            "by_loss": dict(sorted(Counter(str(point.problem.loss) for point in self.points).items())),
            "worst_balance": max(point.balance for point in self.points),
            "worst_column_sum": max((point.column_sum or 0.0) for point in self.points),
            "worst_final_step": max(point.final for point in self.points),
            "exceptions": [str(point) for point in self.exceptions],
        }

    def __str__(self) -> str:
        found = self.to_dict()
        lines = [
            f"{self.starts} starts, {len(self.points)} critical points, {self.dropped} starts dropped: no convergence"
        ]
        for name in ("by_kind", "by_dimension", "by_loss"):
            group = found[name]
            assert isinstance(group, dict)
            lines.append("  " + "; ".join(f"{key}: {count}" for key, count in group.items()))
        lines += [
            f"Step 1, balance of W and H         largest error {found['worst_balance']:.1e}",
            f"Step 2, 1'W = 0                    largest error {found['worst_column_sum']:.1e}",
            f"Step 3 or 4, the case that follows largest error {found['worst_final_step']:.1e}",
            f"Exceptions: {len(self.exceptions) or 'none'}",
        ]
        return "\n".join(lines)


def check_theorem(points: int = 200, *, max_classes: int = 5, seed: int = 0) -> Report:
    """Find critical points from random starts of random problems, and check each step of the proof on them.

    Problems have d = K-1 (where the proof allows), K and more, equal and unequal classes, and every loss. Starts go
    down the norm of the gradient, which leads to saddles as well as to minima; half of them go down f first.

    Raises:
        ValueError: if ``points`` is less than 1 or ``max_classes`` less than 2.
        ArithmeticError: if too few starts arrive at a critical point.

    >>> check_theorem(3, max_classes=3).exceptions
    []
    """
    if points < 1 or max_classes < 2:
        raise ValueError(f"points={points} must be at least 1 and max_classes={max_classes} at least 2")
    found: list[CheckedPoint] = []
    rng = np.random.default_rng(whole("seed", seed, least=0))
    for start in range(1, points * _STARTS_PER_POINT + 1):
        point = _from_start(_problem(start, max_classes, rng), rng)
        found += [] if point is None else [point]
        if len(found) == points:
            return Report(start, start - points, found)
    raise ArithmeticError(f"only {len(found)} of {points * _STARTS_PER_POINT} starts arrived at a critical point")


def check_point(problem: UFM, point: Point) -> CheckedPoint:
    """Check each step of the proof at a critical point of the model by class.

    Raises:
        ValueError: if d is too small for the proof.
    """
    if problem.feature_dim < least_dimension(problem):
        raise ValueError(
            f"feature_dim={problem.feature_dim} must be at least {least_dimension(problem)} for the theorem"
        )
    model = problem.by_class
    k, d, tau = problem.num_classes, problem.feature_dim, problem.tau
    balanced = model.point(Balanced(model).vector(point))
    weight, features = balanced.W, balanced.H
    size = max(1.0, float(np.linalg.norm(weight)))
    balance = float(np.linalg.norm(weight.T @ weight - features @ features.T)) / size**2
    column_sum = float(np.linalg.norm(weight.sum(0))) / size if sums_to_zero(problem) else None
    dual = np.hstack(list(gram_blocks(model, point)))
    singular = np.linalg.svd(dual, compute_uv=False)
    smallest = float(np.linalg.svd(weight, compute_uv=False)[-1]) if d <= k else 0.0
    if smallest > 1e-5 * size:
        final = float(np.abs(singular[:d] / tau - 1).max())
        return CheckedPoint(problem, "minimum", True, balance, column_sum, final)
    if singular[0] > tau * (1 + 1e-6):
        excess = 2 * (singular[0] - tau)
        step = descent_direction(model, point).step
        curvature = float(model.hessian_product(point, step).to_vector() @ step.to_vector())
        return CheckedPoint(
            problem, "strict saddle", False, balance, column_sum, float(abs(curvature + excess) / excess)
        )
    found = certify(model, point)
    final = 0.0 if found.gap is None else max(found.gap / found.value, 0.0)
    return CheckedPoint(problem, "minimum", False, balance, column_sum, final)


def sums_to_zero(problem: UFM) -> bool:
    """Whether the loss's gradient has columns that sum to zero, so that 1'W = 0."""
    return isinstance(problem.loss, CrossEntropy)


def least_dimension(problem: UFM) -> int:
    """The smallest d for which the proof holds."""
    return problem.num_classes - 1 if sums_to_zero(problem) else problem.num_classes


def _dimension(problem: UFM) -> str:
    more = problem.feature_dim - problem.num_classes
    return "d = K-1" if more < 0 else "d = K" if more == 0 else "d > K"


def _problem(index: int, max_classes: int, rng: np.random.Generator) -> UFM:
    k = int(rng.integers(2, max_classes + 1))
    counts = rng.integers(1, 8, size=k) if rng.random() < 0.6 else np.full(k, rng.integers(1, 8))
    w, h = 10 ** rng.uniform(-3.5, -1, size=2)
    problem = UFM(
        k, counts.tolist(), k, lambda_w=float(w), lambda_h=float(h), loss=_LOSSES[index % len(_LOSSES)],
        lambda_b=0.0 if rng.random() < 0.5 else float(10 ** rng.uniform(-3, 0)),
    )  # fmt: skip
    least = max(least_dimension(problem), 1)
    return problem.replace(feature_dim=int(rng.choice([least, k, k + 1])))


def _from_start(problem: UFM, rng: np.random.Generator) -> CheckedPoint | None:
    """Solve gradient = 0 by MINPACK's Levenberg-Marquardt with the exact Hessian; None where it ends elsewhere."""
    space = Balanced(problem.by_class)
    x = rng.standard_normal(len(space.scale)) * 10 ** rng.uniform(-1, 0.7)
    if rng.random() < 0.5:
        x = lbfgs(space, x, int(rng.integers(1, 40)), memory=10)
    tau = problem.tau
    result = least_squares(
        lambda y: space.value_and_gradient(y)[1] / tau, x, jac=lambda y: space.dense_hessian(y) / tau,
        method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=300,
    )  # fmt: skip
    if space.far(result.x, space.value_and_gradient(result.x)[1]) > _CRITICAL:
        return None
    return check_point(problem, space.point(result.x))
