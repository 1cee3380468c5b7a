"""``neuralcollapse ufm solve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuralcollapse.cli.options import writable
from neuralcollapse.cli.ufm.problem import Problem, ProblemOptions

if TYPE_CHECKING:
    from neuralcollapse.ufm import Solution


def solve(
    *,
    choices: ProblemOptions = Problem(),  # noqa: B008  (it is frozen)
    method: str = "newton",
    tol: float = 1e-8,
    max_iterations: int | None = None,
    seed: int = 0,
    output: Path | None = None,
) -> None:
    """Minimise the objective of the unconstrained feature model, and certify the result.

    Prints the value, how far from optimal it can be at most, and the closed form of Theorem 3.1 beside it where
    there is one.

    For example:
      neuralcollapse ufm solve
      neuralcollapse ufm solve --samples-per-class 9,1,4,2 --output point.npz
      neuralcollapse ufm solve --num-classes 6 --feature-dim 2 --method lbfgs

    Args:
        method: The solver: gradient, sgd, adam, lbfgs or newton.
        tol: Duality gap at which to stop.
        max_iterations: Number of iterations. By default what the method needs.
        seed: Seed of the random start.
        output: Write the point to this .npz file: W, H, b, labels.
    """
    path = writable(output, "--output")
    problem = choices.make()
    solution = problem.solve(method=method, seed=seed, tol=tol, max_iterations=max_iterations)
    print(problem)
    print(solution)
    if problem.balanced and problem.feature_dim >= problem.num_classes - 1:
        print(f"closed form     {problem.global_optimum().value:.9g}  (Theorem 3.1)")
    if path:
        _save(solution, path)


def _save(solution: Solution, path: Path) -> None:
    import numpy as np

    point = solution.point
    with path.open("wb") as file:  # a name without .npz stays as it was typed
        np.savez(file, W=point.W, H=point.H, b=point.b, labels=solution.problem.labels)
    print(f"Point: {path}")
