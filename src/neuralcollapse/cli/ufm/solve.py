"""``neuralcollapse ufm solve``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from neuralcollapse.cli.ufm.place import Place
from neuralcollapse.cli.ufm.problem import Problem, ProblemOptions
from neuralcollapse.files import replacing

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

    Prints the value, how far from optimal it can be at most, and the closed form beside it where there is one.

    For example:
      neuralcollapse ufm solve
      neuralcollapse ufm solve --samples-per-class 9,1,4,2 --output point.npz
      neuralcollapse ufm solve --num-classes 6 --feature-dim 2 --method lbfgs
      neuralcollapse ufm solve --loss label_smoothing:0.1
      neuralcollapse ufm solve --loss mse --no-bias --samples-per-class 9,1,4,2

    Args:
        method: The solver: gradient, sgd, adam, lbfgs or newton.
        tol: Stop when the gap divided by the value is at most this number.
        max_iterations: Number of iterations. By default what the method needs.
        seed: Seed of the random start.
        output: Write the point to this .npz file: W, H, b, labels.
    """
    place = None if output is None else Place(output, "")
    if output is not None and output.suffix != ".npz" and (output.is_file() or not output.exists()):
        raise ValueError(f"--output {output} must end in .npz: that is the format of the point")
    problem = choices.make()
    solution = problem.solve(method=method, seed=seed, tol=tol, max_iterations=max_iterations)
    print(problem)
    print(str(solution).replace(" tol=", " --tol=").replace("max_iterations", "--max-iterations"))
    with contextlib.suppress(ValueError):  # not every problem has one
        print(f"closed form     {problem.global_optimum().value:.9g}")
    if place is not None:
        _save(solution, place.path)
        print(place.said("Point"))


def _save(solution: Solution, path: Path) -> None:
    import numpy as np

    point = solution.point
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, W=point.W, H=point.H, b=point.b, labels=solution.problem.labels)
