"""A measure by layer: how collapse deepens through the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralcollapse.figures.look import colour, label, laid_out, log_axis, positive
from neuralcollapse.figures.names import title


def plot_layers(layers: Any, name: str = "nc1", *, backend: str = "plotly") -> Any:
    """Draw one measure against depth, on a logarithmic axis.

    Args:
        layers: measures by layer, from the first to the last: each a mapping or a record with ``to_dict()``,
            such as ``CollapseReport.layers``. ``CollapseReport.depth`` itself draws NC1 with the law of separation
            fitted to it.
        name: the measure, of the depth also ``ncc_mismatch``, ``effective_rank``, ``stable_rank``, ``numerical_rank``.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Raises:
        ValueError: if there are no layers, or none has the measure.
        ImportError: if matplotlib is asked for and not installed.

    >>> plot_layers({"block1": {"nc1": 2.0}, "block2": {"nc1": 0.1}}).data[0].x
    ('block1', 'block2')
    """
    import plotly.graph_objects as go

    from neuralcollapse.figures.backend import on_backend

    law = getattr(layers, "law", None) if name == "nc1" else None
    layers = layers if isinstance(layers, Mapping) else layers.layers
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
    if law is not None:
        figure.add_scatter(
            x=[label(layer) for layer in found], y=[law.start * law.rate**index for index in range(len(found))],
            mode="lines", name=f"law of separation: rate {law.rate:.3g}, correlation {law.correlation:.3g}",
            showlegend=True, line={"color": colour(1), "width": 2, "dash": "dash"},
            hovertemplate="%{x}: %{y:.4g}<extra>fitted</extra>",
        )  # fmt: skip
    figure.update_yaxes(title_text=title(name), zeroline=False, **log_axis(values))
    figure.update_xaxes(
        title={"text": "layer, from input to output", "standoff": 12}, type="category", zeroline=False, automargin=True,
        tickvals=[label(layer) for layer in found], ticktext=[label(name) for name in _short(list(found))],
    )  # fmt: skip
    figure = laid_out(figure, 320)
    figure.update_layout(
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}, margin_t=32
    )
    return on_backend(figure, backend)


def _short(names: list[str]) -> list[str]:
    """Dotted names without the parts that all of them begin with.

    >>> _short(["backbone.layer1.0", "backbone.layer1.1"]), _short(["backbone.fc"]), _short(["a", "b.a"])
    (['0', '1'], ['backbone.fc'], ['a', 'b.a'])
    """
    parts = [name.split(".") for name in names]
    shared = 0
    while len(names) > 1 and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return [".".join(part[shared:]) for part in parts]
