"""Every optimizer on the unconstrained model, from random starts and from next to each saddle, to the same end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from neuralcollapse.geometry import measure_features
from neuralcollapse.report.history import Frame, History, frame_of
from neuralcollapse.ufm import METHODS, UFM, Point, Verdict

_LOOKS = {"gradient": 2, "sgd": 100, "adam": 20, "lbfgs": 2, "newton": 1}
"""Iterations between looks, so that each method's way is seen."""
_MEASURES = ("nc1", "nc2", "nc3", "nc4")


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


def _history(problem: UFM, method: str, name: str, start: Point, tol: float) -> History:
    columns: dict[str, list[float | None]] = {key: [] for key in ("iteration", *_MEASURES, "gap")}
    frames: list[Frame] = []
    chosen = tuple(range(min(4, problem.num_classes)))

    def observe(iteration: int, point: Point) -> None:
        full = point if point.H.shape[1] == problem.total else problem.expand(point)
        columns["iteration"].append(iteration)
        for key, value in _measures(problem, full).items():
            columns[key].append(value)
        columns["gap"].append(problem.certify(full).gap)
        frames.append(frame_of(iteration, _snapshot(problem, full), chosen))

    limit = {"gradient": 2_000, "adam": 4_000, "sgd": 5_000}.get(method)
    problem.solve(method=method, start=start, tol=tol, every=_LOOKS.get(method), observe=observe, max_iterations=limit)
    kept = np.unique(np.round(np.linspace(0, len(frames) - 1, min(len(frames), 60))).astype(int))
    facts = {"optimizer": method, "start": name, "model": str(problem)}
    return History(f"{method} from {name}", facts, columns, chosen, [frames[index] for index in kept])


def _measures(problem: UFM, point: Point) -> dict[str, float | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # next to the origin and at saddles class means coincide
        found = measure_features(
            torch.from_numpy(point.H.T.copy()),
            torch.from_numpy(problem.labels),
            torch.from_numpy(point.W),
            torch.from_numpy(point.b.astype(float)),
        ).to_dict()
    return {name: found[name] for name in _MEASURES}


def _snapshot(problem: UFM, point: Point) -> dict[str, np.ndarray]:
    means = problem.average(point).H.T
    centre = means.mean(0)
    shown = min(10, problem.num_classes)
    return {
        "weight": point.W,
        "class_means": means,
        "global_mean": centre,
        "sample_products": (point.H.T - centre) @ (means[:shown] - centre).T,
        "sample_labels": problem.labels,
    }
