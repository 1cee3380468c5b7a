"""What the tables of a page hold, as text: before and after, the runs, every column, how a run was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuralcollapse.durations import duration
from neuralcollapse.figures.names import title
from neuralcollapse.geometry.change import movement
from neuralcollapse.geometry.measures import HEADLINE, MEASURES
from neuralcollapse.geometry.tables import BOUNDED
from neuralcollapse.report.history import History
from neuralcollapse.report.template import number
from neuralcollapse.train.command import DATA, command_of

_FACTS = ("dataset", "model", "optimizer", "learning_rate", "weight_decay", "feature_decay", "batch_size", "epochs",
          "head", "feature_dim", "precision", "seed")  # fmt: skip
_ACCURACIES = ("train_accuracy", "test_accuracy")


def before_after(history: History) -> list[dict[str, str]]:
    """A row per measure of the headline and per accuracy: before, after, on test data, and the ideal."""
    rows = []
    for name in HEADLINE:
        before, after = history.first(name), history.last(name)
        if after is None:
            continue
        way, size = movement(before, after)
        change = {"stayed": "unchanged", "unknown": ""}.get(way, f"{way} {size}")
        rows.append(
            {"title": title(name), "meaning": MEASURES[name].meaning, "before": number(before), "after": number(after),
             "test": _dated(history, f"test_{name}"), "way": way, "change": change,
             "ideal": ideal(name, history)}
        )  # fmt: skip
    measured = any(history.last(f"test_{name}") is not None for name in HEADLINE)
    for name in _ACCURACIES[:1] if measured else _ACCURACIES:
        if history.last(name) is not None:
            rows.append(
                {"title": "Accuracy" if measured else title(name).capitalize(),
                 "meaning": "Share of samples classified correctly.", "way": "",
                 "before": percent(history.first(name)), "after": _dated(history, name), "change": "",
                 "test": _dated(history, "test_accuracy"), "ideal": "100%"}
            )  # fmt: skip
    return rows


def heads(histories: Sequence[History]) -> list[str]:
    """Headings of the table of several runs."""
    return ["Run", next(iter(histories[0].metrics)), *(title(name) for name in _ends(histories))]


def row(history: History, histories: Sequence[History]) -> list[str]:
    """Where one of several runs ended, under :func:`heads`."""
    cells = [history.name, number(history.last(next(iter(history.metrics))))]
    for name in _ends(histories):
        cells.append(_dated(history, name))
    return cells


def _ends(histories: Sequence[History]) -> list[str]:
    wanted = (*HEADLINE, *_ACCURACIES)
    return [name for name in wanted if any(history.last(name) is not None for history in histories)]


def others(history: History) -> list[tuple[str, ...]]:
    """Every column, before and after, or once, with the ideal of those that are measures."""
    once = len(next(iter(history.metrics.values()))) == 1
    return [
        (
            title(name),
            *(() if once else (_shown(name, history.first(name), 4),)),
            _dated(history, name, 4),
            ideal(name, history) if name in MEASURES else "",
        )
        for name in list(history.metrics)[1:]
        if history.last(name) is not None
    ]


def made(history: History, place: int) -> dict[str, Any]:
    """How a run was made: facts, its whole configuration, and the command that repeats it."""
    config = {name: value for name, value in history.config.items() if value is not None}
    facts = [(name.replace("_", " "), config[name]) for name in _FACTS if name in config]
    if history.shape is not None:
        facts += [("classes", history.shape[0]), ("dimension of the features", history.shape[1])]
    steps = next(iter(history.metrics.values()))
    facts.append(("measured", f"{len(steps)} times" if len(steps) > 1 else "once"))
    if seconds := history.last("seconds"):
        facts.append(("time, with measuring", duration(seconds)))
    if history.version:
        facts.append(("neuralcollapse version", history.version))
    command = command_of(history.config, history.name)
    caution = f", where {DATA} is the folder of your data sets" if DATA in command else ""
    return {
        "id": f"command-{place}", "name": history.name, "facts": facts, "command": command, "caution": caution,
        "config": [(name.replace("_", " "), value) for name, value in config.items() if name not in _FACTS],
    }  # fmt: skip


def ideal(name: str, history: History) -> str:
    """The value of a measure at perfect collapse, as a number or in words; a bound where there is no simplex."""
    if history.lowest > 0 and name in BOUNDED:
        return f"≥ {number(history.lowest)}"
    found = MEASURES[name].ideal
    return found if isinstance(found, str) else number(found)


def _dated(history: History, name: str, digits: int = 3) -> str:
    """The last value of a column, and when that was, where others were measured later."""
    text, when = _shown(name, history.last(name), digits), history.earlier(name)
    return f"{text} ({when})" if when else text


def _shown(name: str, value: float | int | None, digits: int) -> str:
    return percent(value) if name.endswith("accuracy") else number(value, digits)


def percent(value: float | int | None) -> str:
    """A share as a table shows it."""
    return "–" if value is None else f"{value:.1%}"
