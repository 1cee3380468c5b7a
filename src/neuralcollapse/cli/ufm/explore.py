"""``neuralcollapse ufm explore``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.cli.ufm.problem import DECAYS, PROBLEM, Problem


@dataclass(frozen=True, kw_only=True)
class FiveInSpace(Problem):
    """The smallest problem with two local minima."""

    num_classes: Annotated[int, PROBLEM] = 5
    """Number of classes, K."""
    samples_per_class: Annotated[str, PROBLEM] = "10"
    """Samples per class, n, or one number for each class: 9,1,4,2."""
    feature_dim: Annotated[int | None, PROBLEM] = 3
    """Dimension of the features, d. Below K - 1 there may be several minima."""
    lambda_w: Annotated[float, DECAYS] = 1e-3
    """Weight decay of the classifier."""
    lambda_h: Annotated[float, DECAYS] = 1e-4
    """Weight decay of the features."""


def explore(
    *,
    choices: Annotated[FiveInSpace, Parameter(name="*")] = FiveInSpace(),
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
