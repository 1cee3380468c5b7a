"""The geometry of a run for the page: what changes from frame to frame, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from neuralcollapse.figures.cosines import colour_range, cosine_panel
from neuralcollapse.figures.simplex import MOST_SHOWN, Frame, space_figure
from neuralcollapse.geometry.measures import HEADLINE
from neuralcollapse.report.history import History
from neuralcollapse.report.template import own

SCRIPT = "geometry.js"
MAPS = {
    "weights": ("Classifier rows with each other", "W: one row per class"),
    "means": ("Class means with each other", "centred class means"),
    "duality": ("Classifier rows with class means", "classifier down, means across"),
}
_LIVE = (*HEADLINE, "gap", "train_accuracy", "test_accuracy")


def geometry(histories: Sequence[History]) -> dict[str, Any]:
    """Arguments for :func:`neuralcollapse.report.template.render` that a page with the geometry section needs.

    Empty runs and figures where no history has frames.
    """
    shown = [history for history in histories if history.frames]
    figures: dict[str, go.Figure] = {}
    if shown:
        first = shown[0].frames[0]
        widest = max(shown, key=lambda history: len(history.frames[0].gram))
        everyone = tuple(range(min(MOST_SHOWN, len(widest.frames[0].gram))))
        figures["space"] = space_figure(widest.frames[0], everyone)
        figures["space"].update_layout(showlegend=False, dragmode="orbit")
        for name in MAPS:
            figures[f"cosine-{name}"] = cosine_panel(getattr(first, name), first.classes)
            figures[f"cosine-{name}"].data[0].showscale = False
    return {
        "figures": figures,
        "data": {"runs": [_run(history) for history in shown]},
        "scripts": [own(SCRIPT)] if shown else [],
        "shown": shown,
        "maps": MAPS,
    }


def _run(history: History) -> dict[str, Any]:
    step = next(iter(history.metrics))
    places = {value: place for place, value in enumerate(history.metrics[step])}
    return {
        "name": history.name,
        "step": step,
        "classes": history.class_names,
        "chosen": history.chosen,
        "choices": len(history.frames[0].gram),
        "range": colour_range(history.frames[-1].classes),
        "frames": [_frame(frame, _values(history.metrics, places.get(frame.epoch))) for frame in history.frames],
    }


def _values(metrics: Mapping[str, Sequence[float | None]], place: int | None) -> dict[str, float | None]:
    return {} if place is None else {name: metrics[name][place] for name in _LIVE if name in metrics}


def _frame(frame: Frame, values: dict[str, float | None]) -> dict[str, Any]:
    size = max(float(np.trace(frame.gram)) / len(frame.gram), 1e-300)
    scale = max(float(np.abs(frame.weight_products).max()), 1e-300)
    return {
        "epoch": frame.epoch,
        "values": values,
        "cosines": {name: _cells(getattr(frame, name)) for name in MAPS},
        "gram": (frame.gram / size).round(5).tolist(),
        "weights": (frame.weight_products / scale).round(5).tolist(),
        "samples": (frame.sample_products / size).round(4).tolist(),
        "labels": frame.sample_labels.tolist(),
    }


def _cells(cosines: np.ndarray) -> list[list[float | None]]:
    """Rounded, and nothing for a class without samples."""
    return [[None if np.isnan(value) else value for value in row] for row in cosines.round(3).tolist()]
