"""``neuralcollapse ufm conjecture``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import writable, write_json


def conjecture(*, trials: int = 200, max_classes: int = 6, seed: int = 0, json: Path | None = None) -> None:
    """Search for a counterexample to the paper's conjecture for d = K: a local minimum that is not global.

    For example:
      neuralcollapse ufm conjecture --trials 50
      neuralcollapse ufm conjecture --max-classes 8 --seed 1 --json found.json

    Args:
        trials: Number of random problems and starts.
        max_classes: Largest number of classes, K.
        seed: Seed of the search.
        json: Write what was found to this file as well.
    """
    path = writable(json, "--json")
    from neuralcollapse.ufm.conjecture import search

    found = search(trials, max_classes=max_classes, seed=seed)
    print(found)
    write_json(path, found.to_dict())
