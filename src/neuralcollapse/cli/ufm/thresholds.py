"""``neuralcollapse ufm thresholds``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.cli.ufm.classes import ClassOptions


def thresholds(*, choices: ClassOptions, json: Path | None = None) -> None:
    """Say whether the weight decay erases rare classes, and below how many samples.

    Prints the exact threshold, the classes that merge or vanish at the optimum, how many samples would keep them,
    and how much weight decay they can bear.

    For example:
      neuralcollapse ufm thresholds --counts 30,30,30,2,2,2 --lambda-w 0.0173 --lambda-h 0.0173
      neuralcollapse ufm thresholds --counts 500,50,5 --loss mse --no-bias

    Args:
        json: Write the numbers to this file as well.
    """
    path = writable(json, "--json")
    sizes = choices.sizes()
    from neuralcollapse.ufm import collapse_thresholds

    found = collapse_thresholds(sizes, **choices.lambdas())
    print(found)
    write_json(path, found.to_dict())
