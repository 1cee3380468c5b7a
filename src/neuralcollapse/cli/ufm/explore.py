"""``neuralcollapse ufm explore``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.cli.ufm.problem import Problem, ProblemOptions

FIVE_IN_SPACE = Problem(
    num_classes=5, samples_per_class="10", feature_dim=3, lambda_w=1e-3, lambda_h=1e-4, lambda_b=1e-2
)
"""The smallest problem with two local minima."""


def explore(
    *,
    choices: ProblemOptions = FIVE_IN_SPACE,
    starts: int = 60,
    seed: int = 0,
    json: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Find local minima that are not global (d < K - 1).

    Each minimum is refined until its gradient is zero up to rounding, and proved strict by the eigenvalues of its
    Hessian. Prints the values, how many starts ended in each minimum, and an interval that contains the global value.

    For example:
      neuralcollapse ufm explore
      neuralcollapse ufm explore --picture solids.svg
      neuralcollapse ufm explore --num-classes 12 --feature-dim 2 --starts 200 --json minima.json

    Args:
        starts: Number of random starts.
        seed: Seed of the starts.
        json: Write what was found to this file as well.
        picture: With d = 3, draw the minima turning, as an SVG file.
    """
    path, drawing = writable(json, "--json"), writable(picture, "--picture")
    problem = choices.make()
    if drawing and problem.feature_dim != 3:
        raise ValueError(f"--picture draws solids: it needs --feature-dim 3, not {problem.feature_dim}")
    from neuralcollapse.ufm.explore import explore as search
    from neuralcollapse.ufm.explore import rows

    found = search(problem, starts=starts, seed=seed)
    print(found)
    write_json(path, list(rows(found)))
    if drawing:
        from neuralcollapse.files import write_text
        from neuralcollapse.report.solids import turning_svg

        solids = [(minimum.shape, f"f = {minimum.value:.8f}", minimum.point.W) for minimum in found.minima]
        write_text(drawing, turning_svg(solids, description="Strict local minima: the rows of W, turning."))
        print(f"Picture: {drawing}")
