"""Measures over training: one curve per run, or a band for runs that differ only in their seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neuralcollapse.figures.look import checked_names, colour, label, laid_out, log_axis, positive, see_through
from neuralcollapse.figures.names import title
from neuralcollapse.geometry.measures import HEADLINE

if TYPE_CHECKING:
    import plotly.graph_objects as go

Columns = Mapping[str, Sequence[float | int | None]]
"""Columns of a run by name; the first is what the curves are drawn against."""


def plot_measures(history: Any, names: Sequence[str] | None = None, *, backend: str = "plotly") -> Any:
    """Draw measures of collapse against the epoch, each on its own logarithmic axis.

    Args:
        history: the columns of one run (a mapping or a pandas DataFrame, the first column being the epoch or
            step), or a mapping from the name of each run to its columns. A list of columns as the value of a
            name is drawn as a band from the smallest to the largest value, with the median.
        names: the columns to draw; NC1 to NC4 by default, as far as the runs have them.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Returns:
        A ``plotly.graph_objects.Figure``, or a ``matplotlib.figure.Figure``.

    Raises:
        ValueError: if the history has no rows, or a name or the backend is unknown.
        ImportError: if matplotlib is asked for and not installed.

    >>> figure = plot_measures({"epoch": [0, 1], "nc1": [3.0, 0.1], "nc2": [0.5, 0.2]})
    >>> [trace.name for trace in figure.data]
    ['NC1', 'NC2']
    """
    from plotly.subplots import make_subplots

    from neuralcollapse.figures.backend import on_backend

    runs = runs_of(history)
    shown = _shown(runs, names)
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    gap = {"vertical_spacing": 0.34 / rows, "horizontal_spacing": 0.12}
    figure = make_subplots(rows, columns, subplot_titles=[title(name) for name in shown], **gap)
    for place, name in enumerate(shown):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        panel = measure_panel(runs, name)
        for trace in panel.data:
            trace.update(showlegend=bool(trace.showlegend) and place == 0)
            figure.add_trace(trace, **at)
        figure.update_yaxes(**panel.layout.yaxis.to_plotly_json(), **at)
        figure.update_xaxes(title_text=panel.layout.xaxis.title.text, **at)
    figure = laid_out(figure, 60 + 260 * rows)
    named = len(runs) if len(runs) > 1 else 0
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
    figure.update_layout(
        margin={"t": 40, "b": 48 + 12 * named}, height=figure.layout.height + 12 * named, legend=legend
    )
    return on_backend(figure, backend)


def measure_panel(runs: Mapping[str, Sequence[Columns]], name: str, *, axis: str | None = None) -> go.Figure:
    """One measure of all runs on a titled logarithmic axis."""
    figure = curves(runs, name, logarithmic=True)
    every = [value for group in runs.values() for columns in group for value in columns.get(name, ())]
    figure.update_yaxes(title_text=axis or title(name), **log_axis(every))
    return laid_out(figure, 300)


def accuracy_panel(runs: Mapping[str, Sequence[Columns]]) -> go.Figure:
    """Training accuracy (solid) and test accuracy (dashed) of all runs."""
    figure = curves(runs, "train_accuracy")
    for trace in curves(runs, "test_accuracy", dash="dash").data:
        trace.showlegend = False
        figure.add_trace(trace)
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", nticks=5)
    laid_out(figure, 300)
    if len(runs) > 1:
        figure.update_layout(legend={"orientation": "h", "y": -0.25})
    return figure


def curves(
    runs: Mapping[str, Sequence[Columns]], name: str, *, logarithmic: bool = False, dash: str = "solid"
) -> go.Figure:
    """The curves of a column, and bands where a name stands for several runs."""
    import plotly.graph_objects as go

    figure = go.Figure()
    several = len(runs) > 1
    for index, (run, group) in enumerate(runs.items()):
        group = [columns for columns in group if any(value is not None for value in columns.get(name, ()))]
        if not group:
            continue
        shared = {"legendgroup": str(index), "hovertemplate": f"{label(run) if several else title(name)}: %{{y:.4g}}"}
        x, *bounds = _band(group, name)
        low, middle, high = (positive(values) if logarithmic else values for values in bounds)
        if len(group) > 1:
            edge = {"width": 0, "color": colour(index)}
            common = {"mode": "lines", "line": edge, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=x, y=high, legendgroup=str(index), name="largest", **common)
            figure.add_scatter(
                x=x, y=low, legendgroup=str(index), name="smallest", fill="tonexty",
                fillcolor=see_through(index, 0.22), **common,
            )  # fmt: skip
        figure.add_scatter(
            x=x, y=middle, name=label(run) if several else title(name), mode="lines+markers" if len(x) < 8 else "lines",
            line={"color": colour(index), "width": 2.5, "dash": dash}, showlegend=several, **shared,
        )  # fmt: skip
        figure.data[-1].hovertemplate += f"<extra>{axis_name(group[0])} %{{x:g}}</extra>"
    first = next(iter(runs.values()))[0]
    figure.update_xaxes(title_text=axis_name(first), zeroline=False, nticks=6)
    figure.update_yaxes(zeroline=False)
    return figure


def axis_name(columns: Columns) -> str:
    """Name of the column that the curves are drawn against."""
    return label(next(iter(columns)))


def runs_of(history: Any) -> dict[str, list[Columns]]:
    """The runs behind whatever the caller has: columns, a DataFrame, or either by name.

    Raises:
        ValueError: if there are no rows.
    """
    if hasattr(history, "to_frame"):
        history = history.to_frame()
    if hasattr(history, "columns") and hasattr(history, "to_dict"):
        history = history.reset_index(drop=True).to_dict("list")
    if not isinstance(history, Mapping) or not history:
        raise ValueError(f"history is a {type(history).__name__} without columns: give at least an epoch and a measure")
    values = list(history.values())
    if all(isinstance(value, Mapping) or _is_group(value) or hasattr(value, "columns") for value in values):
        groups = {str(name): value if _is_group(value) else [value] for name, value in history.items()}
        return {name: [runs_of(run)[""][0] for run in group] for name, group in groups.items()}
    columns = {str(name): [_number(value) for value in column] for name, column in history.items()}
    if not next(iter(columns.values())):
        raise ValueError("history has no rows yet: there is nothing to draw")
    return {"": [columns]}


def _is_group(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _number(value: Any) -> float | None:
    """A number; None for what is missing or no finite number."""
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _shown(runs: Mapping[str, Sequence[Columns]], names: Sequence[str] | None) -> list[str]:
    known = dict.fromkeys(name for group in runs.values() for columns in group for name in list(columns)[1:])
    if names is not None:
        return checked_names(names, known, "names")
    shown = [name for name in HEADLINE if name in known]
    if not shown:
        raise ValueError(f"history has none of {', '.join(HEADLINE)}: choose columns with names=")
    return shown


def _band(
    group: Sequence[Columns], name: str
) -> tuple[list[float | int], list[float | int | None], list[float | int | None], list[float | int | None]]:
    """x, and the smallest, median and largest value of the runs there; a gap where it is undefined for all of them."""
    at: dict[float, list[float]] = {}
    for columns in group:
        for x, value in zip(next(iter(columns.values())), columns[name], strict=True):
            if x is not None and value is not None:
                at.setdefault(x, []).extend([value] if math.isfinite(value) else [])
    xs = sorted(at)
    return (
        xs,
        [min(at[x], default=None) for x in xs],
        [statistics.median(at[x]) if at[x] else None for x in xs],
        [max(at[x], default=None) for x in xs],
    )
