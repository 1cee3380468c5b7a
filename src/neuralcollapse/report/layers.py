"""NC1 of inner layers, where a run has the columns ``nc1/LAYER``."""

from __future__ import annotations

import plotly.graph_objects as go

from neuralcollapse.figures import plot_layers
from neuralcollapse.figures.curves import Columns
from neuralcollapse.figures.look import log_axis, positive

_PREFIX = "nc1/"


def layers_figure(columns: Columns) -> go.Figure | None:
    """Before (grey) and after (blue), in the order of the columns; None where there are no such columns."""
    layers = [name for name in columns if name.startswith(_PREFIX)]
    after = _at(columns, layers, -1)
    if not _drawable(after):
        return None
    figure = plot_layers(after)
    first = _at(columns, layers, 0)
    if _drawable(first) and len(next(iter(columns.values()))) > 1:
        before = plot_layers(first).data[0]
        before.update(
            line={"color": "#8a8f98", "width": 2, "dash": "dot"}, hovertemplate="before: %{y:.4g}<extra></extra>"
        )
        figure.add_trace(before)
    figure.update_yaxes(**log_axis(value for trace in figure.data for value in trace.y))
    return figure


def _drawable(layers: dict[str, dict[str, float | None]]) -> bool:
    return any(value is not None for value in positive(row["nc1"] for row in layers.values()))


def _at(columns: Columns, layers: list[str], place: int) -> dict[str, dict[str, float | None]]:
    known = {name: [value for value in columns[name] if value is not None] for name in layers}
    return {name.removeprefix(_PREFIX): {"nc1": values[place] if values else None} for name, values in known.items()}
