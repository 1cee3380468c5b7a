"""``neuralcollapse ufm landscape``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.ufm.place import Place
from neuralcollapse.cli.ufm.problem import Problem, ProblemOptions


def landscape(
    *,
    choices: ProblemOptions = Problem(),  # noqa: B008  (it is frozen)
    saddle: str | None = None,
    output: Path | None = None,
) -> None:
    """List the critical points, and draw a slice of the objective through a saddle and the optimum.

    The page also shows the eigenvalues of the Hessian on the way down.

    For example:
      neuralcollapse ufm landscape
      neuralcollapse ufm landscape --saddle 2+1+1 --output saddle.html

    Args:
        saddle: The saddle to draw, by how it groups the classes, such as 2+1+1. By default the first of rank 1.
        output: The page. By default runs/ufm/landscape.html.
    """
    place = Place(output, "runs/ufm/landscape.html")
    from neuralcollapse.report.landscape import write_landscape
    from neuralcollapse.ufm import Verdict

    problem = choices.make()
    atlas = list(problem.saddles())
    for critical in atlas:
        print(critical)
    strict = {
        "+".join(map(str, critical.shape)): critical
        for critical in atlas
        if critical.certificate.verdict is Verdict.SADDLE
    }
    if not strict:
        raise ValueError(
            "this problem has no strict saddle to draw: its weight decay is so strong that the origin is optimal"
        )
    wanted = saddle or next((name for name, found in strict.items() if found.rank == 1), next(iter(strict)))
    if wanted not in strict:
        raise ValueError(f"--saddle {wanted}: choose one of {', '.join(strict)}")
    write_landscape(problem, strict[wanted], place.path)
    print(place.said("Landscape"))
