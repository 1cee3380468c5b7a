"""Runs that differ only in their seed are one experiment, drawn as a band."""

from __future__ import annotations

import json
from collections.abc import Sequence

from neuralcollapse.report.history import History, numbered
from neuralcollapse.train.config import PLACE_OF_A_RUN


def by_experiment(histories: Sequence[History]) -> dict[str, list[History]]:
    """Groups of runs by a name; a run without a configuration or without a seed stands alone.

    Groups of equal names get a number.

    >>> runs = [History(f"mlp-seed{s}", {"epoch": [0]}, {"model": "mlp", "seed": s}) for s in (0, 1)]
    >>> list(by_experiment(runs))
    ['mlp (2 seeds)']
    """
    groups: dict[str | int, list[History]] = {}
    for history in histories:
        kept = {name: value for name, value in history.config.items() if name not in {*PLACE_OF_A_RUN, "seed"}}
        alone = "seed" not in history.config
        key: str | int = len(groups) if alone else json.dumps(kept, sort_keys=True, default=str)
        groups.setdefault(key, []).append(history)
    names = numbered([_name(group) for group in groups.values()])
    return dict(zip(names, groups.values(), strict=True))


def _name(group: Sequence[History]) -> str:
    if len(group) == 1:
        return group[0].name
    names = [history.name for history in group]
    shared = names[0]
    while not all(name.startswith(shared) for name in names):
        shared = shared[:-1]
    stem = shared.rstrip("-_ 0123456789").removesuffix("seed").rstrip("-_ ")
    return f"{stem or names[0]} ({len(group)} seeds)"
