"""Every optimizer on the unconstrained model, from random starts and from beside each saddle, to the same end."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch

from neuralcollapse.figures.look import colour, label, laid_out, log_axis, positive
from neuralcollapse.figures.names import title
from neuralcollapse.figures.simplex import Frame, frame_of
from neuralcollapse.files import write_text
from neuralcollapse.geometry import measure_features
from neuralcollapse.geometry.measures import HEADLINE, MEASURES
from neuralcollapse.report.geometry import geometry
from neuralcollapse.report.history import History
from neuralcollapse.report.problem import facts_of
from neuralcollapse.report.template import number, render
from neuralcollapse.ufm import METHODS, UFM, Point, Verdict

_LOOKS = {"gradient": 2, "sgd": 100, "adam": 20, "lbfgs": 2, "newton": 1}
"""Iterations between looks, so that each method's way is seen."""
_MOST_FRAMES = 60
_SHOWN_CLASSES = 10
_SHOWN_SAMPLES = 20
_CLOSE = 1e-8
"""Gap to the optimum at which a run counts as arrived."""


def dynamics(
    problem: UFM,
    *,
    methods: Sequence[str] | None = None,
    random_starts: int = 2,
    tol: float = 1e-14,
    seed: int = 0,
) -> Iterator[History]:
    """A history for each method and start: random starts, and the neighbourhood of each strict saddle.

    Raises:
        ValueError: if a method is unknown.
    """
    starts = {f"random {index}": problem.random_point(seed + index, scale=0.3) for index in range(random_starts)}
    for saddle in problem.saddles():
        if saddle.certificate.verdict is Verdict.SADDLE:
            nudge = problem.random_point(seed + 1, scale=1e-3)
            starts["saddle " + "+".join(map(str, saddle.shape))] = problem.expand(saddle.point) + nudge
    for method in methods or METHODS:
        for name, start in starts.items():
            yield _history(problem, method, name, start, tol)


def write_dynamics(problem: UFM, histories: Sequence[History], output: str | Path) -> Path:
    """Write the page of what :func:`dynamics` found; returns its path.

    Raises:
        WriteError: if the page cannot be written.
    """
    methods = list(dict.fromkeys(str(history.config["optimizer"]) for history in histories))
    section = geometry(histories)
    panels = {name: _panel(histories, methods, name) for name in (*HEADLINE, "gap")}
    gaps = [history.last("gap") for history in histories]
    arrived = sum(gap is not None and gap < _CLOSE for gap in gaps)
    page = render(
        "dynamics.html",
        title="Neural collapse: dynamics of the unconstrained feature model",
        figures=section["figures"] | panels,
        data=section["data"],
        scripts=section["scripts"],
        maps=section["maps"],
        methods=methods,
        panels=[(name, MEASURES[name].title, MEASURES[name].meaning) for name in HEADLINE],
        total=len(histories),
        certified=any(gap is not None for gap in gaps),
        arrived=arrived,
        worst=max((gap for gap in gaps if gap is not None), default=None),
        by_method=[_summary(method, histories) for method in methods],
        rows=[_row(history) for history in histories],
        facts=facts_of(problem),
    )
    return write_text(output, page)


def _panel(histories: Sequence[History], methods: Sequence[str], name: str) -> go.Figure:
    """One curve per run: a colour per method, dotted from beside a saddle."""
    figure = go.Figure()
    for history in histories:
        method, start = str(history.config["optimizer"]), str(history.config["start"])
        figure.add_scatter(
            x=[None if step is None else step + 1 for step in history.metrics["iteration"]],
            y=positive(history.metrics[name]), mode="lines", showlegend=False, name=label(history.name),
            line={"color": colour(methods.index(method)), "width": 1.6,
                  "dash": "dot" if start.startswith("saddle") else "solid"},
            hovertemplate=f"{label(history.name)}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    heading = "gap to the optimum" if name == "gap" else title(name)
    figure.update_yaxes(
        title_text=heading, zeroline=False, **log_axis(value for trace in figure.data for value in trace.y)
    )
    steps = log_axis(value for trace in figure.data for value in trace.x)
    figure.update_xaxes(title_text="iteration + 1", zeroline=False, **steps)
    return laid_out(figure, 300)


def _summary(method: str, histories: Sequence[History]) -> list[str]:
    own = [history for history in histories if history.config["optimizer"] == method]
    iterations = statistics.median(float(history.last("iteration") or 0) for history in own)
    gaps = [gap for history in own if (gap := history.last("gap")) is not None]
    ends = [nc1 for history in own if (nc1 := history.last("nc1")) is not None]
    return [method, str(len(own)), number(iterations), number(max(ends, default=None)), number(max(gaps, default=None))]


def _row(history: History) -> list[str]:
    config = history.config
    values = [number(history.last(name)) for name in ("iteration", *HEADLINE, "gap")]
    return [f"{config['optimizer']} from {config['start']}", *values]


def _history(problem: UFM, method: str, name: str, start: Point, tol: float) -> History:
    columns: dict[str, list[float | None]] = {key: [] for key in ("iteration", *HEADLINE, "gap")}
    frames: list[Frame] = []

    def observe(iteration: int, point: Point) -> None:
        full = point if point.H.shape[1] == problem.total else problem.expand(point)
        columns["iteration"].append(float(iteration))
        for key, value in _measures(problem, full).items():
            columns[key].append(value)
        columns["gap"].append(problem.certify(full).gap)
        frames.append(_frame(problem, iteration, full))

    limit = {"gradient": 2_000, "adam": 4_000, "sgd": 5_000}.get(method)
    problem.solve(method=method, start=start, tol=tol, every=_LOOKS.get(method), observe=observe, max_iterations=limit)
    kept = np.unique(np.round(np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES))).astype(int))
    chosen = tuple(range(min(4, problem.num_classes)))
    config = {"optimizer": method, "start": name}
    return History(f"{method} from {name}", columns, config, chosen, [frames[index] for index in kept])


def _measures(problem: UFM, point: Point) -> dict[str, float | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # next to the origin and at saddles class means coincide
        found = measure_features(
            torch.from_numpy(point.H.T.copy()),
            torch.from_numpy(problem.labels),
            torch.from_numpy(point.W),
            torch.from_numpy(point.b.astype(float)),
        ).to_dict()
    return {name: found[name] for name in HEADLINE}


def _frame(problem: UFM, iteration: int, point: Point) -> Frame:
    means = problem.average(point).H.T
    centre = means.mean(0)
    shown = min(_SHOWN_CLASSES, problem.num_classes)
    rows = np.concatenate([np.flatnonzero(problem.labels == label)[:_SHOWN_SAMPLES] for label in range(shown)])
    products = (point.H.T[rows] - centre) @ (means[:shown] - centre).T
    return frame_of(iteration, point.W, means, centre, products, problem.labels[rows])
