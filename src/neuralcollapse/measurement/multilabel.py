"""Multi-label collapse of a model over a loader: what ``measure(..., task="multilabel")`` does."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.geometry import CollapseWarning, Moments, collapse_metrics
from neuralcollapse.geometry.measures import MEASURES
from neuralcollapse.geometry.multilabel import (
    LabelSetMeans,
    MultilabelMetrics,
    check_tags,
    label_set_means,
    merge_label_sets,
    with_tags,
)
from neuralcollapse.geometry.tables import Ideals, Values, sentences
from neuralcollapse.measurement.gather import Budget, Gathered
from neuralcollapse.measurement.missing import not_said_again
from neuralcollapse.measurement.options import Captured, Options
from neuralcollapse.measurement.passes import agreed_widths, entered, finished, taken
from neuralcollapse.measurement.presentation import Presented, bound_in_words, ideals_of_classes
from neuralcollapse.measurement.ranks import Ranks

_SETS_BYTES = 2 << 30
"""Means of all sets of labels that occur, of one layer."""


@dataclass(frozen=True)
class MultilabelReport(Presented):
    """What ``measure(..., task="multilabel")`` found. Prints as a table, and shows as one in a notebook."""

    headline: ClassVar[tuple[str, ...]] = ("nc1", "nc2", "nc3", "tag_angle")

    metrics: MultilabelMetrics
    """Measures of the features that enter the classifier."""
    set_accuracy: float | None
    """Share of samples whose m largest logits are those of their m labels. None where there is no classifier."""
    layers: dict[str, MultilabelMetrics]
    """Measures of the inner layers asked for, by name."""
    samples: int
    """All samples, N."""
    moments: Moments
    """Class moments of the samples with one label."""
    classifier: str
    """Dotted name of the classifier layer; empty where there is none."""
    weight: Float[Tensor, "K d"] | None = field(default=None, repr=False)
    """W as the forward pass used it."""
    bias: Float[Tensor, " K"] | None = field(default=None, repr=False)
    """b as the forward pass used it."""
    sets: LabelSetMeans | None = field(default=None, repr=False)
    """Mean feature of each set of labels that occurs. None where they were too many to hold."""

    def to_dict(self) -> dict[str, float | None]:
        """Every measure of the classifier's features by name."""
        return {**self.metrics.to_dict(), "set_accuracy": self.set_accuracy}

    def explain(self) -> str:
        """What was found, in words."""
        found = self.to_dict()
        lines = [f"{self._title()}, {self.moments.feature_dim} features per sample.", self._caption()]
        lines += sentences(found, ("nc1", "nc2", "nc3"))
        bound = bound_in_words(len(self.moments.present), self.moments.feature_dim)
        if bound and self.metrics.nc2 is not None:
            lines.append(bound)
        if self.metrics.tag_angle is not None:
            by_size = ", ".join(f"{angle:.3g}° with {m} labels" for m, angle in self.metrics.angles.items())
            lines.append(
                f"{MEASURES['tag_angle'].title} is {self.metrics.tag_angle:.3g}° ({by_size}), and 0° at collapse. "
                f"{MEASURES['tag_angle'].meaning}"
            )
        if self.set_accuracy is not None:
            lines.append(f"The largest logits are those of the sample's labels on {self.set_accuracy:.2%} of them.")
        return "\n".join(lines)

    def _title(self) -> str:
        what = self.classifier or "the features"
        return f"Multi-label collapse of {what}: {self.samples:,} samples, {self.moments.num_classes} labels"

    def _caption(self) -> str:
        return f"NC1 to NC3 are those of the {self.moments.total:,} samples with one label."

    def _facts(self) -> dict[str, Any]:
        return {
            "task": "multilabel",
            "classifier": self.classifier,
            "samples": self.samples,
            "samples_with_one_label": self.moments.total,
            "labels": self.moments.num_classes,
            "feature_dim": self.moments.feature_dim,
        }

    def _more(self) -> dict[str, Any]:
        found: dict[str, Any] = {"angles": self.metrics.angles, "scales": self.metrics.scales}
        if self.layers:
            found["layers"] = {name: metrics.to_dict() for name, metrics in self.layers.items()}
        return found

    def _columns(self) -> dict[str, Values]:
        head: dict[str, Values] = {self.classifier or "features": self.to_dict()}
        return head | {name: metrics.to_dict() for name, metrics in self.layers.items()}

    def _ideals(self) -> Ideals:
        return ideals_of_classes(len(self.moments.present), self.moments.feature_dim, inner=bool(self.layers))


class _Layer:
    """What is gathered of one layer."""

    def __init__(self, budget: Budget, labels: int, width: int) -> None:
        self.single = Gathered(budget, labels)
        self.single.width = width
        self.too_many = False
        self._parts: list[LabelSetMeans] = []
        self._pending = 0

    def add(self, features: Tensor, hot: Tensor) -> None:
        """Take a batch; means of sets are merged once they have doubled."""
        one = hot.sum(1) == 1
        if bool(one.any()):
            self.single.add(features[one], hot[one].int().argmax(1))
        if self.too_many:
            return
        found = label_set_means(features.cpu(), hot.cpu())
        self._parts.append(found)
        self._pending += len(found.sets)
        if self._pending > 2 * len(self._parts[0].sets) + 1024:
            self._parts = [merge_label_sets(self._parts)]
            self._pending = 0
            self.too_many = self._parts[0].means.nbytes > _SETS_BYTES
            self._parts = [] if self.too_many else self._parts

    def sets(self, ranks: Ranks) -> LabelSetMeans | None:
        """The means of all ranks; None where one of them has too many."""
        own = merge_label_sets(self._parts) if self._parts else None
        found = ranks.gather((self.too_many, own))
        if any(too_many for too_many, _ in found):
            return None
        return merge_label_sets([part for _, part in found if part is not None])


def measure_label_sets(
    model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks, *, hold_bytes: int, allow_missing: bool
) -> MultilabelReport:
    """One pass of all ranks over the data; see :func:`neuralcollapse.measure`.

    Raises:
        ValueError: if the loader is empty, or batches disagree on the number of labels.
    """
    budget = Budget(hold_bytes)
    layers: dict[str, _Layer] = {}
    seen = {"samples": 0, "labels": 0}
    right: int | None = None

    def take(batch: Captured) -> None:
        nonlocal right
        hot = batch.labels
        _check_width(hot, capture.num_classes, seen["labels"])
        seen["samples"], seen["labels"] = seen["samples"] + len(hot), hot.shape[1]
        for name, features in {"": batch.features, **batch.layers}.items():
            if name not in layers:
                layers[name] = _Layer(budget, hot.shape[1], features.shape[1])
            layers[name].add(features, hot.to(features.device))
        if batch.logits is not None:
            right = (right or 0) + _decided(batch.logits, hot.to(batch.logits.device))

    with contextlib.ExitStack() as leaving:
        capture = entered(model, loader, options, ranks, leaving)
        error = taken(capture, ranks, take)
        widths = {name: layer.single.width for name, layer in layers.items()}
        records = ranks.agree(error, widths=widths or {"": None}, right=right, **seen)
        samples = sum(record["samples"] for record in records)
        if not samples:
            raise ValueError("no samples were seen: the loader is empty")
        finished(capture, ranks)
    labels = max(record["labels"] for record in records)
    answers = [record["right"] for record in records if record["right"] is not None]
    metrics: dict[str, MultilabelMetrics] = {}
    main: tuple[Moments, LabelSetMeans | None] | None = None
    for name, width in agreed_widths(records).items():
        layer = layers.get(name) or _Layer(budget, labels, width)
        moments, _ = layer.single.moments(ranks, width, labels)
        sets = layer.sets(ranks)
        if main is None:
            _check_found(moments, sets, samples, allow_missing)
            main = moments, sets
        head = () if name else (capture.weight, capture.bias)
        with not_said_again(allow_missing and bool(name)):
            metrics[name] = with_tags(collapse_metrics(moments, *head, allow_missing=allow_missing), sets)
    assert main is not None
    return MultilabelReport(
        metrics=metrics.pop(""),
        set_accuracy=sum(answers) / samples if answers else None,
        layers=metrics,
        samples=samples,
        moments=main[0],
        classifier="" if capture.head is None else capture.head.name,
        weight=capture.weight,
        bias=capture.bias,
        sets=main[1],
    )


def _check_width(hot: Tensor, outputs: int | None, before: int) -> None:
    if outputs is not None and hot.shape[1] != outputs:
        raise ValueError(f"labels have {hot.shape[1]} columns, and the classifier {outputs} outputs: they must agree")
    if before and hot.shape[1] != before:
        raise ValueError(f"labels have {hot.shape[1]} columns in one batch, and {before} in those before")


def _check_found(moments: Moments, sets: LabelSetMeans | None, samples: int, allow_missing: bool) -> None:
    if moments.total == samples:
        raise ValueError(
            "every sample carries exactly one label, which is task='classification': give labels.argmax(1) and leave "
            "out task="
        )
    check_tags((moments.counts > 0).cpu(), allow_missing)
    if sets is None:
        warnings.warn(
            "the means of the sets of labels exceed 2 GiB and were not held: tag_angle is left out",
            CollapseWarning,
            stacklevel=4,
        )


def _decided(logits: Tensor, hot: Tensor) -> int:
    """Samples whose m largest logits are those of their m labels."""
    places = logits.argsort(1, descending=True).argsort(1)
    return int(((places < hot.sum(1, keepdim=True)) == hot).all(1).sum())
