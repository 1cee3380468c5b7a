"""What ``measure(..., task="regression")`` gives: numbers, a table, sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.regression import RegressionMetrics
from neuralcollapse.geometry.tables import Ideals, Values, sentences
from neuralcollapse.measurement.presentation import Presented


@dataclass(frozen=True)
class RegressionReport(Presented):
    """What ``measure(..., task="regression")`` found. Prints as a table, and shows as one in a notebook."""

    headline: ClassVar[tuple[str, ...]] = ("nrc1", "nrc2", "nrc3")

    metrics: RegressionMetrics
    """Measures of the features that enter the last layer."""
    r_squared: float | None
    """Share of the targets' variance that the predictions explain, averaged over targets. None without a last layer,
    NaN where a target does not vary."""
    layers: dict[str, RegressionMetrics]
    """Measures of the inner layers asked for, by name."""
    samples: int
    """All samples, N."""
    targets: int
    """Numbers to predict, n."""
    feature_dim: int
    """Width of the features, d."""
    classifier: str
    """Dotted name of the last layer; empty where there is none."""
    weight: Float[Tensor, "n d"] | None = field(default=None, repr=False)
    """W as the forward pass used it."""
    bias: Float[Tensor, " n"] | None = field(default=None, repr=False)
    """b as the forward pass used it."""

    def to_dict(self) -> dict[str, float | None]:
        """Every measure of the last layer's features by name."""
        return {**self.metrics.to_dict(), "r_squared": self.r_squared}

    def explain(self) -> str:
        """What was found, in words."""
        found = self.metrics
        lines = [
            f"{self._title()}, {self.feature_dim} features per sample.",
            *sentences(self.to_dict(), self.headline),
            f"The features have a stable rank of {found.stable_rank:.3g}; at collapse it is at most {self.targets}, "
            "the number of targets.",
        ]
        if found.gamma is not None and not math.isnan(found.gamma):
            lines.append(
                f"NRC3 is smallest for γ = {found.gamma:.3g}; at the optimum γ = N λ_W λ_H, 0 without weight decay."
            )
        if self.r_squared is not None:
            lines.append(f"The predictions explain {self.r_squared:.2%} of the variance of the targets.")
        return "\n".join(lines)

    def _title(self) -> str:
        what = self.classifier or "the features"
        return (
            f"Regression collapse of {what}: {self.samples:,} samples, {self.targets} target{'s' * (self.targets > 1)}"
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "task": "regression",
            "classifier": self.classifier,
            "samples": self.samples,
            "targets": self.targets,
            "feature_dim": self.feature_dim,
        }

    def _more(self) -> dict[str, Any]:
        return {"layers": {name: metrics.to_dict() for name, metrics in self.layers.items()}} if self.layers else {}

    def _columns(self) -> dict[str, Values]:
        head: dict[str, Values] = {self.classifier or "features": self.to_dict()}
        return head | {name: metrics.to_dict() for name, metrics in self.layers.items()}

    def _ideals(self) -> Ideals:
        return ideals_of_regression(self.targets)


def ideals_of_regression(targets: int) -> Ideals:
    """Values at collapse that depend on the number of targets: the features span n directions or fewer."""
    return {"stable_rank": f"≤ {targets}"}
