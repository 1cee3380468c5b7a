"""A measure by layer: how collapse deepens through the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralcollapse.figures.look import colour, label, laid_out, log_axis, positive
from neuralcollapse.figures.names import title


def plot_layers(layers: Mapping[str, Any], name: str = "nc1", *, backend: str = "plotly") -> Any:
    """Draw one measure against depth, on a logarithmic axis.

    Args:
        layers: measures by layer, from the first to the last: each a mapping or a record with ``to_dict()``,
            such as ``CollapseReport.layers``.
        name: the measure.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: if there are no layers, or none has the measure.
        ImportError: if matplotlib is asked for and not installed.

    >>> plot_layers({"block1": {"nc1": 2.0}, "block2": {"nc1": 0.1}}).data[0].x
    ('block1', 'block2')
    """
    import plotly.graph_objects as go

    from neuralcollapse.figures.backend import on_backend

    found = {layer: measures.to_dict() if hasattr(measures, "to_dict") else measures
             for layer, measures in layers.items()}  # fmt: skip
    values = positive(measures.get(name) for measures in found.values())
    if not any(value is not None for value in values):
        raise ValueError(f"name={name!r}: none of the {len(found)} layers has a positive value of it")
    figure = go.Figure()
    figure.add_scatter(
        x=[label(layer) for layer in found], y=values, mode="lines+markers", name=title(name), showlegend=False,
        line={"color": colour(0), "width": 2.5}, marker={"size": 9},
        hovertemplate="%{x}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(title_text=title(name), zeroline=False, **log_axis(values))
    figure.update_xaxes(title_text="layer, from input to output", type="category", zeroline=False)
    return on_backend(laid_out(figure, 320), backend)
