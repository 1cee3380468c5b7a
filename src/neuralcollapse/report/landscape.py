"""A slice of the unconstrained model's landscape through a saddle and the optimum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from neuralcollapse.figures.look import colour, laid_out
from neuralcollapse.files import write_text
from neuralcollapse.report.problem import facts_of
from neuralcollapse.report.template import render
from neuralcollapse.ufm import UFM, CriticalPoint, Point, Verdict
from neuralcollapse.ufm.saddles import SPECTRUM_SIZE

_NEGATIVE = -1e-9


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
    optimum: float
    """f at the optimum."""


def check_size(problem: UFM) -> None:
    """Refuse a problem whose Hessian is too large for a landscape.

    Raises:
        ValueError: naming its size.
    """
    k, d = problem.num_classes, problem.feature_dim
    variables = 2 * k * d + k * problem.bias
    if variables > SPECTRUM_SIZE:
        raise ValueError(
            f"num_classes={k} and feature_dim={d} make {variables:,} variables: a landscape needs all eigenvalues of "
            f"the Hessian, for at most {SPECTRUM_SIZE:,} variables; choose fewer classes or features"
        )


def landscape_slice(problem: UFM, saddle: CriticalPoint, *, points: int = 61) -> Slice:
    """Evaluate f on the plane and the Hessian on the way.

    Raises:
        ValueError: if the point is no strict saddle, or the problem is too large.
    """
    check_size(problem)
    if saddle.certificate.verdict is not Verdict.SADDLE:
        raise ValueError(
            f"the point of shape {saddle.shape} is {saddle.certificate.verdict.value}, not a strict saddle"
        )
    model = problem.by_class
    solution = problem.solve(tol=1e-10)
    optimum = _turned_towards(solution.class_point, saddle.point)
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
    return Slice(saddle, along, across, values, steps, spectrum, solution.value)


def _turned_towards(point: Point, target: Point) -> Point:
    """The rotation of feature space under which the point is nearest to the target: f does not change."""
    u, _, v = np.linalg.svd(point.W.T @ target.W + point.H @ target.H.T)
    turn = u @ v
    return Point(point.W @ turn, turn.T @ point.H, point.b)


def contour_figure(found: Slice) -> go.Figure:
    """The objective over the plane, with the saddle and the optimum marked."""
    figure = go.Figure()
    figure.add_contour(
        x=found.along, y=found.across, z=found.values, colorscale="Viridis", ncontours=32,
        line={"width": 0.5}, colorbar={"thickness": 12, "nticks": 6},
        hovertemplate="f = %{z:.5g}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[0, 1], y=[0, 0], mode="markers+text", text=["saddle", "optimum"], textposition="top center",
        textfont={"color": ["#16191d", "#ffffff"], "size": 15}, showlegend=False, hoverinfo="skip",
        marker={"size": 13, "color": ["#b2182b", "#ffffff"], "symbol": ["x", "star"]},
    )  # fmt: skip
    figure.update_xaxes(title_text="from saddle (0) to optimum (1)", nticks=6, zeroline=False)
    figure.update_yaxes(title_text="along the descent direction", nticks=6, zeroline=False)
    return laid_out(figure, 420)


def spectrum_figure(found: Slice) -> go.Figure:
    """The Hessian's eigenvalues from saddle to optimum, those that start negative in their own colour."""
    figure = go.Figure()
    for index in range(found.spectrum.shape[1]):
        values = found.spectrum[:, index]
        negative = values[0] < _NEGATIVE
        figure.add_scatter(
            x=found.steps, y=values, mode="lines", showlegend=False,
            line={"width": 2.5 if negative else 1, "color": colour(1 if negative else 0)},
            hovertemplate="eigenvalue %{y:.3g}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="from saddle (0) to optimum (1)", nticks=6, zeroline=False)
    figure.update_yaxes(title_text="eigenvalue of the Hessian", nticks=6, exponentformat="power", zeroline=True)
    return laid_out(figure, 420)


def write_landscape(problem: UFM, saddle: CriticalPoint, output: Path) -> Path:
    """Write the slice as one offline page; returns its path.

    Raises:
        ValueError: if the point is no strict saddle.
    """
    found = landscape_slice(problem, saddle)
    shape = "+".join(map(str, saddle.shape))
    page = render(
        "landscape.html",
        title=f"Landscape: the saddle {shape}",
        figures={"contour": contour_figure(found), "spectrum": spectrum_figure(found)},
        shape=shape,
        groups=saddle.shape,
        proved=problem.loss.name == "cross_entropy" and problem.feature_dim >= problem.num_classes - 1,
        negative=int((found.spectrum[0] < _NEGATIVE).sum()),
        eigenvalues=found.spectrum.shape[1],
        steepest=float(found.spectrum[0].min()),
        value=saddle.certificate.value,
        optimum=found.optimum,
        facts=facts_of(problem),
    )
    return write_text(output, page)
