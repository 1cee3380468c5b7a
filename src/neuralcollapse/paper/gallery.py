"""One HTML page, offline: the paper's claims and verdicts, each reproduced figure, every run with its command."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go

from neuralcollapse.figures.look import laid_out
from neuralcollapse.files import make_folder
from neuralcollapse.paper.claims import judge
from neuralcollapse.paper.drawings import Drawing, draw, draw_theory
from neuralcollapse.paper.earlier import PAGE, TABLES, TITLE, replace
from neuralcollapse.paper.experiments import FIGURES, SCALES
from neuralcollapse.paper.judgement import KINDS, Judgement
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.tables import (
    SHOWN_NORMS,
    SHOWN_RUNS,
    claims_rows,
    csv_text,
    norms_rows,
    run_row,
    shown_norms,
)
from neuralcollapse.report.figures import image_writer
from neuralcollapse.report.template import render
from neuralcollapse.train.command import DATA
from neuralcollapse.train.optimality import Optimality, certify_snapshot
from neuralcollapse.train.snapshot import last_snapshot

_PANEL, _FILE = 460, 1000
"""Widths of SVG figures in pixels: one panel on the page, all panels of a drawing in a file."""


def write_gallery(
    output: Path, scale: str, figures: Mapping[str, Sequence[Outcome]], *, static: bool = False
) -> dict[str, list[Judgement]]:
    """Write gallery.html, claims.csv, runs.csv and norms.csv; returns the judged claims by figure.

    Files of other programs under these names are moved aside.

    Args:
        output: folder.
        scale: its name.
        figures: runs of each figure by its name; those that are not finished are named, and drawn as far as they are.
        static: draw with SVG instead of scripts, and write figures/*.svg too: a small page.

    Raises:
        ImportError: if static figures are asked for and kaleido is not installed.
        FileNotFoundError: if static figures are asked for and there is no Chrome or Chromium.
    """
    make_folder(output)
    small = not SCALES[scale].judged
    judged = {name: judge(name, runs, small=small) for name, runs in figures.items()}
    runs = {run.experiment.name: run for group in figures.values() for run in group}
    theory, uncertified = certificates(runs.values())
    drawings = {name: draw(name, group) for name, group in figures.items()} | {"theory": draw_theory(theory)}
    with image_writer() if static else contextlib.nullcontext():
        pictures = _pictures(drawings, output / "figures") if static else {}
    page = render(
        "gallery.html",
        package="neuralcollapse.paper",
        title=f"{TITLE}{scale}",
        figures={} if static else {panel: figure for _, _, panel, figure in _panels(drawings)},
        scripts=[_own("gallery.js")],
        styles=[_own("gallery.css")],
        panel_id=panel_id,
        headline=headline(judged),
        scale=scale,
        summary=SCALES[scale].summary,
        placeholder=DATA,
        judged=judged,
        titles={name: FIGURES[name].title for name in figures},
        drawings=drawings,
        pictures=pictures,
        missing={name: run.state for name, run in runs.items() if not run.finished},
        count=len(runs),
        runs=[(run_row(run)[: len(SHOWN_RUNS)], run.command) for run in runs.values()],
        run_heads=SHOWN_RUNS,
        uncertified=uncertified,
        norm_heads=SHOWN_NORMS,
        norms=shown_norms(theory, runs),
    )
    rows = (claims_rows(judged), [run_row(run) for run in runs.values()], norms_rows(theory, runs))
    replace(output / PAGE, page)
    for (name, heads), lines in zip(TABLES.items(), rows, strict=True):
        replace(output / name, csv_text(heads, lines))
    return judged


def headline(judged: Mapping[str, Sequence[Judgement]]) -> str:
    """One sentence that says what came out."""
    kinds = [one.kind for group in judged.values() for one in group]
    if all(kind == "not judged" for kind in kinds):
        return "Everything runs; this scale is too small to judge the paper's claims"
    counts = [f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds]
    return f"Of {len(kinds)} claims of the paper: {', '.join(counts)}"


def certificates(runs: Iterable[Outcome]) -> tuple[dict[str, Optimality], dict[str, str]]:
    """The certificate of each finished run, from the class means of its last snapshot; or why there is none."""
    found, reasons = {}, {}
    for run in runs:
        if run.finished:
            try:
                found[run.experiment.name] = certify_snapshot(run.config, last_snapshot(run.folder))
            except (ValueError, FileNotFoundError) as error:
                reasons[run.experiment.name] = str(error)
    return found, reasons


def _panels(drawings: Mapping[str, Sequence[Drawing]]) -> list[tuple[str, Drawing, str, go.Figure]]:
    """(figure, drawing, id of the panel, panel) of every panel."""
    return [
        (name, drawing, panel_id(name, drawing.title, title), panel)
        for name, group in drawings.items()
        for drawing in group
        for title, panel in drawing.panels.items()
    ]


def panel_id(*words: str) -> str:
    """An id that HTML and file systems take."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _pictures(drawings: Mapping[str, Sequence[Drawing]], folder: Path) -> dict[str, str]:
    """Sources of images by panel; each drawing also becomes a file."""
    from neuralcollapse.report.vector import data_uri, svg_text

    make_folder(folder)
    for name, group in drawings.items():
        for drawing in group:
            replace(folder / f"{panel_id(name, drawing.title)}.svg", svg_text(_together(drawing), _FILE))
    return {panel: data_uri(svg_text(figure, _PANEL)) for _, _, panel, figure in _panels(drawings)}


def _together(drawing: Drawing) -> go.Figure:
    """All panels of a drawing in one figure, with a legend."""
    from plotly.subplots import make_subplots

    columns = 2 if len(drawing.panels) in (2, 4) else min(3, len(drawing.panels))
    rows = -(-len(drawing.panels) // columns)
    titles = list(drawing.panels)
    figure = make_subplots(
        rows, columns, subplot_titles=titles, vertical_spacing=0.44 / rows, horizontal_spacing=0.08
    )  # fmt: skip
    for place, panel in enumerate(drawing.panels.values()):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        for trace in panel.data:
            named = place == 0 and trace.name in drawing.legend and trace.fill is None
            figure.add_trace(trace, **at)
            figure.data[-1].showlegend = named
        figure.update_xaxes(panel.layout.xaxis.to_plotly_json(), **at)
        figure.update_yaxes(panel.layout.yaxis.to_plotly_json(), **at)
    laid_out(figure, 110 + 240 * rows)
    legend = {"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0}
    figure.update_layout(legend=legend, margin={"t": 70})
    return figure


def _own(name: str) -> str:
    return resources.files(__package__).joinpath("pages", name).read_text(encoding="utf-8")
