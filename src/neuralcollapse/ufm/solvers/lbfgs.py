"""L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point
from neuralcollapse.ufm.solvers.coordinates import Balanced
from neuralcollapse.ufm.solvers.solver import Iterates, Solver


@dataclass(frozen=True)
class LBFGS(Solver):
    """SciPy's L-BFGS-B in balanced coordinates, so many iterations at a time: a solve that is certified stops."""

    max_iterations: int = 20_000
    every: int = 20
    at_once: int = 100
    memory: int = 20

    def iterates(self, model: UFM, start: Point, seed: int) -> Iterates:
        """Points after 1, 2, ... iterations."""
        space = Balanced(model)
        x = space.vector(start)
        iteration = 0
        while True:
            trail: list[np.ndarray] = []
            lbfgs(space, x, self.at_once, memory=self.memory, trail=trail)
            for x in trail:
                iteration += 1
                yield iteration, space.point(x)
            if not trail:
                return


def lbfgs(
    space: Balanced, x: np.ndarray, iterations: int, *, memory: int, trail: list[np.ndarray] | None = None
) -> np.ndarray:
    """Where SciPy's L-BFGS-B is after so many iterations, or where it finds no further decrease."""
    options = {"maxiter": iterations, "maxfun": 20 * iterations, "gtol": 0, "ftol": 0, "maxcor": memory}
    callback = None if trail is None else lambda iterate: trail.append(iterate.copy())
    bounds = [(low, None) for low in space.lowest] if space.model.nonnegative else None
    unit = float(np.abs(space.value_and_gradient(x)[1]).max()) or 1.0  # its squares must not leave float64's range

    def value_and_gradient(y: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = space.value_and_gradient(y)
        return value / unit, gradient / unit

    found = minimize(
        value_and_gradient, x, jac=True, method="L-BFGS-B", options=options, callback=callback, bounds=bounds
    )
    return np.asarray(found.x)
