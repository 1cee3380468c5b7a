"""Figures of runs as files."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import plotly.graph_objects as go

from neuralcollapse.extras import check_pictures
from neuralcollapse.figures.cosines import cosine_panel
from neuralcollapse.figures.curves import accuracy_panel, plot_measures
from neuralcollapse.figures.simplex import space_figure
from neuralcollapse.files import make_folder, write_bytes
from neuralcollapse.report.geometry import MAPS
from neuralcollapse.report.history import read_histories, warn_of
from neuralcollapse.report.seeds import by_experiment
from neuralcollapse.report.vector import svg_text

_WIDTH = 900
"""Pixels of a figure that becomes a file."""


def write_figures(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    classes: Sequence[int] | None = None,
    format: str = "svg",
) -> list[Path]:
    """Write the figures as files; the cosines and the view in space are those of each run's last epoch.

    Args:
        folders: run folders.
        output: folder for the figures.
        classes: two to four of the first ten classes for the view in space; by default the first four with samples.
        format: svg or png.

    Raises:
        ValueError: if the format is neither svg nor png, or a single run has nothing to draw yet or is damaged.
        ImportError: if kaleido is not installed.
        FileNotFoundError: if there is no Chrome or Chromium.
        WriteError: if a figure cannot be written.

    Warns:
        RunSkipped: as :func:`neuralcollapse.report.write_report`.
    """
    if format not in ("svg", "png"):
        raise ValueError(f"format={format!r} is unknown: choose svg or png")
    histories, skipped = read_histories(folders, classes)
    warn_of(skipped)
    runs = {name: [run.metrics for run in group] for name, group in by_experiment(histories).items()}
    figures: dict[str, go.Figure] = {"collapse": plot_measures(runs)}
    if any(name.endswith("_accuracy") for history in histories for name in history.metrics):
        figures["accuracy"] = accuracy_panel(runs)
    for history in histories:
        if history.frames:
            last = history.frames[-1]
            for name in MAPS:
                figures[f"{history.name}-cosines-{name}"] = cosine_panel(getattr(last, name), last.classes)
            figures[f"{history.name}-space"] = space_figure(last, history.chosen, history.class_names)
    folder = make_folder(output)
    with image_writer():
        return [
            write_bytes(folder / f"{_file_name(name)}.{format}", _picture(figure, format))
            for name, figure in figures.items()
        ]


def write_picture(figure: go.Figure, path: str | Path) -> Path:
    """Write one figure; an SVG follows its reader's light or dark mode.

    Raises:
        ValueError: if the path ends in neither .svg nor .png.
        ImportError: if kaleido is not installed.
        FileNotFoundError: if there is no Chrome or Chromium.
        WriteError: if the file cannot be written.
    """
    target = Path(path)
    format = target.suffix.lower().removeprefix(".")
    if format not in ("svg", "png"):
        raise ValueError(f"path={str(path)!r} ends in neither .svg nor .png: give a name that ends in one of them")
    with image_writer():
        content = svg_text(figure, _WIDTH).encode() if format == "svg" else _picture(figure, format)
    return write_bytes(target, content)


def _picture(figure: go.Figure, format: str) -> bytes:
    figure.update_layout(template="plotly_white", paper_bgcolor="white", plot_bgcolor="white")
    return bytes(figure.to_image(format, width=_WIDTH, height=figure.layout.height, scale=2))


def _file_name(name: str) -> str:
    """Without what a file system may refuse."""
    return "".join(letter if letter.isalnum() or letter in "-_. ()" else "-" for letter in name)


@contextlib.contextmanager
def image_writer() -> Iterator[None]:
    """One browser for many figures, where figures become files.

    Raises:
        ImportError: if kaleido is not installed.
        FileNotFoundError: if there is no Chrome or Chromium.
    """
    check_pictures()
    import kaleido

    logging.getLogger("choreographer").setLevel(logging.CRITICAL)  # it reports every message cut off at the end
    kaleido.start_sync_server(silence_warnings=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The kopts argument")  # every plotly figure raises it
            yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)
