"""What a measurement found, as a table, a dictionary, a frame, a page and a sentence."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry import ClassStatistics, CollapseMetrics
from neuralcollapse.geometry.moments import Moments


@dataclass(frozen=True)
class CollapseReport:
    """What :func:`neuralcollapse.measure` found. Prints as a table, and shows as one in a notebook."""

    metrics: CollapseMetrics
    """Measures of the features that enter the classifier."""
    accuracy: float | None
    """Share of the samples measured that the classifier decides rightly. None where there is no classifier."""
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
    bias: Float[Tensor, "K"] | None = field(default=None, repr=False)
    """b likewise; None where the classifier has none."""
    features: Float[Tensor, "N d"] | None = field(default=None, repr=False)
    """The features (this process's), where they were held."""
    labels: Int[Tensor, "N"] | None = field(default=None, repr=False)
    """Their labels."""
    streamed: ClassStatistics | None = field(default=None, repr=False)
    """The statistics behind the moments, where features were streamed or merged over processes."""

    @property
    def statistics(self) -> ClassStatistics:
        """Statistics of the features that enter the classifier, to be saved, merged, or given to NECO."""
        if self.streamed is not None:
            return self.streamed
        assert self.features is not None
        assert self.labels is not None
        gathered = ClassStatistics(self.moments.num_classes, self.moments.feature_dim)
        gathered.update(self.features, self.labels)
        object.__setattr__(self, "streamed", gathered)
        return gathered

    def to_dict(self) -> dict[str, float | None]:
        """Every measure of the classifier's features by name, accuracy and mismatch included."""
        return {**self.metrics.to_dict(), "ncc_mismatch": self.ncc_mismatch, "accuracy": self.accuracy}

    def to_json(self, *, indent: int | None = 1) -> str:
        """:meth:`to_dict`, with what was measured, as valid JSON: infinite and undefined values are strings.

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
        return json.dumps(_plain(found), indent=indent, allow_nan=False)

    def to_frame(self) -> Any:
        """The measures as a pandas DataFrame: one row per measure, one column per layer."""
        import pandas as pd

        columns = {self.classifier or "features": self.to_dict()}
        columns |= {name: metrics.to_dict() for name, metrics in self.layers.items()}
        return pd.DataFrame(columns, dtype=float).rename_axis("measure")

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=100).print(self.table())
        return stream.getvalue().rstrip()

    def table(self) -> Any:
        """The measures as a rich table, one column per layer."""
        from rich.table import Table

        samples = f"{self.moments.total:,} samples, {self.moments.num_classes} classes"
        table = Table(title=f"Neural collapse of {self.classifier or 'the features'}: {samples}")
        table.add_column("measure")
        table.add_column(self.classifier or "features", justify="right")
        for name in self.layers:
            table.add_column(name, justify="right")
        inner = [metrics.to_dict() for metrics in self.layers.values()]
        for name, value in self.to_dict().items():
            if value is not None:
                table.add_row(name, f"{value:.4g}", *(_cell(layer.get(name)) for layer in inner))
        return table


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
