"""Cosines between classes, coloured by their distance from the simplex ETF's -1/(K-1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuralcollapse.figures.look import laid_out

if TYPE_CHECKING:
    import plotly.graph_objects as go

_REACH = 0.5
"""Distance from the target at which the colour is full."""

SCALE = ((0.0, "#2166ac"), (0.5, "#f7f7f7"), (1.0, "#b2182b"))
"""Blue below the target, grey at it, red above."""


def plot_cosines(weight: Any = None, means: Any = None, *, backend: str = "plotly") -> Any:
    """Draw the cosines between classes as maps: at collapse only the diagonal keeps a colour.

    Args:
        weight: classifier W, (K, d); a tensor or array.
        means: class means, (K, d); their mean is subtracted first. A row of zeros is a class without samples, as
            ``allow_missing=True`` leaves it: it gets no cosines.
        backend: ``"plotly"`` or ``"matplotlib"``.

    Returns:
        A figure with one map per kind of pair: rows of W, centred class means, and one with the other.

    Raises:
        ValueError: if neither is given, or shapes disagree.
        ImportError: if matplotlib is asked for and not installed.

    >>> figure = plot_cosines(np.eye(3))
    >>> len(figure.data)
    1
    """
    from plotly.subplots import make_subplots

    from neuralcollapse.figures.backend import on_backend

    rows, centred = (None if one is None else matrix_of(one, name) for one, name in
                     ((weight, "weight"), (means, "means")))  # fmt: skip
    if rows is None and centred is None:
        raise ValueError("weight and means are both missing: give at least one")
    if rows is not None and centred is not None and rows.shape != centred.shape:
        raise ValueError(f"weight has shape {rows.shape} and means {centred.shape}: both must be (K, d)")
    given = rows if centred is None else centred
    assert given is not None
    present = np.ones(len(given), dtype=bool) if centred is None else centred.any(1)
    if present.sum() < 2:
        raise ValueError(f"means has {present.sum()} rows that are not zero: two classes need samples")
    known = np.where(np.outer(present, present), 1.0, np.nan)
    maps: dict[str, np.ndarray] = {}
    if rows is not None:
        maps["classifier rows"] = cosines(rows, rows) * known
    if centred is not None:
        centred = centred - centred[present].mean(0)
        maps["class means"] = cosines(centred, centred) * known
    if rows is not None and centred is not None:
        maps["classifier rows with class means"] = cosines(rows, centred) * known
    figure = make_subplots(1, len(maps), subplot_titles=list(maps), horizontal_spacing=0.08)
    for column, values in enumerate(maps.values(), start=1):
        panel = cosine_panel(values, int(present.sum()))
        panel.data[0].showscale = column == len(maps)
        figure.add_trace(panel.data[0], row=1, col=column)
        anchor = f"x{column if column > 1 else ''}"
        figure.update_yaxes(autorange="reversed", constrain="domain", scaleanchor=anchor, row=1, col=column)
        figure.update_xaxes(constrain="domain", row=1, col=column)
    return on_backend(laid_out(figure, 380), backend)


def colour_range(classes: int) -> tuple[float, float, float]:
    """Cosines of the lowest colour, of the neutral one, which is the simplex ETF's -1/(K-1), and of the highest."""
    target = -1 / max(classes - 1, 1)
    return target - _REACH, target, target + _REACH


def cosine_panel(values: np.ndarray, classes: int) -> go.Figure:
    """One map, of all K classes or of the first, with the colours centred on -1/(K-1)."""
    import plotly.graph_objects as go

    low, target, high = colour_range(classes)
    bar = {"tickvals": [low, target, high], "ticktext": [f"≤ {low:.2f}", f"{target:.2f}", f"≥ {high:.2f}"]}
    figure = go.Figure()
    figure.add_heatmap(
        z=values.round(4).tolist(), zmin=low, zmax=high, colorscale=[list(stop) for stop in SCALE], xgap=1, ygap=1,
        colorbar=bar | {"thickness": 12}, hovertemplate="class %{y} with class %{x}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", constrain="domain", scaleanchor="x", nticks=6, zeroline=False)
    figure.update_xaxes(constrain="domain", nticks=6, zeroline=False)
    return laid_out(figure, 300)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosines of the rows of one matrix with the rows of another; zero for a row of zeros."""

    def unit(rows: np.ndarray) -> np.ndarray:
        largest = np.abs(rows).max(1, keepdims=True)
        rows = rows / np.where(largest > 0, largest, 1.0)  # first, so that no square overflows or vanishes
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)

    return unit(left) @ unit(right).T


def matrix_of(given: Any, name: str) -> np.ndarray:
    """A finite (K, d) matrix of a tensor in any precision, an array or lists.

    Raises:
        ValueError: if it has another shape, fewer than two rows or an entry that is not finite.
    """
    tensor = given.detach().cpu().double() if hasattr(given, "detach") else given
    array = np.asarray(tensor, dtype=float)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(f"{name} has shape {array.shape}: expected (K, d) with at least two classes")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has non-finite entries (NaN or infinity)")
    return array
