"""Multi-start L-BFGS on a plain objective by autograd: an oracle that shares no code with the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize

Objective = Callable[..., torch.Tensor]


def multi_start(
    objective: Objective, shapes: Sequence[tuple[int, ...]], *, starts: int = 4, seed: int = 0, scale: float = 1.0
) -> tuple[float, list[np.ndarray]]:
    """The least value of a function of several float64 tensors over random starts, and where."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    rng = np.random.default_rng(seed)

    def parts(vector: torch.Tensor) -> list[torch.Tensor]:
        return [part.reshape(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.tensor(x, requires_grad=True)
        value = objective(*parts(vector))
        value.backward()
        return float(value.detach()), vector.grad.numpy()

    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30}
    runs = [
        minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        for start in scale * rng.standard_normal((starts, sum(sizes)))
    ]
    best = min(runs, key=lambda run: run.fun)
    return float(best.fun), [part.numpy() for part in parts(torch.tensor(best.x))]
