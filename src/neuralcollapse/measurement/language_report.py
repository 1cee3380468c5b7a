"""What :func:`neuralcollapse.measure_language_model` gives: numbers, a table, sentences."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from neuralcollapse.geometry import Moments
from neuralcollapse.geometry.measures import MEASURES
from neuralcollapse.geometry.tables import Ideals, Values
from neuralcollapse.measurement.presentation import Presented

_FACTS = ("tokens", "classes", "vocabulary", "min_samples")

_MEASURED = (
    "cdnv_squared", "equinorm_means", "uniformity", "uniformity_variation", "unc3", "duality", "accuracy",
    "ncc_agreement",
)  # fmt: skip


@dataclass(frozen=True)
class LanguageReport(Presented):
    """Measures of linguistic collapse over the tokens that follow often enough. Prints as a table."""

    headline: ClassVar[tuple[str, ...]] = _MEASURED

    tokens: int
    """Positions measured: those whose next token is one of the classes."""
    classes: int
    """Tokens that follow at least ``min_samples`` positions."""
    vocabulary: int
    """Rows of the output embedding."""
    min_samples: int
    """Fewest positions of a class."""
    cdnv_squared: float
    """Mean over pairs of classes of (tr Σ_i + tr Σ_j) / (2 |μ_i - μ_j|⁴), in [0, ∞); 0 at collapse. The paper's
    exponent of the squared distance is 2, so that the measure has a unit, 1 over a squared length."""
    equinorm_means: float
    """Standard deviation over mean of the lengths of the centred class means, in [0, ∞); 0 at collapse."""
    uniformity: float
    """Mean over pairs of log(1/|u_i - u_j|) of the directions of the centred class means (GNC2), in
    [-½ log(2K/(K-1)), ∞); its least value at collapse."""
    uniformity_variation: float
    """Standard deviation of that kernel over pairs, over its absolute mean (the paper's coefficient of variation), in
    [0, ∞); 0 for a simplex ETF."""
    unc3: float
    """Variance over classes of the cosine of w_k and the centred class mean, in [0, 1]; 0 at collapse (UNC3)."""
    duality: float
    """One minus the mean of that cosine, in [0, 2]; 0 where each centred mean points along its row of W."""
    accuracy: float
    """Share of these tokens that the model predicts, in [0, 1]."""
    ncc_agreement: float | None
    """Share of positions whose nearest class centre is the model's own choice among the classes, in [0, 1]; 1 at
    collapse. None with ``ncc=False``, and for data that can be read only once."""
    moments: Moments = dataclasses.field(repr=False)
    """Moments of the classes, in the order of ``token_ids``."""
    token_ids: Int[Tensor, " K"] = dataclasses.field(repr=False)
    """Number of the token that each class is."""

    def to_dict(self) -> dict[str, float | int | None]:
        """All numbers by name."""
        return {**self._facts(), **self._measures()}

    def explain(self) -> str:
        """What was found, in words."""
        lines = [f"{self._title()}, {self.moments.feature_dim} hidden units."]
        for name, value in self._measures().items():
            if value is not None:
                goal = MEASURES[name].goal(self._ideals().get(name))
                lines.append(f"{MEASURES[name].title} is {value:.4g} (at collapse {goal}). {MEASURES[name].meaning}")
        return "\n".join(lines)

    def _title(self) -> str:
        return f"Linguistic collapse: {self.tokens:,} positions, {self.classes:,} of {self.vocabulary:,} tokens"

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FACTS}

    def _measures(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in _MEASURED}

    def _columns(self) -> dict[str, Values]:
        return {"hidden states": self._measures()}

    def _ideals(self) -> Ideals:
        simplex = -math.log(2 * self.classes / (self.classes - 1)) / 2
        fits = self.classes <= self.moments.feature_dim + 1  # otherwise even the best directions stay above it
        return {"uniformity": simplex if fits else f"↓ ≥ {simplex:g}"}
