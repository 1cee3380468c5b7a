"""The same figure on matplotlib, for those who ask for it."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DASHES = {"dash": "--", "dot": ":", "dashdot": "-."}


def on_backend(figure: go.Figure, backend: str) -> Any:
    """The figure itself, or its copy on matplotlib.

    Raises:
        ValueError: if the backend is neither plotly nor matplotlib.
        ImportError: if matplotlib is asked for and not installed.
    """
    if backend == "plotly":
        return figure
    if backend != "matplotlib":
        raise ValueError(f"backend={backend!r} is unknown: choose plotly or matplotlib")
    return to_matplotlib(figure)


def to_matplotlib(figure: go.Figure) -> Any:
    """Copy the curves, bands, points and maps of a figure of this package to matplotlib.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("backend='matplotlib' needs matplotlib: pip install matplotlib") from error
    width = 5.2 * min(2, max(1, len({trace.xaxis or "x" for trace in figure.data})))
    copy = Figure(figsize=(width, (figure.layout.height or 400) / 90), layout="constrained")
    pairs = {(trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data}
    anchors = sorted(pairs, key=lambda pair: int(pair[0][1:] or 1))
    columns = len(anchors) if figure.data[0].type == "heatmap" else min(2, len(anchors))
    rows = -(-len(anchors) // columns)
    titles = [_plain(note.text) for note in figure.layout.annotations]
    for place, (x, y) in enumerate(anchors):
        axes = copy.add_subplot(rows, columns, place + 1)
        for trace in figure.data:
            if (trace.xaxis or "x", trace.yaxis or "y") == (x, y):
                _draw(axes, trace)
        _dress(axes, figure.layout[x.replace("x", "xaxis")], figure.layout[y.replace("y", "yaxis")])
        if place < len(titles):
            axes.set_title(titles[place])
        if place == 0 and any(trace.showlegend for trace in figure.data):
            axes.legend()
    return copy


def _draw(axes: Any, trace: Any) -> None:
    if trace.type == "heatmap":
        picture = axes.imshow(trace.z, cmap="RdBu_r", vmin=trace.zmin, vmax=trace.zmax)
        if trace.showscale is not False:
            axes.figure.colorbar(picture, ax=axes, shrink=0.7)
        return
    colour = trace.line.color or trace.marker.color
    x, y = list(trace.x), [float("nan") if value is None else value for value in trace.y]
    if trace.fill == "tonexty":  # a band: the trace before it is its upper edge
        upper = axes.lines[-1].get_ydata()
        axes.lines[-1].remove()
        axes.fill_between(x, y, upper, color=colour, alpha=0.2, linewidth=0)
    elif "lines" in (trace.mode or "lines"):
        name = _plain(trace.name) if trace.showlegend else "_"
        marker = "o" if "markers" in (trace.mode or "") else None
        axes.plot(x, y, color=colour, linestyle=_DASHES.get(trace.line.dash, "-"), marker=marker, label=name)
    else:
        axes.plot(x, y, "o", color=colour)
        for at, height, text in zip(x, y, trace.text if trace.text is not None else [], strict=False):
            axes.annotate(text, (at, height), xytext=(8, -3), textcoords="offset points")


def _dress(axes: Any, across: Any, up: Any) -> None:
    for name, given in (("x", across), ("y", up)):
        set_label, set_scale, set_limits = (getattr(axes, f"set_{name}{part}") for part in ("label", "scale", "lim"))
        if given.title.text:
            set_label(_plain(given.title.text))
        if given.type == "log":
            set_scale("log")
            set_limits(10.0 ** given.range[0], 10.0 ** given.range[1])
            getattr(axes, f"set_{name}ticks")(list(given.tickvals), [f"{tick:g}" for tick in given.tickvals])
            getattr(axes, f"{name}axis").minorticks_off()
    if up.autorange == "reversed" and not axes.images:
        axes.invert_yaxis()


def _plain(text: str | None) -> str:
    return html.unescape(re.sub(r"</?(sub|sup|b|i|br)>", "", text or ""))
