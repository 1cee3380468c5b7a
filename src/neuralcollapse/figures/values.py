"""The measures of one moment, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralcollapse.figures.look import checked_names, colour, laid_out, log_axis
from neuralcollapse.figures.names import title
from neuralcollapse.geometry.measures import HEADLINE


def plot_values(measures: Any, names: Sequence[str] | None = None, *, backend: str = "plotly") -> Any:
    """Draw the values of several measures as points on one logarithmic axis.

    Args:
        measures: a mapping, or a record with ``to_dict()`` such as ``CollapseMetrics`` or ``CollapseReport``.
        names: the measures to draw; NC1 to NC4 by default.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: if a name is unknown, or no value is positive.
        ImportError: if matplotlib is asked for and not installed.

    >>> plot_values({"nc1": 0.5, "nc2": 0.1}).data[0].x
    (0.5, 0.1)
    """
    import plotly.graph_objects as go

    from neuralcollapse.figures.backend import on_backend

    found: Mapping[str, Any] = measures.to_dict() if hasattr(measures, "to_dict") else measures
    chosen = checked_names(names, found, "names") if names is not None else [n for n in HEADLINE if n in found]
    values = {title(name): float(found[name]) for name in chosen if found[name] is not None and found[name] > 0}
    if not values:
        raise ValueError("measures: none of those to draw has a positive value")
    figure = go.Figure()
    figure.add_scatter(
        x=list(values.values()), y=list(values), mode="markers+text", showlegend=False,
        text=[f"{value:.3g}" for value in values.values()], textposition="middle right",
        marker={"size": 13, "color": colour(0)}, hovertemplate="%{y}: %{x:.5g}<extra></extra>", name="measures",
    )  # fmt: skip
    figure.update_xaxes(title_text="value (0 at collapse)", **log_axis(values.values()))
    figure.update_yaxes(autorange="reversed", type="category")
    return on_backend(laid_out(figure, 90 + 44 * len(values)), backend)
