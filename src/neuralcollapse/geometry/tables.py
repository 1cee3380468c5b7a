"""Measures as people read them: an HTML table, a data frame, and sentences."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuralcollapse.extras import missing
from neuralcollapse.geometry.measures import GROUPS, HEADLINE, MEASURES, Measure

Values = Mapping[str, float | None]
"""Measures by name; None where one was not measured."""

Ideals = Mapping[str, float | str]
"""Values at collapse by name, where they depend on the network; a bound, such as ``≤ 3``, is a string."""

BOUNDED = ("nc2", "nc2_means", "nc3")
"""Measures that cannot vanish where the classes outnumber the dimensions: see ``lowest_frame_distance``."""

NEAR, FAR = 0.1, 0.3
"""Distances from zero below and above which words call a measure near and far; an untrained NC2 is often 0.4."""


def frame_bounds(lowest: float) -> Ideals:
    """What stands as the ideal of the measures that cannot be below ``lowest``; nothing where that is 0.

    >>> frame_bounds(0.5)["nc2"], frame_bounds(0.0)
    ('↓ ≥ 0.5', {})
    """
    return dict.fromkeys(BOUNDED, f"↓ ≥ {lowest:.3g}") if lowest > 0 else {}


def grouped(columns: Mapping[str, Values]) -> Iterator[tuple[str, list[Measure]]]:
    """The measures that have a value in any column, group by group."""
    for group in GROUPS:
        rows = [measure for measure in MEASURES.values() if measure.group == group]
        rows = [measure for measure in rows if any(column.get(measure.name) is not None for column in columns.values())]
        if rows:
            yield group, rows


def cell(value: float | int | None) -> str:
    """A value in a table; empty where nothing was measured."""
    return "" if value is None else f"{value:.4g}"


def html_table(columns: Mapping[str, Values], caption: str, ideals: Ideals | None = None) -> str:
    """An HTML table with one row per measure; each name shows its meaning under the pointer.

    Args:
        columns: the measures of each layer.
        caption: of the table.
        ideals: values at collapse, where they depend on the network.
    """
    ideals = ideals or {}
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = [f"<table><caption>{html.escape(caption)}</caption>"]
    lines.append(f"<thead><tr><th>measure</th>{heads}<th>at collapse</th></tr></thead><tbody>")
    for group, rows in grouped(columns):
        lines.append(f'<tr><th colspan="{len(columns) + 2}" style="text-align:left">{html.escape(group)}</th></tr>')
        for measure in rows:
            tip = html.escape(f"{measure.meaning} {measure.source}.", quote=True)
            cells = "".join(f"<td>{cell(column.get(measure.name))}</td>" for column in columns.values())
            name = f'<td style="text-align:left" title="{tip}">{html.escape(measure.title)}</td>'
            goal = html.escape(measure.goal(ideals.get(measure.name)))
            lines.append(f"<tr>{name}{cells}<td>{goal}</td></tr>")
    return "\n".join([*lines, "</tbody></table>"])


def text_table(values: Values, ideals: Ideals | None = None) -> str:
    """Lines of text: one per measure, group by group, with the value at collapse and the direction.

    >>> print(text_table({"nc1": 0.25, "accuracy": 1.0}))
    within-class
      nc1                        0.25         ↓ 0
    decision
      accuracy                   1            ↑ 1
    """
    ideals, lines = ideals or {}, []
    for group, rows in grouped({"value": values}):
        lines.append(group)
        for row in rows:
            goal = row.goal(ideals.get(row.name))
            lines.append(f"  {row.name:<27}{format(values[row.name], '.6g'):<13}{goal}")
    return "\n".join(lines)


def frame(columns: Mapping[str, Values]) -> Any:
    """A pandas DataFrame: one row per measure, one column per layer.

    Raises:
        ImportError: if pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise missing("data frames", "frames") from error
    return pd.DataFrame(dict(columns), dtype=float).rename_axis("measure")


def sentences(values: Values, names: Sequence[str] = (*HEADLINE[:-1], "nc4_relative")) -> list[str]:
    """One line per measure: its value, how near collapse that is, and what it means.

    Args:
        values: the measures.
        names: which of them to tell; zero is their value at collapse, and one is far from it.
    """
    lines = []
    for name in names:
        value = values.get(name)
        if value is not None:
            lines.append(f"{MEASURES[name].title} is {value:.3g}, {_judged(value)}. {MEASURES[name].meaning}")
    return lines


def _judged(value: float) -> str:
    if math.isnan(value):
        return "which means that it is undefined here"
    return "near collapse" if value < NEAR else "far from collapse" if value > FAR else "part of the way"
