"""What a measurement found, as a table, a dictionary, a frame, a page and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry import ClassStatistics, CollapseMetrics, Moments
from neuralcollapse.geometry.tables import Ideals, Values, sentences
from neuralcollapse.measurement.attack import AttackReport
from neuralcollapse.measurement.depth import NetworkDepth
from neuralcollapse.measurement.presentation import Presented, bound_in_words, ideals_of_classes


@dataclass(frozen=True)
class CollapseReport(Presented):
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
    """b as the forward pass used it; None if the classifier has none."""
    features: Float[Tensor, "N d"] | None = field(default=None, repr=False)
    """The features (this process's), where they were held."""
    labels: Int[Tensor, " N"] | None = field(default=None, repr=False)
    """Their labels."""
    streamed: ClassStatistics | None = field(default=None, repr=False)
    """The statistics behind the moments, where features were streamed or merged over processes."""
    depth: NetworkDepth | None = None
    """Collapse against depth, with ``layers="all"``."""
    attack: AttackReport | None = None
    """Measures of the attacked inputs, with ``attack=``."""

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

    def explain(self) -> str:
        """What was found, in words: how far each of the four effects has come, and what the numbers rest on."""
        lines = [f"{self._title()}, {self.moments.feature_dim} features per sample.", *sentences(self.to_dict())]
        bound = bound_in_words(len(self.moments.present), self.moments.feature_dim)
        if bound and self.metrics.nc2 is not None:
            lines.append(f"{bound} GNC1 to GNC3 take their place for so many classes.")
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
        if self.attack is not None:
            lines.append(self.attack.explain(self.accuracy))
        if self.depth is not None and self.depth.explain():
            lines.append(self.depth.explain())
        return "\n".join(lines)

    def _title(self) -> str:
        samples = f"{self.moments.total:,} samples, {self.moments.num_classes} classes"
        enters = f" that enter {self.classifier!r}" if self.classifier else ""
        return f"Features{enters}: {samples}"

    def _facts(self) -> dict[str, Any]:
        return {
            "classifier": self.classifier,
            "samples": self.moments.total,
            "classes": self.moments.num_classes,
            "feature_dim": self.moments.feature_dim,
        }

    def _more(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.layers:
            found["layers"] = {name: metrics.to_dict() for name, metrics in self.layers.items()}
        if self.depth is not None:
            found["depth"] = self.depth.to_dict()
        if self.attack is not None:
            found["attack"] = {"kind": self.attack.attack.kind, "epsilon": self.attack.attack.epsilon}
            found["attack"] |= self.attack.to_dict() | {"angles": self.attack.angles.tolist()}
        return found

    def _columns(self) -> dict[str, Values]:
        columns: dict[str, Values] = {self.classifier or "features": self.to_dict()}
        if self.attack is not None:
            columns[str(self.attack.attack)] = self.attack.to_dict()
        for name, metrics in self.layers.items():
            columns[name] = metrics.to_dict() | ({} if self.depth is None else self.depth.layers[name].to_dict())
        return columns

    def _inner(self) -> list[str]:
        return list(self.layers)

    def _ideals(self) -> Ideals:
        return ideals_of_classes(len(self.moments.present), self.moments.feature_dim, inner=bool(self.layers))

    def _caption(self) -> str:
        return "" if self.depth is None else self.depth.explain()
