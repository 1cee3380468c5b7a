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

_COLLAPSED, _OPEN = 0.1, 0.5
"""Distances to the ideal below and above which :func:`sentences` calls a measure near and far."""


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


def goal(measure: Measure) -> str:
    """The value at collapse, with an arrow that tells which way is more collapsed."""
    return f"{'↓' if measure.direction == 'lower' else '↑'} {measure.ideal:g}"


def html_table(
    columns: Mapping[str, Values],
    caption: str,
    *,
    more: Mapping[str, Sequence[tuple[str, Sequence[float | int | None], float]]] | None = None,
) -> str:
    """An HTML table with one row per measure; each name shows its meaning under the pointer.

    Args:
        columns: the measures of each layer.
        caption: of the table.
        more: groups of further rows by name of the group: a name, one value per column, and the value at collapse.
    """
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = [f"<table><caption>{html.escape(caption)}</caption>"]
    lines.append(f"<thead><tr><th>measure</th>{heads}<th>at collapse</th></tr></thead><tbody>")
    for group, rows in grouped(columns):
        lines.append(f'<tr><th colspan="{len(columns) + 2}" style="text-align:left">{html.escape(group)}</th></tr>')
        for measure in rows:
            tip = html.escape(f"{measure.meaning} {measure.source}.", quote=True)
            cells = "".join(f"<td>{cell(column.get(measure.name))}</td>" for column in columns.values())
            name = f'<td style="text-align:left" title="{tip}">{html.escape(measure.title)}</td>'
            lines.append(f"<tr>{name}{cells}<td>{goal(measure)}</td></tr>")
    for group, others in (more or {}).items():
        lines.append(f'<tr><th colspan="{len(columns) + 2}" style="text-align:left">{html.escape(group)}</th></tr>')
        for label, values, ideal in others:
            cells = "".join(f"<td>{cell(value)}</td>" for value in values)
            name = f'<td style="text-align:left">{html.escape(label.replace("_", " "))}</td>'
            lines.append(f"<tr>{name}{cells}<td>{ideal:g}</td></tr>")
    return "\n".join([*lines, "</tbody></table>"])


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


def sentences(values: Values) -> list[str]:
    """One line for each of the four effects: its value, how near collapse that is, and what it means."""
    lines = []
    for name in (*HEADLINE[:-1], "nc4_relative"):
        value = values.get(name)
        if value is not None:
            lines.append(f"{MEASURES[name].title} is {value:.3g}, {_judged(value)}. {MEASURES[name].meaning}")
    return lines


def _judged(value: float) -> str:
    if math.isnan(value):
        return "which means that it is undefined here"
    return "near collapse" if value < _COLLAPSED else "far from collapse" if value > _OPEN else "part of the way"
