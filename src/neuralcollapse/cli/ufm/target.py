"""``neuralcollapse ufm target``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.cli.ufm.classes import ClassOptions


def target(*, choices: ClassOptions, json: Path | None = None) -> None:
    """Show the classifier and class means that these class sizes and decays imply.

    Prints, for each class, the norm |w| of its row of W and the norm |mean| of its centred class mean, both relative
    to the largest; then the most similar other class, which has the largest cosine between the rows of W and is the
    one most easily confused with it. With both --lambda-w 0 and --lambda-h 0: the limit of no decay (SELI).

    For example:
      neuralcollapse ufm target --counts 500,50,5
      neuralcollapse ufm target --counts 500,50,5 --lambda-w 0 --lambda-h 0
      neuralcollapse ufm target --counts 30,30,2,2 --loss mse --no-bias --json target.json

    Args:
        json: Write everything, Gram matrices too, to this file as well.
    """
    path = writable(json, "--json")
    sizes = choices.sizes()
    from neuralcollapse.ufm import target_geometry

    found = target_geometry(sizes, **choices.lambdas())
    print(found)
    write_json(path, found.to_dict())
