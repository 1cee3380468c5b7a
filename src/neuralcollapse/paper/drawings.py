"""What is drawn of each figure of the paper, and the theory's optimum beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuralcollapse.paper.norms import Comparison
from neuralcollapse.paper.outcome import Outcome, groups
from neuralcollapse.paper.rules import NAMES
from neuralcollapse.report.figures import COLOURS, accuracy_figure, curves_figure, laid_out
from neuralcollapse.report.history import History

SIZES = {
    "weight": "‖W‖, classifier",
    "features": "‖H̄‖, centred class means",
    "loss": "cross-entropy",
}


def draw(figure: str, runs: Sequence[Outcome], theory: Mapping[str, Comparison]) -> dict[str, go.Figure]:
    """Drawings of a figure by title; runs without a measured epoch are left out.

    Args:
        figure: its name, such as ``figure3``.
        runs: all of its runs.
        theory: comparisons of some of the runs with the theory, by name.
    """
    begun = [run for run in runs if run.rows]
    drawings: dict[str, go.Figure] = {}
    if figure == "figure5":
        if begun:
            drawings["over widths, after the last epoch"] = widths_figure(begun)
    else:
        for key, group in groups(begun).items():
            histories = [_history(run) for run in group]
            if figure != "figure4":
                drawings[f"{key}: collapse"] = curves_figure(histories)
            if figure != "figure3":
                drawings[f"{key}: accuracy"] = accuracy_figure(histories)
    if figure == "figure4":
        return drawings
    for key, group in groups(begun).items():
        compared = {run.experiment.name: theory[run.experiment.name] for run in group if run.experiment.name in theory}
        if compared:
            drawings[f"{key}: the network and the theory's optimum (dotted)"] = norms_figure(compared)
    return drawings


def _history(run: Outcome) -> History:
    names = dict.fromkeys(name for row in run.rows for name in row)
    return History(run.experiment.name, {}, {name: [row.get(name) for row in run.rows] for name in names}, (), [])


def widths_figure(runs: Sequence[Outcome]) -> go.Figure:
    """NC1 to NC3 and training error at the last measured epoch against width, a line a model."""
    figure = make_subplots(2, 2, subplot_titles=list(_PANELS.values()), vertical_spacing=0.16)
    for index, (key, group) in enumerate(groups(runs).items()):
        for place, name in enumerate(_PANELS):
            last = [run.rows[-1] for run in group]
            figure.add_scatter(
                x=[run.experiment.width for run in group],
                y=[1 - row["train_accuracy"] if name == "train_error" else row[name] for row in last],
                name=key,
                line={"color": COLOURS[index], "width": 2},
                mode="lines+markers",
                legendgroup=key,
                showlegend=place == 0,
                row=place // 2 + 1,
                col=place % 2 + 1,
            )
    figure.update_xaxes(type="log", dtick=0.30103, title_text="width", tickformat="~r")
    figure.update_yaxes(type="log", exponentformat="power", nticks=6)
    figure.update_yaxes(type="linear", tickformat=".0%", row=2, col=2)
    return laid_out(figure, 560)


_PANELS = {name: NAMES[name] for name in ("nc1", "nc2", "nc3", "train_error")}


def norms_figure(compared: dict[str, Comparison]) -> go.Figure:
    """Norms and loss over epochs (solid), and at the unconstrained model's optimum (dotted), a colour a run."""
    figure = make_subplots(1, 3, subplot_titles=list(SIZES.values()), horizontal_spacing=0.08)
    for index, (name, comparison) in enumerate(compared.items()):
        line = {"color": COLOURS[index % len(COLOURS)], "width": 2}
        for column, size in enumerate(SIZES, start=1):
            figure.add_scatter(
                x=comparison.epochs, y=[getattr(norms, size) for norms in comparison.measured],
                mode="lines", name=name, legendgroup=name, showlegend=column == 1, line=line, row=1, col=column,
            )  # fmt: skip
            if comparison.last is not None:
                figure.add_scatter(
                    x=[comparison.epochs[0], comparison.epochs[-1]], y=[getattr(comparison.last.predicted, size)] * 2,
                    mode="lines", line=line | {"dash": "dot"}, legendgroup=name, showlegend=False,
                    name=f"{name}, theory", row=1, col=column,
                )  # fmt: skip
    figure.update_yaxes(type="log", exponentformat="power", nticks=5)
    figure.update_xaxes(title_text="epoch")
    figure = laid_out(figure, 380)
    figure.update_layout(legend={"orientation": "h", "y": -0.25})
    return figure
