"""One HTML page, offline: each reproduced figure beside the paper's claims and what was measured."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from neuralcollapse.paper.claims import judge
from neuralcollapse.paper.drawings import SIZES, draw
from neuralcollapse.paper.experiments import FIGURES, SCALES
from neuralcollapse.paper.judgement import Judgement
from neuralcollapse.paper.norms import Comparison, compare
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.report.figures import image_writer
from neuralcollapse.report.page import fill_page, write_whole

_WIDTH = 1100
"""Of static figures, in pixels."""


def write_gallery(
    output: Path, scale: str, figures: Mapping[str, Sequence[Outcome]], *, static: bool = False
) -> dict[str, list[Judgement]]:
    """Write gallery.html, claims.csv, runs.csv and norms.csv; returns the judged claims by figure.

    Args:
        output: folder.
        scale: its name.
        figures: runs of each figure by its name; those that are not finished are drawn as far as they are.
        static: draw with SVG instead of scripts, and write figures/*.svg too: a small page.

    Raises:
        ImportError: if static figures are asked for and kaleido is not installed.
    """
    small = not SCALES[scale].judged
    judged = {name: judge(name, runs, small=small) for name, runs in figures.items()}
    runs = {run.experiment.name: run for group in figures.values() for run in group}
    theory = {name: compare(run) for name, run in runs.items() if run.experiment.optimizer == "sgd" and run.finished}
    with image_writer() if static else contextlib.nullcontext():
        folder = output / "figures" if static else None
        sections = [_section(name, group, judged[name], theory, folder) for name, group in figures.items()]
    page = fill_page(
        resources.files(__package__).joinpath("gallery.html").read_text(),
        scale=scale,
        summary=html.escape(SCALES[scale].summary),
        contents="".join(f'<a href="#{name}">{FIGURES[name].title}</a>' for name in figures)
        + '<a href="#theory">Theory</a>',
        verdicts=_verdicts_table(judged),
        figures="".join(sections),
        theory=_table(_NORMS, _norms_rows(theory)),
        plotly="" if static else f"<script>{get_plotlyjs()}</script>",
    )
    write_whole(output / "gallery.html", page)
    write_whole(output / "claims.csv", _csv(_CLAIMS, _claims_rows(judged)))
    write_whole(output / "runs.csv", _csv(_RUNS, [row for run in runs.values() if (row := _run_row(run))]))
    write_whole(output / "norms.csv", _csv(_NORMS, _norms_rows(theory)))
    return judged


def _section(
    name: str,
    runs: Sequence[Outcome],
    judged: Iterable[Judgement],
    theory: Mapping[str, Comparison],
    folder: Path | None,
) -> str:
    pictures = "".join(
        f'<h3>{html.escape(title)}</h3><div class="drawing">'
        f"{_svg(folder, f'{name}-{title}', drawing) if folder else _interactive(drawing)}</div>"
        for title, drawing in draw(name, runs, theory).items()
    )
    return (
        f'<section id="{name}"><h2>{FIGURES[name].title}</h2>'
        f'<div class="scroll">{_claims_table(judged)}</div>{pictures}'
        f'<div class="scroll">{_runs_table(runs)}</div></section>'
    )


def _interactive(drawing: go.Figure) -> str:
    options = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return str(drawing.to_html(full_html=False, include_plotlyjs=False, config=options))


def _svg(folder: Path, title: str, drawing: go.Figure) -> str:
    drawing.update_layout(template="plotly_white", paper_bgcolor="white")  # a file is also seen on dark pages
    picture = drawing.to_image("svg", width=_WIDTH, height=drawing.layout.height).decode()
    picture = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", picture)  # of a pixel: a smaller page
    file_name = re.sub(r"\W+", "-", title.partition(" (")[0].lower())
    write_whole(folder / f"{file_name}.svg", picture)
    return str(picture)


_AGREES = {True: "yes", False: "no", None: "undecided"}
_MARKS = {True: "✓", False: "✗", None: "–"}
_CLAIMS = ("figure", "claim", "rule", "subject", "measured", "agrees", "verdict")


def _claims_rows(judged: Mapping[str, list[Judgement]]) -> list[tuple[str, ...]]:
    return [
        (
            figure,
            one.claim.text,
            one.claim.rule,
            finding.subject,
            finding.measured,
            _AGREES[finding.agrees],
            one.verdict,
        )
        for figure, group in judged.items()
        for one in group
        for finding in one.findings
    ]


def _claims_table(judged: Iterable[Judgement]) -> str:
    rows = []
    for one in judged:
        findings = "".join(
            f"<li>{_MARKS[finding.agrees]} {html.escape(finding.subject)}: {html.escape(finding.measured)}</li>"
            for finding in one.findings
        )
        rows.append(
            f'<tr><td class="wrap">{html.escape(one.claim.text)}</td>'
            f'<td class="wrap">{html.escape(one.claim.rule)}</td>'
            f"<td><ul>{findings}</ul></td>{_verdict(one)}</tr>"
        )
    return _framed(("the paper's claim", "confirmed if", "measured", "verdict"), rows)


def _verdicts_table(judged: Mapping[str, list[Judgement]]) -> str:
    rows = [
        f'<tr><td><a href="#{name}">{FIGURES[name].title.partition(":")[0]}</a></td>'
        f'<td class="wrap">{html.escape(one.claim.text)}</td>{_verdict(one)}</tr>'
        for name, group in judged.items()
        for one in group
    ]
    return _framed(("figure", "the paper's claim", "verdict"), rows)


def _verdict(judgement: Judgement) -> str:
    kind = judgement.kind.replace(" ", "-")
    return f'<td class="verdict {kind}">{judgement.verdict}</td>'


_MEASURED = ("nc1", "nc2", "nc3", "nc4", "train_accuracy", "test_accuracy")
_RUNS = (
    "run", "data", "model", "seed", "samples a class", "epochs", "hours",
    "NC1", "NC2", "NC3", "NC4", "train", "test", "command",
)  # fmt: skip


def _run_row(run: Outcome) -> tuple[str, ...]:
    """Nothing for a run that has not begun."""
    if not run.rows:
        return ()
    config, last = run.config, run.rows[-1]
    numbers = [
        f"{last[name]:.2%}" if "accuracy" in name else f"{last.get(name, float('nan')):.3g}" for name in _MEASURED
    ]
    return (
        run.experiment.name, config.dataset, str(config.model), str(config.seed),
        str(config.samples_per_class or "all"),
        f"{last['epoch']:.0f}" + ("" if run.finished else f" of {config.epochs}"), f"{run.hours:.2g}",
        *numbers, run.command,
    )  # fmt: skip


def _runs_table(runs: Sequence[Outcome]) -> str:
    rows = []
    for run in runs:
        cells = _run_row(run) or (run.experiment.name, "not begun", *[""] * (len(_RUNS) - 3), run.command)
        plain = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells[:-1])
        command = f'<td class="command" colspan="{len(cells) - 1}"><code>{html.escape(cells[-1])}</code></td>'
        rows.append(f'<tr class="run">{plain}</tr><tr>{command}</tr>')
    return _framed(_RUNS[:-1], rows) if rows else ""


_NORMS = (
    "run",
    *(f"{size.partition(',')[0]} {kind}" for size in SIZES.values() for kind in ("measured", "theory")),
    "fitted",
)


def _norms_rows(theory: Mapping[str, Comparison]) -> list[tuple[str, ...]]:
    rows = []
    for name, comparison in theory.items():
        cells = [name]
        for size in SIZES:
            for norms in (comparison.measured[-1], comparison.last and comparison.last.predicted):
                value = getattr(norms, size, None)
                cells.append("none" if value is None else f"{value:.3g}")
        rows.append((*cells, comparison.last.decays.fitted if comparison.last else "no λ's"))
    return rows


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return _framed(heads, ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows])


def _framed(heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _csv(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([heads, *rows])
    return text.getvalue()
