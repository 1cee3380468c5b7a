"""What every report of a measurement can do: print itself, and turn into a page, a frame, a figure and JSON."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from neuralcollapse import valid_json
from neuralcollapse.geometry.etf import lowest_frame_distance
from neuralcollapse.geometry.measures import HEADLINE, MEASURES
from neuralcollapse.geometry.tables import Ideals, Values, cell, frame, frame_bounds, grouped, html_table


def rich_table(columns: Mapping[str, Values], title: str, ideals: Ideals) -> Any:
    """The measures of each layer as a rich table.

    Args:
        columns: the measures of each layer.
        title: of the table.
        ideals: values at collapse, where they depend on the network.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "table.title"))
    table.add_column("measure", no_wrap=True)
    for name in columns:
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_column("at collapse", justify="right")
    for group, rows in grouped(columns):
        table.add_row(f"[bold]{group}[/]")
        for measure in rows:
            cells = (cell(column.get(measure.name)) for column in columns.values())
            table.add_row(f"  {measure.name}", *cells, measure.goal(ideals.get(measure.name)))
    return table


def ideals_of_classes(classes: int, feature_dim: int, *, inner: bool = False) -> Ideals:
    """Values at collapse that depend on the shape: the ranks of the class means, and bounds where no simplex fits.

    Args:
        classes: those with samples.
        feature_dim: d.
        inner: whether inner layers stand beside. They have other dimensions, and of the bounded measures nc2_means
            alone, which then has no bound.
    """
    rank = float(min(classes - 1, feature_dim))
    ranks: Ideals = dict.fromkeys(("effective_rank", "stable_rank", "numerical_rank"), rank)
    bounds = frame_bounds(lowest_frame_distance(classes, feature_dim))
    return {**ranks, **{name: bound for name, bound in bounds.items() if not (inner and name == "nc2_means")}}


def bound_in_words(classes: int, feature_dim: int) -> str:
    """Why NC2 and NC3 cannot vanish; empty where they can.

    Args:
        classes: those with samples.
        feature_dim: d.
    """
    lowest = lowest_frame_distance(classes, feature_dim)
    if lowest <= 0:
        return ""
    return (
        f"NC2 and NC3 cannot be below {lowest:.3g} here: {classes} classes form a simplex ETF only in {classes - 1} "
        "dimensions or more."
    )


class Presented:
    """A report of a measurement, in each of its forms. What it found is said by the methods with an underscore."""

    headline: ClassVar[tuple[str, ...]] = HEADLINE
    """The measures that a figure shows where none are named."""

    def to_dict(self) -> Mapping[str, float | None]:
        """Every measure by name."""
        raise NotImplementedError

    def _title(self) -> str:
        """What was measured, in one line."""
        raise NotImplementedError

    def _facts(self) -> dict[str, Any]:
        """What was measured, by name."""
        raise NotImplementedError

    def _columns(self) -> dict[str, Values]:
        """The measures by name, layer by layer; the head comes first."""
        raise NotImplementedError

    def _inner(self) -> list[str]:
        """The columns that are inner layers, in the order in which they run."""
        return list(self._columns())[1:]

    def _more(self) -> dict[str, Any]:
        """What JSON holds beside the measures."""
        return {}

    def _ideals(self) -> Ideals:
        """Values at collapse, where they depend on the network."""
        return {}

    def _caption(self) -> str:
        """Sentences under the table; empty where there are none."""
        return ""

    def to_json(self, *, indent: int | None = 1) -> str:
        """:meth:`to_dict`, with what was measured, as valid JSON: a number that is not finite is null.

        >>> import json, torch, neuralcollapse
        >>> batch = torch.randn(8, 2), torch.arange(8) % 2
        >>> report = neuralcollapse.measure(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2)), [batch])
        >>> json.loads(report.to_json())["samples"]
        8
        """
        return valid_json.dumps({**self._facts(), **self.to_dict(), **self._more()}, indent=indent)

    def to_frame(self) -> Any:
        """The measures as a pandas DataFrame: one row per measure, one column per layer.

        Raises:
            ImportError: if pandas is not installed.
        """
        return frame(self._columns())

    def plot(self, names: Sequence[str] | None = None, *, by_layer: str | None = None, backend: str = "plotly") -> Any:
        """Draw the values of several measures, or one measure by layer.

        Args:
            names: the measures to draw; the headline by default, which is NC1 to NC4 for a classifier.
            by_layer: one measure to draw against depth, such as ``"nc1"``. The layers are those that
                :func:`neuralcollapse.measure` was asked for with ``layers=``, then the features of the classifier.
            backend: ``"plotly"`` or ``"matplotlib"``.

        Returns:
            A ``plotly.graph_objects.Figure``, or a ``matplotlib.figure.Figure``.

        Raises:
            ValueError: if a name is unknown, no value is positive, no layers were measured, or both ``names`` and
                ``by_layer`` are given.
            ImportError: if matplotlib is asked for and not installed.

        >>> import torch, neuralcollapse
        >>> batch = torch.randn(8, 2), torch.arange(8) % 2
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))
        >>> neuralcollapse.measure(model, [batch]).plot(["nc2", "nc3"]).data[0].y
        ('NC2', 'NC3')
        """
        from neuralcollapse.figures import plot_layers, plot_values

        if by_layer is None:
            return plot_values(self, self.headline if names is None else names, backend=backend)
        if names is not None:
            raise ValueError(
                f"names={list(names)!r} and by_layer={by_layer!r} draw different figures: give one of them"
            )
        if not self._inner():
            raise ValueError(f"by_layer={by_layer!r} needs inner layers: measure them with measure(..., layers=[...])")
        if by_layer not in MEASURES:
            raise ValueError(f"by_layer={by_layer!r} is no measure: choose one of {', '.join(MEASURES)}")
        columns = self._columns()
        shown = [*self._inner(), next(iter(columns))]
        return plot_layers({name: columns[name] for name in shown}, by_layer, backend=backend)

    def table(self) -> Any:
        """The measures as a rich table: group by group, one column per layer, with the value at collapse."""
        from rich.text import Text

        table = rich_table(self._columns(), self._title(), self._ideals())
        table.caption = Text(self._caption(), "table.caption") if self._caption() else None
        return table

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=100).print(self.table())
        return stream.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """The table for notebooks; each name shows its meaning under the pointer."""
        table = html_table(self._columns(), self._title(), self._ideals())
        return f"{table}<p>{html.escape(self._caption())}</p>" if self._caption() else table
