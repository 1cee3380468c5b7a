"""One HTML page that opens offline: everything it needs is inside it."""

from __future__ import annotations

import html
import json
import os
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from neuralcollapse.report.figures import (
    MEASURES,
    accuracy_figure,
    cosines_figure,
    curves_figure,
    gap_figure,
    space_figure,
    space_points,
)
from neuralcollapse.report.history import History, read_history


def write_report(folders: Sequence[Path], output: Path, *, classes: Sequence[int] = (0, 1, 2, 3)) -> Path:
    """Write the page of one or more runs; returns its path.

    Args:
        folders: run folders; the curves of several overlay, and their geometry is shown one at a time.
        output: the page.
        classes: two to four classes for the view in space.

    Raises:
        FileNotFoundError: if a folder holds no run.
        ValueError: if a run has nothing to draw yet, or a file of it is damaged.
    """
    return write_page([read_history(Path(folder), classes) for folder in folders], output)


def write_page(histories: Sequence[History], output: Path) -> Path:
    """Write the page of histories, whatever made them; returns its path."""
    names = [history.name for history in histories]
    trained = "test_accuracy" in histories[0].metrics
    content = {
        "curves": _plain(curves_figure(histories)),
        "accuracy": _plain(accuracy_figure(histories) if trained else gap_figure(histories)),
        "runs": [_geometry(history) for history in histories if history.frames],
    }
    page = fill_page(
        resources.files(__package__).joinpath("page.html").read_text(),
        title=html.escape(", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"),
        step=next(iter(histories[0].metrics)),
        second="Accuracy" if trained else "Certified distance from the optimum",
        summary=_summary(histories),
        geometry="" if content["runs"] else "hidden",
        data=json.dumps(content).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
    )
    return write_whole(output, page)


def fill_page(template: str, **parts: str) -> str:
    """A template with its parts, and the style that all pages share."""
    style = resources.files(__package__).joinpath("style.css").read_text()
    return string.Template(template).substitute(style=style, **parts)


def write_whole(output: Path, text: str) -> Path:
    """Write a file in one step: whoever reads it sees the old one or the new one."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, output)
    return output


def _plain(figure: go.Figure) -> Any:
    return json.loads(figure.to_json())


def _geometry(history: History) -> dict[str, Any]:
    """First drawing of a run's geometry, and for each frame what changes in it."""
    return {
        "name": history.name,
        "cosines": _plain(cosines_figure(history.frames[-1])),
        "space": _plain(space_figure(history.frames[-1], history.chosen)),
        "frames": [
            {
                "epoch": frame.epoch,
                "cosines": [part.round(3).tolist() for part in (frame.weights, frame.means, frame.duality)],
                "space": space_points(frame, len(history.chosen)),
            }
            for frame in history.frames
        ],
    }


def _summary(histories: Sequence[History]) -> str:
    """A row a run: what it was, and where it ended."""
    facts = list(histories[0].facts)
    columns = list(histories[0].metrics)
    ends = [name for name in ("train_accuracy", "test_accuracy", "gap") if name in columns]
    heads = ("run", *facts, columns[0], *(name.upper() for name in MEASURES), *ends)
    rows = []
    for history in histories:
        last = {name: values[-1] for name, values in history.metrics.items()}
        cells = [history.name, *history.facts.values(), f"{last[columns[0]]:.0f}"]
        cells += [f"{last[name]:.3g}" for name in MEASURES]
        cells += [f"{last[name]:.2%}" if name.endswith("accuracy") else f"{last[name]:.1e}" for name in ends]
        rows.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
