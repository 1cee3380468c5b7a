"""A slice of the unconstrained model's landscape through a saddle and the optimum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from neuralcollapse.ufm import UFM, CriticalPoint, Point, Verdict


@dataclass(frozen=True)
class Slice:
    """f over the plane through a saddle (0, 0) and the optimum (1, 0), and the spectrum on the way."""

    saddle: CriticalPoint
    along: np.ndarray
    """First coordinates, 1 being the optimum."""
    across: np.ndarray
    """Second coordinates: along Theorem 3.2's direction, made orthogonal, in the same unit."""
    values: np.ndarray
    """f, (across, along)."""
    steps: np.ndarray
    """Positions on the way from saddle to optimum."""
    spectrum: np.ndarray
    """Eigenvalues of the Hessian there, (steps, eigenvalues)."""


def landscape_slice(problem: UFM, saddle: CriticalPoint, *, points: int = 61) -> Slice:
    """Evaluate f on the plane and the Hessian on the way.

    Raises:
        ValueError: if the point is no strict saddle.
    """
    if saddle.certificate.verdict is not Verdict.SADDLE:
        raise ValueError(
            f"the point of shape {saddle.shape} is {saddle.certificate.verdict.value}, not a strict saddle"
        )
    model = problem.by_class
    optimum = _turned_towards(problem.solve(tol=1e-10).class_point, saddle.point)
    start = saddle.point.to_vector()
    first = optimum.to_vector() - start
    length = float(np.linalg.norm(first))
    second = model.descent_direction(saddle.point).step.to_vector()
    second = second - first * (first @ second) / length**2
    second *= length / max(float(np.linalg.norm(second)), 1e-12)
    along, across = np.linspace(-0.4, 1.4, points), np.linspace(-0.9, 0.9, points)
    values = np.array([[model.objective(model.point(start + x * first + y * second)) for x in along] for y in across])
    steps = np.linspace(0, 1, 21)
    spectrum = np.stack([np.linalg.eigvalsh(model.dense_hessian(model.point(start + t * first))) for t in steps])
    return Slice(saddle, along, across, values, steps, spectrum)


def _turned_towards(point: Point, target: Point) -> Point:
    """The rotation of feature space under which the point is nearest to the target: f does not change."""
    u, _, v = np.linalg.svd(point.W.T @ target.W + point.H @ target.H.T)
    turn = u @ v
    return Point(point.W @ turn, turn.T @ point.H, point.b)


def landscape_figure(found: Slice) -> go.Figure:
    """The slice as a contour map, and the Hessian's eigenvalues from saddle to optimum."""
    shape = "+".join(map(str, found.saddle.shape))
    titles = (f"f through the saddle {shape} and the optimum", "Hessian eigenvalues on the way")
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.12)
    figure.add_contour(
        x=found.along, y=found.across, z=found.values, colorscale="Viridis", ncontours=40, colorbar={"x": 0.44},
        row=1, col=1,
    )  # fmt: skip
    marks = {"size": 12, "color": ["#d55e00", "#ffffff"], "symbol": ["x", "star"]}
    figure.add_scatter(
        x=[0, 1], y=[0, 0], mode="markers+text", text=["saddle", "optimum"], textposition="top center",
        textfont={"color": "#ffffff"}, marker=marks, showlegend=False, row=1, col=1,
    )  # fmt: skip
    for index in range(found.spectrum.shape[1]):
        values = found.spectrum[:, index]
        figure.add_scatter(
            x=found.steps, y=values, mode="lines", showlegend=False,
            line={"width": 1, "color": "#d55e00" if values[0] < -1e-9 else "#0072b2"}, row=1, col=2,
        )  # fmt: skip
    figure.update_xaxes(title_text="along: 0 saddle, 1 optimum", row=1, col=1)
    figure.update_yaxes(title_text="along Theorem 3.2's direction", row=1, col=1)
    figure.update_xaxes(title_text="from saddle to optimum", row=1, col=2)
    figure.update_layout(height=520, template="plotly_white", title="Negative at the saddle in orange")
    return figure


def write_landscape(problem: UFM, saddle: CriticalPoint, output: Path) -> Path:
    """Write the figure as one offline page; returns its path."""
    figure = landscape_figure(landscape_slice(problem, saddle))
    body = figure.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True, "displaylogo": False})
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Landscape</title></head>'
        f"<body><script>{get_plotlyjs()}</script>{body}</body></html>"
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    return output
