"""What is drawn of each figure of the paper: one panel per measure, one colour per variant, a band over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from neuralcollapse.figures.curves import Columns, curves, measure_panel
from neuralcollapse.figures.look import colour, label, laid_out, log_axis
from neuralcollapse.figures.names import title as named
from neuralcollapse.paper.outcome import Outcome, groups, variants
from neuralcollapse.train.optimality import Optimality

Runs = Mapping[str, Sequence[Columns]]
"""Columns of the runs of each variant."""

_HEIGHT = 300
_COLLAPSE = ("nc1", "nc2", "nc3")
_MEASURES = {
    "figure3": (*_COLLAPSE, "nc4", "nc4_relative"),
    "figure4": (),
    "figure6": _COLLAPSE,
    "figure7": ("nc1", "nc3"),
}
"""What each figure of the paper shows besides accuracy."""


@dataclass(frozen=True)
class Drawing:
    """Panels that share their colours."""

    title: str
    legend: tuple[str, ...]
    panels: dict[str, go.Figure]
    """By what each shows."""


def draw(figure: str, runs: Sequence[Outcome]) -> list[Drawing]:
    """The drawings of a figure; runs without a measured epoch are left out.

    Args:
        figure: its name, such as ``figure3``.
        runs: all of its runs.
    """
    begun = [run for run in runs if run.rows]
    if figure == "figure5":
        return [_over_widths(begun)] if begun else []
    return [_over_epochs(figure, key, group) for key, group in groups(begun).items()]


def _over_epochs(figure: str, title: str, group: Sequence[Outcome]) -> Drawing:
    by_variant = {
        name.removeprefix(f"{title}-"): [_columns(run) for run in seeds] for name, seeds in variants(group).items()
    }
    recorded = {name for seeds in by_variant.values() for columns in seeds for name in columns}
    shown = [name for name in _MEASURES[figure] if name in recorded]
    panels = {named(name): _plain(measure_panel(by_variant, name)) for name in shown}
    if figure != "figure3":
        for name in ("train_accuracy", "test_accuracy"):
            panels[name.replace("train_", "Training ").replace("test_", "Test ")] = _accuracy(by_variant, name)
    return Drawing(title, tuple(by_variant), panels)


def _columns(run: Outcome) -> dict[str, list[float | None]]:
    """Measured epochs without the untrained network: the paper's curves begin after training has begun."""
    rows = [row for row in run.rows if row["epoch"] > 0] or run.rows
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _accuracy(runs: Runs, name: str) -> go.Figure:
    figure = curves(runs, name)
    figure.update_yaxes(tickformat="~%", nticks=6)
    return _plain(laid_out(figure, _HEIGHT))


_POWERS = [4**power for power in range(8)]
"""Ticks of the axis of widths."""


def _over_widths(runs: Sequence[Outcome]) -> Drawing:
    """NC1 to NC3 and training error at the last measured epoch against width, one colour per model."""
    by_model = {key: _by_width(group) for key, group in groups(runs).items()}
    widths = [width for group in by_model.values() for columns in group for width in columns["width"]]
    panels = {}
    for name in (*_COLLAPSE, "train_error"):
        if name == "train_error":
            figure = laid_out(curves(by_model, name), _HEIGHT)
            figure.update_yaxes(tickformat="~%", nticks=6, rangemode="tozero")
        else:
            figure = measure_panel(by_model, name)
        figure.update_traces(mode="lines+markers")
        figure.update_xaxes(title_text="width", **log_axis(widths), nticks=None)
        figure.update_xaxes(tickvals=_POWERS, ticktext=[str(tick) for tick in _POWERS])
        panels[named(name)] = _plain(figure)
    return Drawing("after the last epoch, over widths", tuple(by_model), panels)


def _by_width(group: Sequence[Outcome]) -> list[dict[str, list[float | None]]]:
    """One set of columns per seed, a row per width."""
    found = []
    for seeds in groups(group, lambda experiment: str(experiment.seed)).values():
        ordered = sorted(seeds, key=lambda run: run.experiment.width or 0)
        columns: dict[str, list[float | None]] = {"width": [float(run.experiment.width or 0) for run in ordered]}
        for name in _COLLAPSE:
            columns[name] = [run.rows[-1][name] for run in ordered]
        columns["train_error"] = [1 - run.rows[-1]["train_accuracy"] for run in ordered]
        found.append(columns)
    return found


def _plain(figure: go.Figure) -> go.Figure:
    """Without a legend and a title of its own: one legend serves all panels of a drawing, and each has a heading."""
    figure.update_traces(showlegend=False)
    figure.update_yaxes(title_text=None)
    figure.update_layout(margin={"l": 44, "t": 12})
    return figure


def draw_theory(theory: Mapping[str, Optimality]) -> list[Drawing]:
    """Norms of each network against those of the unconstrained model's optimum; on the line they agree."""
    if not theory:
        return []
    by_data: dict[str, dict[str, Optimality]] = {}
    for name, found in theory.items():
        by_data.setdefault("-".join(name.split("-")[:2]), {})[name] = found
    panels = {
        "‖W‖, classifier": _norms(by_data, "weight"),
        "‖H̄‖, centred class means": _norms(by_data, "features"),
    }
    return [Drawing("norms, measured and predicted", tuple(by_data), panels)]


def _norms(by_data: Mapping[str, Mapping[str, Optimality]], name: str) -> go.Figure:
    figure = go.Figure()
    every: list[float] = []
    for index, (data, group) in enumerate(by_data.items()):
        pairs = [(getattr(one.predicted, name), getattr(one.measured, name)) for one in group.values()]
        every += [value for pair in pairs for value in pair if value > 0]
        figure.add_scatter(
            x=[pair[0] for pair in pairs], y=[pair[1] for pair in pairs], mode="markers", text=list(map(label, group)),
            marker={"size": 9, "color": colour(index)}, name=data, showlegend=False,
            hovertemplate="%{text}: %{y:.3g}, theory %{x:.3g}<extra></extra>",
        )  # fmt: skip
    axis = log_axis(every)
    ends = [10.0**end for end in axis["range"]]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": colour(7), "width": 1, "dash": "dot"}, showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip
    figure.update_xaxes(title_text="predicted", zeroline=False, **axis)
    figure.update_yaxes(title_text="measured", zeroline=False, **axis)
    return laid_out(figure, _HEIGHT)
