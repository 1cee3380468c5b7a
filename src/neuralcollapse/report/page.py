"""The report of one or more runs: one HTML page that opens offline."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

import neuralcollapse
from neuralcollapse.figures.curves import Columns, accuracy_panel, curves, measure_panel
from neuralcollapse.figures.look import log_axis
from neuralcollapse.figures.names import title
from neuralcollapse.files import write_text
from neuralcollapse.geometry.change import movement
from neuralcollapse.geometry.measures import HEADLINE, MEASURES
from neuralcollapse.report.geometry import geometry
from neuralcollapse.report.headline import accuracies, comparison, headline, lead
from neuralcollapse.report.history import History, read_histories
from neuralcollapse.report.layers import layers_figure
from neuralcollapse.report.seeds import by_experiment
from neuralcollapse.report.template import number, render
from neuralcollapse.report.theory import Certify, theory_of
from neuralcollapse.train.command import DATA, command_of

_FACTS = ("dataset", "model", "optimizer", "learning_rate", "weight_decay", "feature_decay", "batch_size", "epochs",
          "head", "feature_dim", "seed")  # fmt: skip


class RunSkipped(UserWarning):
    """A folder among several was left out of a report."""


def write_report(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    classes: Sequence[int] | None = None,
    certify: Certify | None = None,
) -> Path:
    """Write the page of one or more runs; returns its path.

    Args:
        folders: run folders; the curves of several overlay, and their geometry is shown one at a time.
        output: the page.
        classes: two to four classes for the view in space; the first four by default.
        certify: compares a single run with the theory, where the page should show that.

    Raises:
        FileNotFoundError: if no folder holds a run.
        ValueError: if a single run has nothing to draw yet or is damaged, or a class is not among those sampled.
        WriteError: if the page cannot be written.

    Warns:
        RunSkipped: for each folder among several that was left out, and why.
    """
    histories, skipped = read_histories(folders, classes)
    for sentence in skipped:
        warnings.warn(sentence, RunSkipped, stacklevel=2)
    theory = theory_of(Path(folders[0]), certify) if certify and len(folders) == 1 else None
    return write_page(histories, output, skipped=skipped, theory=theory)


def write_page(
    histories: Sequence[History],
    output: str | Path,
    *,
    skipped: Sequence[str] = (),
    theory: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of histories, whatever made them; returns its path.

    Args:
        histories: at least one, with the measured columns.
        output: the page.
        skipped: a sentence about each run that was left out.
        theory: ``sentence``, ``rows`` and ``fitted`` of the comparison with the unconstrained feature model.
    """
    single = len(histories) == 1
    first = histories[0]
    groups: dict[str, Sequence[Columns]] = {
        name: [run.metrics for run in group] for name, group in by_experiment(histories).items()
    }
    section = geometry(histories)
    panels, shown = _panels(groups)
    drops = _rate_drops(first.metrics) if single else []
    for panel in panels.values():
        for epoch in drops:
            panel.add_vline(x=epoch, line={"width": 1, "dash": "dot", "color": "#8a8f98"})
    figures = section["figures"] | panels
    by_layer = layers_figure(first.metrics)
    if by_layer is not None:
        figures["layers"] = by_layer
    step = next(iter(first.metrics))
    text = render(
        "report.html",
        title=f"Neural collapse: {_names(histories)}",
        figures=figures,
        data=section["data"],
        scripts=section["scripts"],
        eyebrow=_names(histories),
        headline=headline(first) if single else comparison(histories),
        lead=[accuracies(first), *lead(first)] if single else _several(histories),
        single=single,
        step=step,
        first_step=number(first.first(step)),
        last_step=number(first.last(step)),
        rows=_before_after(first),
        heads=_heads(histories),
        table=[_row(history) for history in histories],
        skipped=skipped,
        shown=section["shown"],
        maps=section["maps"],
        groups=list(groups),
        banded=any(len(group) > 1 for group in groups.values()),
        tested=any(name.startswith("test_nc") for name in first.metrics),
        drops=drops,
        curves=shown,
        layers=by_layer is not None,
        theory=theory,
        made=[_made(history, place) for place, history in enumerate(histories)],
        others=_others(first),
        version=neuralcollapse.__version__,
    )
    return write_text(output, text)


def _names(histories: Sequence[History]) -> str:
    names = [history.name for history in histories]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


def _several(histories: Sequence[History]) -> list[str]:
    fell = [history for history in histories if movement(history.first("nc1"), history.last("nc1"))[0] == "fell"]
    return [
        f"NC1, the spread of features within a class relative to the spread between classes, fell in {len(fell)} of "
        f"{len(histories)} runs. It is zero at perfect collapse."
    ]


# ---- tables ----------------------------------------------------------------------------------------


def _before_after(history: History) -> list[dict[str, str]]:
    rows = []
    for name in HEADLINE:
        before, after = history.first(name), history.last(name)
        if after is None:
            continue
        way, size = movement(before, after)
        change = {"stayed": "unchanged", "unknown": ""}.get(way, f"{way} {size}")
        rows.append(
            {"title": title(name), "meaning": MEASURES[name].meaning, "before": number(before), "after": number(after),
             "way": way, "change": change, "ideal": _ideal(name)}
        )  # fmt: skip
    for name in ("train_accuracy", "test_accuracy"):
        if history.last(name) is not None:
            rows.append(
                {"title": title(name).capitalize(), "meaning": "share of samples classified correctly", "way": "",
                 "before": _percent(history.first(name)), "after": _percent(history.last(name)), "change": "",
                 "ideal": "100%"}
            )  # fmt: skip
    return rows


def _ends(histories: Sequence[History]) -> list[str]:
    wanted = (*HEADLINE, "train_accuracy", "test_accuracy")
    return [name for name in wanted if any(history.last(name) is not None for history in histories)]


def _heads(histories: Sequence[History]) -> list[str]:
    return ["Run", next(iter(histories[0].metrics)), *(title(name) for name in _ends(histories))]


def _row(history: History) -> list[str]:
    cells = [history.name, number(history.last(next(iter(history.metrics))))]
    for name in _ends([history]):
        value = history.last(name)
        cells.append(_percent(value) if name.endswith("accuracy") else number(value))
    return cells


def _ideal(name: str) -> str:
    found = MEASURES[name].ideal
    return found if isinstance(found, str) else number(found)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _others(history: History) -> list[tuple[str, str, str, str]]:
    """Every column, with the ideal of those that are measures."""
    return [
        (
            title(name),
            number(history.first(name), 4),
            number(history.last(name), 4),
            _ideal(name) if name in MEASURES else "",
        )
        for name in list(history.metrics)[1:]
        if history.last(name) is not None
    ]


def _made(history: History, place: int) -> dict[str, Any]:
    config = {name: value for name, value in history.config.items() if value is not None}
    facts = [(name.replace("_", " "), config[name]) for name in _FACTS if name in config]
    if history.version:
        facts.append(("neuralcollapse version", history.version))
    if not facts and not config:
        facts = [("columns", ", ".join(history.metrics))]
    command = command_of(history.config, history.name)
    caution = f", where {DATA} is the folder of your data sets" if DATA in command else ""
    return {
        "id": f"command-{place}", "name": history.name, "facts": facts, "command": command, "caution": caution,
        "config": [(name.replace("_", " "), value) for name, value in config.items()],
    }  # fmt: skip


# ---- figures ---------------------------------------------------------------------------------------


def _panels(groups: Mapping[str, Sequence[Columns]]) -> tuple[dict[str, go.Figure], list[tuple[str, str, str]]]:
    """Figures by id, and for each its id, title and one line about it."""
    names = {name for group in groups.values() for columns in group for name in columns}
    figures: dict[str, go.Figure] = {}
    shown: list[tuple[str, str, str]] = []

    def add(id: str, figure: go.Figure, heading: str, text: str) -> None:
        figure.update_layout(showlegend=False)
        figures[id] = figure
        shown.append((id, heading, text))

    for name in HEADLINE:
        if name in names:
            panel = measure_panel(groups, name)
            if f"test_{name}" in names:
                panel.add_traces(curves(groups, f"test_{name}", logarithmic=True, dash="dash").data)
                panel.update_yaxes(**log_axis(value for trace in panel.data for value in trace.y))
            add(
                name,
                panel,
                MEASURES[name].title,
                MEASURES[name].meaning,
            )
    if names & {"train_accuracy", "test_accuracy"}:
        add("accuracy", accuracy_panel(groups), "Accuracy", "Solid: training data. Dashed: test data.")
    if "train_loss" in names:
        panel = measure_panel(groups, "train_loss", axis="training loss")
        add("loss", panel, "Training loss", "Average over the epoch, without weight decay.")
    return figures, shown


def _rate_drops(columns: Columns) -> list[float]:
    """Where the learning rate fell; none where it falls all the time."""
    rates = columns.get("learning_rate")
    if rates is None:
        return []
    pairs = [(x, rate) for x, rate in zip(next(iter(columns.values())), rates, strict=True) if rate is not None]
    drops = [
        float(before[0])
        for before, after in itertools.pairwise(pairs)
        if before[0] is not None and after[1] < 0.75 * before[1]
    ]
    return drops if len(drops) <= 8 else []
