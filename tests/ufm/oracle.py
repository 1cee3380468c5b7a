"""An oracle that shares no code with the package: L-BFGS from several starts, then Newton steps, all by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize

Objective = Callable[..., torch.Tensor]
OfVector = Callable[[torch.Tensor], torch.Tensor]


def multi_start(
    objective: Objective, shapes: Sequence[tuple[int, ...]], *, starts: int = 4, seed: int = 0, scale: float = 1.0
) -> tuple[float, list[np.ndarray]]:
    """The least value of a function of several float64 tensors over random starts, and where."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    rng = np.random.default_rng(seed)

    def parts(vector: torch.Tensor) -> list[torch.Tensor]:
        return [part.reshape(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]

    def of_vector(vector: torch.Tensor) -> torch.Tensor:
        return objective(*parts(vector))

    runs = [descend(of_vector, start) for start in scale * rng.standard_normal((starts, sum(sizes)))]
    best = polish(of_vector, min(runs, key=lambda run: run[0])[1])
    return float(of_vector(torch.tensor(best))), [part.numpy() for part in parts(torch.tensor(best))]


def descend(objective: OfVector, start: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and place of SciPy's L-BFGS from a start."""

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.tensor(x, requires_grad=True)
        value = objective(vector)
        value.backward()
        return float(value.detach()), vector.grad.numpy()

    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30}
    run = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    return float(run.fun), run.x


def polish(objective: OfVector, x: np.ndarray, steps: int = 30) -> np.ndarray:
    """Newton steps with autodiff's Hessian, across its flat directions, until the gradient no longer falls.

    L-BFGS stops where values no longer differ: its logits err by the square root of that.
    """
    slope, curvature = torch.func.grad(objective), torch.func.hessian(objective)
    gradient = slope(torch.tensor(x)).numpy()
    for _ in range(steps):
        hessian = curvature(torch.tensor(x)).numpy()
        better = x - np.linalg.pinv(hessian, rcond=1e-10, hermitian=True) @ gradient
        found = slope(torch.tensor(better)).numpy()
        if not np.linalg.norm(found) < np.linalg.norm(gradient):
            break
        x, gradient = better, found
    return x
