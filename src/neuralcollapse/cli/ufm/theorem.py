"""``neuralcollapse ufm theorem``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import writable, write_json


def theorem(*, points: int = 200, max_classes: int = 5, seed: int = 0, json: Path | None = None) -> None:
    """Check each step of the proof that every critical point is a global minimum or a strict saddle.

    The paper proves it for d > K. For cross-entropy it holds for every d of at least K-1, and for squared error and
    binary cross-entropy for d of at least K. This command finds critical points from random starts, with equal and
    unequal classes, and measures the error in each equation of the proof.

    For example:
      neuralcollapse ufm theorem
      neuralcollapse ufm theorem --points 1000 --seed 17 --json theorem.json

    Args:
        points: Number of critical points to check.
        max_classes: Largest number of classes, K.
        seed: Seed of the problems and starts.
        json: Write what was found to this file as well.
    """
    path = writable(json, "--json")
    from neuralcollapse.ufm.theorem import check_theorem

    found = check_theorem(points, max_classes=max_classes, seed=seed)
    print(found)
    write_json(path, found.to_dict())
