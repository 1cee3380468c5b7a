"""The tables of the gallery: claims, runs, and the network beside the theory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from neuralcollapse.paper.cuts import cut
from neuralcollapse.paper.judgement import Judgement
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.train.optimality import Optimality

AGREES = {True: "yes", False: "no", None: "undecided"}
CLAIMS = ("figure", "claim", "rule", "subject", "measured", "agrees", "verdict", "missing runs")

_MEASURED = ("nc1", "nc2", "nc3", "nc4", "nc4_relative", "train_accuracy", "test_accuracy")
RUNS = (
    "run", "epochs", "cut", "NC1", "NC2", "NC3", "NC4", "NC4 relative", "train", "test", "hours", "device",
    "data", "model", "seed", "command",
)  # fmt: skip
SHOWN_RUNS = RUNS[:12]
"""Columns on the page; the others are in the command."""

NORMS = (
    "run", "cut", "f", "proved bound", "gap", "‖W‖", "‖W‖ predicted", "‖H̄‖", "‖H̄‖ predicted",
    "cross-entropy", "cross-entropy predicted", "distance of WWᵀ", "distance of H̄ᵀH̄", "distance of WH̄", "fitted",
)  # fmt: skip


def claims_rows(judged: Mapping[str, Sequence[Judgement]]) -> list[tuple[str, ...]]:
    """One row per finding; one for a claim without any, so that what is missing is named."""
    rows: list[tuple[str, ...]] = []
    for figure, group in judged.items():
        for one in group:
            head, missing = (figure, one.claim.text, one.claim.rule), " ".join(one.missing)
            findings = [(item.subject, item.measured, AGREES[item.agrees]) for item in one.findings]
            rows += [(*head, *finding, one.verdict, missing) for finding in findings or [("", "", "")]]
    return rows


def run_row(run: Outcome) -> tuple[str, ...]:
    """What a run is and where it ended; only that it has not begun, if so."""
    config = run.config
    facts = (run.data, str(config.model), str(config.seed), run.command)
    if not run.rows:
        return (run.experiment.name, "not begun", cut(run), *[""] * 9, *facts)
    last = run.rows[-1]
    numbers = [_cell(name, last.get(name)) for name in _MEASURED]
    epochs = f"{last['epoch']:.0f}" if run.finished else f"{run.epoch} of {run.epochs}"
    return (run.experiment.name, epochs, cut(run), *numbers, f"{run.hours:.2g}", run.device, *facts)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if "accuracy" in name else f"{value:.3g}"


def norms_rows(theory: Mapping[str, Optimality], runs: Mapping[str, Outcome]) -> list[tuple[str, ...]]:
    """The certificate of each run, and its norms beside the optimum's."""
    rows = []
    for name, found in theory.items():
        pairs = [
            f"{value:.3g}"
            for size in ("weight", "features", "loss")
            for value in (getattr(found.measured, size), getattr(found.predicted, size))
        ]
        distances = ["" if value is None else f"{value:.3g}" for value in found.distances.values()]
        sizes = (f"{found.value:.6g}", f"{found.lower_bound:.6g}", f"{found.gap:.3g}")
        rows.append((name, cut(runs[name]), *sizes, *pairs, *distances, found.decays.fitted))
    return rows


SHOWN_NORMS = (
    "run", "f", "proved bound", "gap, share of f", "‖W‖ (predicted)", "‖H̄‖ (predicted)", "cross-entropy (predicted)",
    "WWᵀ", "H̄ᵀH̄", "WH̄",
)  # fmt: skip


def shown_norms(theory: Mapping[str, Optimality], runs: Mapping[str, Outcome]) -> list[tuple[str, ...]]:
    """The same for the page, in fewer columns."""
    rows = []
    for name, found in theory.items():
        said = cut(runs[name])
        pairs = [
            f"{getattr(found.measured, size):.3g} ({getattr(found.predicted, size):.3g})"
            for size in ("weight", "features", "loss")
        ]
        distances = ["–" if value is None else f"{value:.2g}" for value in found.distances.values()]
        sizes = (f"{found.value:.4g}", f"{found.lower_bound:.4g}", f"{found.gap / found.value:.1%}")
        rows.append((f"{name} ({said})" if said else name, *sizes, *pairs, *distances))
    return rows


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([heads, *rows])
    return text.getvalue()
