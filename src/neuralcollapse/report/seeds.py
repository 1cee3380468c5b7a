"""Runs that differ only in their seed are one experiment, drawn as a band."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from neuralcollapse.report.history import History, numbered
from neuralcollapse.train.config import PLACE_OF_A_RUN

_WORD = re.compile(r"[-_ (]*seed[-_ ]?\d+\)?")
"""The seed in the name of a run, behind that word."""
_NUMBER = re.compile(r"[-_ (]*\d+\)?$")
"""The seed at the end of a name that does not say the word."""


def by_experiment(histories: Sequence[History]) -> dict[str, list[History]]:
    """Groups of runs by a name; a run without a configuration or without a seed stands alone.

    A group holds each seed once. Runs of one seed differ in what their configurations do not say: then their names
    decide, read without the seed. So they do where configurations say nothing but the seed, and all names say it too.
    Groups of equal names get a number.

    >>> runs = [History(f"mlp-seed{s}", {"epoch": [0]}, {"model": "mlp", "seed": s}) for s in (0, 1)]
    >>> list(by_experiment(runs))
    ['mlp (2 seeds)']
    """
    found = [
        group
        for alike in _apart(histories, _experiment)
        for named in ([alike] if _alike_in_name(alike) else _apart(alike, lambda run: _without_seed(run.name)))
        for group in ([named] if _each_seed_once(named) else [[run] for run in named])
    ]
    places = {id(history): place for place, history in enumerate(histories)}
    found.sort(key=lambda group: places[id(group[0])])
    return dict(zip(numbered([_name(group) for group in found]), found, strict=True))


def _apart(histories: Sequence[History], key: Callable[[History], str]) -> list[list[History]]:
    groups: dict[str, list[History]] = {}
    for history in histories:
        groups.setdefault(key(history), []).append(history)
    return list(groups.values())


def _experiment(history: History) -> str:
    """What the configuration says, but for the seed and the place; the run itself where it says no seed."""
    if "seed" not in history.config:
        return f"alone {id(history)}"
    kept = {name: value for name, value in history.config.items() if name not in {*PLACE_OF_A_RUN, "seed"}}
    return json.dumps(kept, sort_keys=True, default=str)


def _without_seed(name: str) -> str:
    return _WORD.sub("", name) if _WORD.search(name) else _NUMBER.sub("", name)


def _alike_in_name(group: Sequence[History]) -> bool:
    described = any(set(history.config) - {*PLACE_OF_A_RUN, "seed"} for history in group)
    return _each_seed_once(group) and (described or not all(_WORD.search(history.name) for history in group))


def _each_seed_once(group: Sequence[History]) -> bool:
    seeds = [str(history.config.get("seed")) for history in group]
    return len(set(seeds)) == len(seeds)


def _name(group: Sequence[History]) -> str:
    if len(group) == 1:
        return group[0].name
    names = [history.name for history in group]
    if len(stems := {_without_seed(name) for name in names}) == 1 and (stem := stems.pop()):
        return f"{stem} ({len(group)} seeds)"
    shared = names[0]
    while not all(name.startswith(shared) for name in names):
        shared = shared[:-1]
    if all(name[len(shared) :][:1].isdigit() for name in names):
        shared = shared.rstrip("0123456789")  # they begin a number that the names do not share
    stem = re.sub(r"[-_ (]+(seed)?[-_ ]*$", "", shared)
    return f"{stem or names[0]} ({len(group)} seeds)"
