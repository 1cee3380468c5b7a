"""L-BFGS far from a critical point, Newton steps near one, and out of strict saddles along Theorem 3.2's direction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from neuralcollapse.ufm.balance import factors
from neuralcollapse.ufm.bound import best_bias, top_residual
from neuralcollapse.ufm.certificate import Certificate, Verdict, certify, descent_direction
from neuralcollapse.ufm.losses import MeanSquaredError
from neuralcollapse.ufm.norms import euclidean
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point
from neuralcollapse.ufm.solvers.coordinates import Balanced
from neuralcollapse.ufm.solvers.lbfgs import lbfgs
from neuralcollapse.ufm.solvers.solver import Iterates, Solver
from neuralcollapse.ufm.squared import squared_optimum

_ROUNDING = 64 * float(np.finfo(float).eps)
"""Relative error of a value."""


@dataclass(frozen=True)
class Newton(Solver):
    """The default: features averaged within classes, in balanced coordinates."""

    max_iterations: int = 300
    every: int = 1
    lbfgs_iterations: int = 100
    """L-BFGS iterations between two looks at the certificate."""
    memory: int = 20
    near: float = 1e-4
    """Gradient, relative to the penalty's, at which Newton steps begin."""
    saddle: float = 1e-3
    """Share by which ||G||₂ exceeds τ at what is at once taken for a saddle."""
    dense: int = 300
    """Variables up to which the Hessian is a matrix; beyond, it is applied to vectors only."""

    def iterates(self, model: UFM, start: Point, seed: int) -> Iterates:
        """Points after 1, 2, ... rounds, until there is no further decrease."""
        if (origin := _least_origin(model, start)) is not None:
            yield 1, origin
            return
        space = Balanced(model)
        x = space.vector(_best_start(model, start))
        value, gradient = space.value_and_gradient(x)
        stuck = 0
        for iteration in itertools.count(1):
            if space.far(x, gradient) > self.near and not stuck:
                x = space.stretched(lbfgs(space, x, self.lbfgs_iterations, memory=self.memory))
            elif self._at_saddle(certify(model, space.point(x)), stuck):
                x = space.vector(_escape(model, space.point(x)))
            elif model.nonnegative:
                x = lbfgs(space, x, self.lbfgs_iterations, memory=self.memory)
            elif len(x) <= self.dense:
                x = _rebalanced(space, _newton_step(space, x))
            else:
                x = _krylov(space, x)
            yield iteration, space.point(x)
            before, slope = value, euclidean(gradient)
            value, gradient = space.value_and_gradient(x)
            # Near a minimum values no longer tell two points apart, but gradients do.
            stuck = 0 if value < before or euclidean(gradient) < 0.1 * slope else stuck + 1
            if stuck > 1:
                return

    def _at_saddle(self, found: Certificate, stuck: int) -> bool:
        """Near a minimum ||G||₂ exceeds τ a little too: there Newton steps are faster, while they lead on."""
        return found.verdict is Verdict.SADDLE and (stuck > 0 or found.residual_ratio > 1 + self.saddle)


def _least_origin(model: UFM, point: Point) -> Point | None:
    """W = 0, H = 0 and the best bias, where decay past the phase transition makes that the global minimum."""
    origin = 0.0 * point
    if not model.loss.convex:
        return None
    if model.bias:
        origin = replace(origin, b=best_bias(model, origin))
    return origin if top_residual(model, origin)[0] <= model.tau else None


def _best_start(model: UFM, start: Point) -> Point:
    """The start, or for squared error the closed form without bias decay where that is lower: often the minimum."""
    if not isinstance(model.loss, MeanSquaredError) or model.nonnegative:
        return start
    point = squared_optimum(model.replace(lambda_b=0.0))
    return point if model.objective(point) < model.objective(start) else start


def _escape(model: UFM, point: Point) -> Point:
    """Go down along Theorem 3.2's direction, by as much as it pays."""
    step = descent_direction(model, point).step
    value = model.objective(point)
    size, best, best_value = 1.0, point, value
    for _ in range(40):
        candidate = point + size * step
        reached = model.objective(candidate)
        if reached < best_value:
            best, best_value = candidate, reached
        elif best_value < value:
            break
        size /= 2
    return best


def _newton_step(space: Balanced, x: np.ndarray) -> np.ndarray:
    """A step with the absolute values of the Hessian's eigenvalues, halved until f does not rise.

    A rise within rounding counts as none where the gradient falls.
    """
    hessian = space.dense_hessian(x)
    value, gradient = space.value_and_gradient(x)
    # Each variable in units of its own curvature: the bias's decay may exceed the others' by many orders of magnitude.
    units = np.sqrt(np.maximum(np.abs(np.diag(hessian)), space.model.tau))
    values, vectors = np.linalg.eigh(hessian / units / units[:, None])
    along = vectors.T @ (gradient / units)
    sizes = np.abs(values)
    step = -vectors @ np.divide(along, sizes, out=np.zeros_like(along), where=sizes > 1e-10 * sizes.max()) / units
    size = 1.0
    while size > 1e-8:
        candidate = x + size * step
        reached, slope = space.value_and_gradient(candidate)
        if reached <= value:
            return candidate
        if reached <= value * (1 + _ROUNDING) and euclidean(slope) < euclidean(gradient):
            return candidate
        size /= 2
    return x


def _rebalanced(space: Balanced, x: np.ndarray) -> np.ndarray:
    """The same logits with the least decay, exactly: beside a steep loss the Hessian hardly sees small decays."""
    model, point = space.model, space.point(x)
    weight, features = factors(model, point.W @ point.H * np.sqrt(model.weights))
    candidate = space.vector(Point(weight, features, point.b))
    return candidate if space.value_and_gradient(candidate)[0] < space.value_and_gradient(x)[0] else x


def _krylov(space: Balanced, x: np.ndarray) -> np.ndarray:
    """Some steps of SciPy's trust-region Newton method, which needs Hessian products only."""
    tau = space.model.tau  # the unit of f near a minimum

    def value_and_gradient(y: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = space.value_and_gradient(y)
        return value / tau, gradient / tau

    found = minimize(
        value_and_gradient,
        x,
        jac=True,
        hessp=lambda y, direction: space.hessian_product(y, direction) / tau,
        method="trust-krylov",
        options={"maxiter": 5, "gtol": 1e-12, "inexact": True},
    )
    return np.asarray(found.x) if tau * found.fun <= space.value_and_gradient(x)[0] else x
