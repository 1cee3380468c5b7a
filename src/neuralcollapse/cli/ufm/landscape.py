"""``neuralcollapse ufm landscape``."""

from __future__ import annotations

import itertools
from pathlib import Path

from neuralcollapse.cli.ufm.place import Place
from neuralcollapse.cli.ufm.problem import Problem, ProblemOptions

_LISTED = 100
"""Critical points that are computed and listed; 20 classes alone have 627."""
_NAMED = 12
"""Saddles that an error names."""


def landscape(
    *,
    choices: ProblemOptions = Problem(),  # noqa: B008  (it is frozen)
    saddle: str | None = None,
    output: Path | None = None,
) -> None:
    """List the critical points, and draw a slice of the objective through a saddle and the optimum.

    There is one critical point for each way to group classes of equal size; at most 100 are listed. The page also
    shows the eigenvalues of the Hessian on the way down.

    For example:
      neuralcollapse ufm landscape
      neuralcollapse ufm landscape --saddle 2+1+1 --output saddle.html

    Args:
        saddle: The saddle to draw, by how it groups the classes, such as 2+1+1. By default the first of rank 1.
        output: The page. By default runs/ufm/landscape.html.
    """
    place = Place(output, "runs/ufm/landscape.html")
    from neuralcollapse.report.landscape import check_size, write_landscape
    from neuralcollapse.ufm import Verdict

    problem = choices.make()
    check_size(problem)
    source, atlas = problem.saddles(), []
    for critical in itertools.islice(source, _LISTED):
        print(critical, flush=True)
        atlas.append(critical)
    if len(atlas) == _LISTED and next(source, None) is not None:
        print(f"These are the first {_LISTED}: there are more ways to group {problem.num_classes} classes.")
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
        some = ", ".join(itertools.islice(strict, _NAMED))
        raise ValueError(f"--saddle {wanted}: choose one of {some}{' or another of the list' * (len(strict) > _NAMED)}")
    write_landscape(problem, strict[wanted], place.path)
    print(place.said("Landscape"))
