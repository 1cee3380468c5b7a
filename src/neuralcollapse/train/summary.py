"""What a run came to, as a table: each measure before training, early in it and now, with its ideal value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuralcollapse.geometry.change import change, largest_early
from neuralcollapse.geometry.measures import HEADLINE, MEASURES
from neuralcollapse.geometry.tables import frame_bounds

SHOWN = (*HEADLINE, "nc4_relative", "nc2_means", "cdnv", "ncc_mismatch")

_EARLY = (
    "early: the largest value in the first tenth of training, where the paper's curves begin; change: from there.\n"
)
_NOTE = (
    "ideal: the value at complete collapse; ↓ lower is better, ↑ higher is better.\n"
    "NC4 alone grows with the logits, which are small before training: nc4_relative is NC4 in units of the logits."
)


def summary_table(title: str, rows: Sequence[dict[str, str]], lowest: float = 0.0) -> Any:
    """A rich table of a run's measured rows.

    Args:
        title: of the table.
        rows: of metrics.csv, as text.
        lowest: what NC2 and NC3 cannot be below, above 0 where the classes outnumber the dimensions.

    Raises:
        ValueError: if no row is measured.
    """
    from rich.table import Table
    from rich.text import Text

    measured = [row for row in rows if row["nc1"]]
    if not measured:
        raise ValueError("no epoch is measured yet: there is nothing to sum up")
    first, last = measured[0], measured[-1]
    epochs = [int(row["epoch"]) for row in measured]
    early = any(0 < epoch <= epochs[-1] / 10 for epoch in epochs)
    caption = _EARLY + _NOTE if early else _NOTE
    table = Table(title=Text(title, "table.title"), caption=caption, caption_justify="left")
    between = ["early"] if early else []  # a short run has no first tenth
    for column in ("measure", f"epoch {first['epoch']}", *between, f"epoch {last['epoch']}", "change", "ideal"):
        table.add_column(column, justify="left" if column in ("measure", "change") else "right")
    for name in SHOWN:
        if not first.get(name) or not last.get(name):
            continue
        values = (float(row[name]) if row.get(name) else None for row in measured)
        highest = largest_early(epochs, values, epochs[-1])
        before, after = float(first[name]), float(last[name])
        measure = MEASURES[name]
        table.add_row(
            measure.label,
            f"{before:.4g}",
            *("" if highest is None else f"{highest:.4g}" for _ in between),
            f"{after:.4g}",
            change(before if highest is None else highest, after),
            measure.goal(frame_bounds(lowest).get(name)),
        )
    for name in ("train_accuracy", "test_accuracy"):
        tested = [row for row in rows if row.get(name)]
        if tested:
            shares = [f"{float(row[name]):.2%}" for row in (tested[0], tested[-1])]
            if tested[-1]["epoch"] != last["epoch"]:
                shares[1] += f" (epoch {tested[-1]['epoch']})"
            table.add_row(name.replace("_", " "), shares[0], *("" for _ in between), shares[1], "", "↑ 100%")
    return table
