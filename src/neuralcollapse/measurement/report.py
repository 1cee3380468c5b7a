"""What a measurement found, as a table, a dictionary, a frame, a page and in words."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse import valid_json
from neuralcollapse.geometry import ClassStatistics, CollapseMetrics, Moments
from neuralcollapse.geometry.measures import MEASURES
from neuralcollapse.geometry.tables import cell, frame, goal, grouped, html_table, sentences
from neuralcollapse.measurement.depth import NetworkDepth


@dataclass(frozen=True)
class CollapseReport:
    """What :func:`neuralcollapse.measure` found. Prints as a table, and shows as one in a notebook."""

    metrics: CollapseMetrics
    """Measures of the features that enter the classifier."""
    accuracy: float | None
    """Share of the samples measured that the classifier decides correctly. None where there is no classifier."""
    ncc_mismatch: float | None
    """Share of decisions that differ from the nearest class centre. None where features were too many to hold."""
    layers: dict[str, CollapseMetrics]
    """Measures of the inner layers asked for, by name."""
    moments: Moments
    """Class moments of the features that enter the classifier."""
    classifier: str
    """Dotted name of the classifier layer; empty where there is none."""
    weight: Float[Tensor, "K d"] | None = field(default=None, repr=False)
    """W as the forward pass used it: normalised, pruned, merged with its adapter."""
    bias: Float[Tensor, " K"] | None = field(default=None, repr=False)
    """b likewise; None where the classifier has none."""
    features: Float[Tensor, "N d"] | None = field(default=None, repr=False)
    """The features (this process's), where they were held."""
    labels: Int[Tensor, " N"] | None = field(default=None, repr=False)
    """Their labels."""
    streamed: ClassStatistics | None = field(default=None, repr=False)
    """The statistics behind the moments, where features were streamed or merged over processes."""
    depth: NetworkDepth | None = None
    """Collapse against depth, with ``layers="all"``."""

    @property
    def statistics(self) -> ClassStatistics:
        """Statistics of the features that enter the classifier: to be saved, merged, or given to NECO."""
        if self.streamed is None:
            assert self.features is not None
            assert self.labels is not None
            gathered = ClassStatistics(self.moments.num_classes, self.moments.feature_dim)
            gathered.update(self.features, self.labels)
            object.__setattr__(self, "streamed", gathered)
        assert self.streamed is not None
        return self.streamed

    def to_dict(self) -> dict[str, float | None]:
        """Every measure of the classifier's features by name, accuracy and mismatch included."""
        return {**self.metrics.to_dict(), "ncc_mismatch": self.ncc_mismatch, "accuracy": self.accuracy}

    def to_json(self, *, indent: int | None = 1) -> str:
        """:meth:`to_dict`, with what was measured, as valid JSON: a number that is not finite is null.

        >>> import json, torch, neuralcollapse
        >>> batch = torch.randn(8, 2), torch.arange(8) % 2
        >>> report = neuralcollapse.measure(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2)), [batch])
        >>> json.loads(report.to_json())["samples"]
        8
        """
        found: dict[str, Any] = {
            "classifier": self.classifier,
            "samples": self.moments.total,
            "classes": self.moments.num_classes,
            "feature_dim": self.moments.feature_dim,
            **self.to_dict(),
        }
        if self.layers:
            found["layers"] = {name: metrics.to_dict() for name, metrics in self.layers.items()}
        if self.depth is not None:
            found["depth"] = self.depth.to_dict()
        return valid_json.dumps(found, indent=indent)

    def to_frame(self) -> Any:
        """The measures as a pandas DataFrame: one row per measure, one column per layer.

        Raises:
            ImportError: if pandas is not installed.
        """
        return frame(self._columns())

    def plot(self, names: Sequence[str] | None = None, *, by_layer: str | None = None, backend: str = "plotly") -> Any:
        """Draw the values of several measures, or one measure by layer.

        Args:
            names: the measures to draw; NC1 to NC4 by default.
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
            return plot_values(self, names, backend=backend)
        if names is not None:
            raise ValueError(
                f"names={list(names)!r} and by_layer={by_layer!r} draw different figures: give one of them"
            )
        if not self.layers:
            raise ValueError(f"by_layer={by_layer!r} needs inner layers: measure them with measure(..., layers=[...])")
        if by_layer not in MEASURES:
            raise ValueError(f"by_layer={by_layer!r} is no measure: choose one of {', '.join(MEASURES)}")
        columns = self._columns()
        return plot_layers({name: columns[name] for name in [*self.layers, self._column]}, by_layer, backend=backend)

    def table(self) -> Any:
        """The measures as a rich table: group by group, one column per layer, with the value at collapse."""
        from rich.table import Table

        columns = self._columns()
        table = Table(title=self._title())
        table.add_column("measure", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", overflow="fold")
        table.add_column("at collapse", justify="right")
        for group, rows in grouped(columns):
            table.add_row(f"[bold]{group}[/]")
            for measure in rows:
                cells = (cell(column.get(measure.name)) for column in columns.values())
                table.add_row(f"  {measure.name}", *cells, goal(measure))
        if self.depth is not None:
            table.add_row("[bold]depth[/]")
            for name, values, ideal in self._depth_rows():
                table.add_row(f"  {name}", *map(cell, values), f"{ideal:g}")
            table.caption = self.depth.explain()
        return table

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=100).print(self.table())
        return stream.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """The table for notebooks; each name shows its meaning under the pointer."""
        if self.depth is None:
            return html_table(self._columns(), self._title())
        table = html_table(self._columns(), self._title(), more={"depth": list(self._depth_rows())})
        return f"{table}<p>{html.escape(self.depth.explain())}</p>"

    def explain(self) -> str:
        """What was found, in words: how far each of the four effects has come, and what the numbers rest on."""
        lines = [f"{self._title()}, {self.moments.feature_dim} features per sample.", *sentences(self.to_dict())]
        if self.accuracy is not None:
            lines.append(f"The classifier decides {self.accuracy:.2%} of the samples correctly.")
        if self.ncc_mismatch is not None:
            lines.append(f"The nearest class mean disagrees with it on {self.ncc_mismatch:.2%} of them.")
        if self.moments.rank < self.moments.possible_rank:
            lines.append(
                f"The class means span only {self.moments.rank} of {self.moments.possible_rank} directions, so NC1 is "
                "measured in these alone."
            )
        falling = [(name, metrics.nc1) for name, metrics in self.layers.items() if metrics.nc1 is not None]
        if falling:
            lines.append("NC1 by layer: " + ", ".join(f"{name} {value:.3g}" for name, value in falling) + ".")
        if self.depth is not None and self.depth.explain():
            lines.append(self.depth.explain())
        return "\n".join(lines)

    def _title(self) -> str:
        samples = f"{self.moments.total:,} samples, {self.moments.num_classes} classes"
        return f"Neural collapse of {self.classifier or 'the features'}: {samples}"

    @property
    def _column(self) -> str:
        return self.classifier or "features"

    def _columns(self) -> dict[str, dict[str, float | None]]:
        columns = {self._column: self.to_dict()}
        for name, metrics in self.layers.items():
            columns[name] = metrics.to_dict()
            if self.depth is not None:
                columns[name] |= {"ncc_mismatch": self.depth.layers[name].ncc_mismatch}
        return columns

    def _depth_rows(self) -> Iterator[tuple[str, list[float | int | None], float]]:
        """Name, value in each column and value at collapse, of what the depth adds to the measures."""
        assert self.depth is not None
        dimension = float(min(len(self.moments.present) - 1, self.moments.feature_dim))
        rows = [layer.to_dict() for layer in self.depth.layers.values()]
        for name in ("effective_rank", "stable_rank", "numerical_rank"):
            values = [row[name] for row in rows]
            if any(value is not None for value in values):
                yield name, [None, *values], dimension
