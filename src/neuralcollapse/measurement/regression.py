"""Regression collapse of a model over a loader: what ``measure(..., task="regression")`` does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.geometry import ClassStatistics, regression
from neuralcollapse.geometry.arithmetic import in_unit, times_power_of_two
from neuralcollapse.geometry.regression import Outside, RegressionMetrics, centred_columns, regression_metrics
from neuralcollapse.geometry.spectra import stable_rank_of
from neuralcollapse.measurement.gather import Budget, Gathered
from neuralcollapse.measurement.options import Captured, Options
from neuralcollapse.measurement.passes import agreed_widths, entered, finished, read_alike, readable_again, taken
from neuralcollapse.measurement.ranks import Ranks
from neuralcollapse.measurement.regression_report import RegressionReport

_LOST = "the features are too many to hold, so NRC1 and NRC2 are left out"


def measure_regression(
    model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks, *, hold_bytes: int
) -> RegressionReport:
    """A pass of all ranks over the data, and another one where features are too many to hold."""
    seen = _Seen(hold_bytes)
    with contextlib.ExitStack() as leaving:
        capture = entered(model, loader, options, ranks, leaving)
        error = taken(capture, ranks, lambda batch: seen.add(batch, capture.num_classes))
        seen.exchange(ranks, error)
        finished(capture, ranks)
    covariance, unit = seen.covariance(ranks)
    if ranks.alone and seen.held:
        metrics = seen.exact(capture.weight)
    else:
        metrics = _streamed(seen, model, loader, options, ranks, capture.weight, covariance, unit)
    return RegressionReport(
        metrics=metrics.pop(""),
        r_squared=None if seen.missed is None else seen.missed.r_squared(covariance.diagonal() * seen.samples, unit),
        layers=metrics,
        samples=seen.samples,
        targets=seen.number,
        feature_dim=seen.widths[""],
        classifier="" if capture.head is None else capture.head.name,
        weight=capture.weight,
        bias=capture.bias,
    )


@dataclass(frozen=True)
class _Squares:
    """Sums of squared errors of each target, in units of 4**unit: no square overflows or vanishes."""

    sums: Float[Tensor, " n"]
    unit: int

    @classmethod
    def of(cls, errors: Float[Tensor, "B n"]) -> _Squares:
        scaled, unit = in_unit(errors)
        return cls(scaled.square().sum(0), unit)

    def __add__(self, other: _Squares) -> _Squares:
        unit = max(self.unit, other.unit)
        sums = (times_power_of_two(part.sums, 2 * (part.unit - unit)) for part in (self, other))
        return _Squares(sum(sums, torch.zeros_like(self.sums)), unit)

    def r_squared(self, spread: Float[Tensor, " n"], unit: int) -> float:
        """One less the share of the targets' own sums of squares, which are in units of 4**unit; NaN where one is 0."""
        shares = times_power_of_two(self.sums / spread.to(self.sums), 2 * (self.unit - unit))
        return float(torch.where(spread > 0, 1 - shares, torch.nan).mean())


class _Seen:
    """What one process has gathered and, after the exchange, what all know.

    Samples are of one group, whose spread within the group is that of all.
    """

    def __init__(self, hold_bytes: int) -> None:
        self._budget = Budget(hold_bytes)
        self.layers: dict[str, Gathered] = {}
        self.targets = Gathered(Budget(hold_bytes), 2)
        self.missed: _Squares | None = None
        """Sum of squared errors of each target; None without a last layer"""
        self.samples = 0
        self.number = 0
        """targets"""
        self.widths: dict[str, int] = {}
        self.held = False
        """whether every rank holds all of its features"""

    def add(self, batch: Captured, outputs: int | None) -> None:
        """Take a batch."""
        targets = batch.labels
        _check_columns(targets, self.targets.width if outputs is None or batch.logits is None else outputs)
        group = torch.zeros(len(targets), dtype=torch.int64)
        self.targets.add(targets, group)
        for name, features in {"": batch.features, **batch.layers}.items():
            self.layers.setdefault(name, Gathered(self._budget, 2)).add(features, group.to(features.device))
        if batch.logits is not None:
            missed = _Squares.of(batch.logits.cpu().double() - targets)
            self.missed = missed if self.missed is None else self.missed + missed

    def exchange(self, ranks: Ranks, error: BaseException | None) -> None:
        """Learn from the other ranks; raise what went wrong on any of them."""
        widths: dict[str, int | None] = {name: layer.width for name, layer in self.layers.items()}
        records = ranks.agree(
            error,
            widths=widths or {"": None},
            number=self.targets.width,
            held=all(layer.held for layer in (self.targets, *self.layers.values())),
            missed=self.missed,
            samples=self.targets.samples,
        )
        self.samples = sum(record["samples"] for record in records)
        if self.samples < 2:
            raise ValueError(f"{self.samples} samples were seen: regression collapse needs at least 2")
        self.widths = agreed_widths(records)
        self.number = max(record["number"] or 0 for record in records)
        for name, width in self.widths.items():
            self.layers.setdefault(name, Gathered(self._budget, 2))
            if width < self.number:
                raise ValueError(
                    f"{self.number} targets need at least as many features, and layer {name!r} has {width}"
                )
        self.held = all(record["held"] for record in records)
        missed = [record["missed"] for record in records if record["missed"] is not None]
        self.missed = sum(missed[1:], missed[0]) if missed else None

    def covariance(self, ranks: Ranks) -> tuple[Float[Tensor, "n n"], int]:
        """Of the targets, over all ranks, in units of 4**e; and e."""
        held = self.targets.tensors()
        if ranks.alone and held is not None:
            centred, unit = centred_columns(held[0])
            return centred.T @ centred / len(centred), unit
        merged = self.targets.moments(ranks, self.number, 2)[1]
        assert merged is not None
        return _covariance(merged)

    def exact(self, weight: Tensor | None) -> dict[str, RegressionMetrics]:
        """The measures of features in memory."""
        found, (targets, _) = {}, self.targets.tensors() or (torch.empty(0), None)
        for name, layer in self.layers.items():
            features, _ = layer.tensors() or (torch.empty(0), None)
            found[name] = regression_metrics(features, targets, None if name else weight)
        return found


def _covariance(merged: ClassStatistics) -> tuple[Float[Tensor, "d d"], int]:
    state = merged.state(copy=False)
    return state["scatter"] / int(state["counts"].sum()), int(state["exponent"])


def _check_columns(targets: Tensor, expected: int | None) -> None:
    if expected is not None and targets.shape[1] != expected:
        raise ValueError(
            f"labels have {targets.shape[1]} columns, and the last layer gives {expected} numbers each: they must "
            "agree. One class index per sample is task='classification', the default"
        )


@dataclass(frozen=True)
class _Spread:
    """Where the features of a layer lie, over all ranks, and the directions that the measures ask about."""

    mean: Float[Tensor, " d"]
    singular: Float[Tensor, " d"]
    """Singular values of the centred features over sqrt(N), largest first, in a unit of their own."""
    bases: list[Float[Tensor, "r d"]]
    """Principal directions, and the row space of W where there is a last layer."""

    @classmethod
    def of(cls, merged: ClassStatistics | None, number: int, weight: Tensor | None) -> _Spread:
        assert merged is not None
        values, vectors = torch.linalg.eigh(_covariance(merged)[0])
        if not float(values[-1]) > 0:
            raise ValueError("features do not vary: regression collapse is undefined")
        read = regression.row_space(weight)
        bases = [vectors[:, -number:].T, *([] if read is None else [read.to(vectors)])]
        return cls(merged.means[0], values.clamp(min=0).sqrt().flip(0), bases)

    def outside(self, features: Tensor) -> list[Outside]:
        """How much of some features lies outside each basis."""
        centred = features.to(self.mean) - self.mean
        return [regression.outside(centred, basis) for basis in self.bases]


def _streamed(
    seen: _Seen,
    model: nn.Module,
    loader: Iterable[Any],
    options: Options,
    ranks: Ranks,
    weight: Tensor | None,
    covariance: Float[Tensor, "n n"],
    unit: int,
) -> dict[str, RegressionMetrics]:
    """The measures from covariances over all ranks; NRC1 and NRC2 ask for every feature a second time."""
    kept = {name: layer.tensors() for name, layer in seen.layers.items()}
    spreads = {
        name: _Spread.of(layer.moments(ranks, seen.widths[name], 2)[1], seen.number, None if name else weight)
        for name, layer in seen.layers.items()
    }
    left: dict[str, list[Outside]] | None = None
    if seen.held:
        own = {name: spreads[name].outside(part[0]) for name, part in kept.items() if part is not None}
        left = _summed(ranks.gather(own))
    elif readable_again(loader, ranks, _LOST):
        samples, sums = _second_pass(model, loader, options, ranks, spreads)
        left = sums if read_alike(seen.samples, samples, _LOST) else None
    found = {}
    for name, spread in spreads.items():
        shares = [None, None] if left is None else [*(part.mean for part in left[name]), None]
        last = regression.of_last_layer(None if name else weight, covariance, unit)
        found[name] = RegressionMetrics(shares[0], shares[1], **last, stable_rank=stable_rank_of(spread.singular))
    return found


def _second_pass(
    model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks, spreads: Mapping[str, _Spread]
) -> tuple[int, dict[str, list[Outside]]]:
    """Samples, and what lies outside the bases, over all ranks."""
    sums: dict[str, list[Outside]] = {}
    samples = 0

    def take(batch: Captured) -> None:
        nonlocal samples, sums
        samples += len(batch.features)
        for name, features in {"": batch.features, **batch.layers}.items():
            sums = _summed([sums, {name: spreads[name].outside(features)}])

    with contextlib.ExitStack() as leaving:
        capture = entered(model, loader, options, ranks, leaving)
        error = taken(capture, ranks, take)
        records = ranks.agree(error, sums=sums, samples=samples)
    return sum(record["samples"] for record in records), _summed([record["sums"] for record in records])


def _summed(parts: Sequence[Mapping[str, list[Outside]]]) -> dict[str, list[Outside]]:
    """By layer, and by basis."""
    total: dict[str, list[Outside]] = {}
    for part in parts:
        for name, found in part.items():
            total[name] = [a + b for a, b in zip(total[name], found, strict=True)] if name in total else found
    return total
