"""The report of one or more runs: one HTML page that opens offline."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

import neuralcollapse
from neuralcollapse.figures.curves import Columns, accuracy_panel, curves, measure_panel
from neuralcollapse.figures.look import log_axis
from neuralcollapse.files import write_text
from neuralcollapse.geometry.change import movement
from neuralcollapse.geometry.measures import HEADLINE, MEASURES
from neuralcollapse.report.geometry import geometry
from neuralcollapse.report.headline import comparison, headline, lead, verdict
from neuralcollapse.report.history import History, read_histories, warn_of
from neuralcollapse.report.layers import layers_figure
from neuralcollapse.report.seeds import by_experiment
from neuralcollapse.report.tables import before_after, heads, made, others, row
from neuralcollapse.report.template import number, render
from neuralcollapse.report.theory import theory_of
from neuralcollapse.train.command import command_of


def write_report(
    folders: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    classes: Sequence[int] | None = None,
) -> Path:
    """Write the page of one or more runs; returns its path. It is what ``neuralcollapse report`` writes.

    A single run is also compared with the optimum of the unconstrained feature model, where its config.yaml has the
    ``optimizer`` and a ``weight_decay`` above zero.

    Args:
        folders: a run folder or several; the curves of several overlay, and their geometry is shown one at a time.
        output: the page.
        classes: two to four of the first ten classes for the view in space; by default the first four with samples.

    Raises:
        FileNotFoundError: if no folder holds a run.
        ValueError: if a single run has nothing to draw yet or is damaged, or a class is not among those sampled.
        WriteError: if the page cannot be written.

    Warns:
        RunSkipped: for the folders among several that were left out, and why: once for each reason.
    """
    folders = [folders] if isinstance(folders, str | Path) else list(folders)
    if not folders:
        raise ValueError("folders=[] names no run: give a run folder, or a list of them")
    histories, skipped = read_histories(folders, classes)
    warn_of(skipped)
    theory = theory_of(Path(folders[0]), histories[0].config) if len(folders) == 1 else None
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
    panels, shown = _panels(groups, own_loop=not all(command_of(run.config, run.name) for run in histories))
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
        verdict=verdict(first) if single else "",
        lead=lead(first) if single else _several(histories),
        single=single,
        step=step,
        once=len(first.metrics[step]) == 1,
        first_step=number(first.first(step)),
        last_step=number(first.last(step)),
        rows=before_after(first),
        heads=heads(histories),
        table=[row(history, histories) for history in histories],
        skipped=skipped,
        shown=section["shown"],
        maps=section["maps"],
        groups=list(groups),
        banded=any(len(group) > 1 for group in groups.values()),
        tested=first.last("test_nc1") is not None,
        drops=drops,
        curves=shown,
        layers=by_layer is not None,
        theory=theory,
        made=[made(history, place) for place, history in enumerate(histories)],
        others=others(first),
        version=neuralcollapse.__version__,
    )
    return write_text(output, text)


def _names(histories: Sequence[History]) -> str:
    names = [history.name for history in histories]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


def _several(histories: Sequence[History]) -> list[str]:
    trained = [history for history in histories if len(next(iter(history.metrics.values()))) > 1]
    if not trained:
        return [
            "NC1 is the spread of features within a class relative to the spread between classes. It is zero at "
            "perfect collapse."
        ]
    fell = [history for history in trained if movement(history.first("nc1"), history.last("nc1"))[0] == "fell"]
    return [
        f"NC1, the spread of features within a class relative to the spread between classes, fell in {len(fell)} of "
        f"{len(trained)} runs. It is zero at perfect collapse."
    ]


# ---- figures ---------------------------------------------------------------------------------------


def _panels(
    groups: Mapping[str, Sequence[Columns]], *, own_loop: bool
) -> tuple[dict[str, go.Figure], list[tuple[str, str, str]]]:
    """Figures by id, and for each its id, title and one line about it; none of a column without values."""
    names = {
        name
        for group in groups.values()
        for columns in group
        for name, values in columns.items()
        if any(value is not None for value in values)
    }
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
            add(name, panel, MEASURES[name].title, MEASURES[name].meaning)
    if names & {"train_accuracy", "test_accuracy"}:
        both = names >= {"train_accuracy", "test_accuracy"}
        text = "Solid: training data. Dashed: test data." if both else "Share of samples classified correctly."
        add("accuracy", accuracy_panel(groups), "Accuracy", text)
    if "train_loss" in names:
        panel = measure_panel(groups, "train_loss", axis="training loss")
        text = "As the training loop recorded it." if own_loop else "Average over the epoch, without weight decay."
        add("loss", panel, "Training loss", text)
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
