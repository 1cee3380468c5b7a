"""The counted table of a campaign, as Markdown and JSON."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

import neuralcollapse
from tests.faults.campaign import Verdict

_COLUMNS = ("injected", "survived", "lost", "wrong", "unclear")
"""What is counted; a fault that came after the end of the work is none."""


def counted(verdicts: Sequence[Verdict]) -> dict[tuple[str, str], Counter[str]]:
    """Verdicts per scene and kind."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for verdict in verdicts:
        counts = found.setdefault((verdict.fault.scene, verdict.fault.kind), Counter())
        if not verdict.struck and verdict.survived:
            counts["too late"] += 1  # the work was done before
            continue
        counts["injected"] += 1
        counts["survived"] += verdict.survived
        for name in ("lost", "wrong", "unclear"):
            counts[name] += bool(getattr(verdict, name))
    return found


def markdown(verdicts: Sequence[Verdict]) -> str:
    """One row per scene and kind, and their sum."""
    counts = counted(verdicts)
    lines = ["| work | fault | injected | survived | results lost | wrong numbers | unclear end |"]
    lines += ["| --- | --- | --: | --: | --: | --: | --: |"]
    for (scene, kind), row in counts.items():
        lines.append(f"| {scene} | {kind} | " + " | ".join(str(row[name]) for name in _COLUMNS) + " |")
    total = sum(counts.values(), Counter())
    lines.append("| **all** | | " + " | ".join(f"**{total[name]}**" for name in _COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def write(folder: Path, verdicts: Sequence[Verdict], seed: int, seconds: float) -> None:
    """faults.md, and faults.json with the environment and every fault that was not survived."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.md").write_text(markdown(verdicts))
    rows = [
        {"work": scene, "fault": kind, **{name: row[name] for name in _COLUMNS}}
        for (scene, kind), row in counted(verdicts).items()
    ]
    failed = [
        {"fault": v.fault.name, "struck": v.struck, "lost": v.lost, "wrong": v.wrong, "unclear": v.unclear}
        for v in verdicts
        if not v.survived
    ]
    record = {
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "neuralcollapse": neuralcollapse.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": platform.platform(),
        "rows": rows,
        "not_survived": failed,
    }
    (folder / "faults.json").write_text(json.dumps(record, indent=1) + "\n")
