"""Neural collapse of a classifier over a loader: what ``measure`` does unless it is told of another task."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from neuralcollapse.geometry import ClassStatistics, CollapseMetrics, collapse_metrics, ncc_mismatch
from neuralcollapse.geometry.collapse import CollapseWarning
from neuralcollapse.geometry.moments import Moments
from neuralcollapse.geometry.target import Target
from neuralcollapse.measurement.attack import AttackReport
from neuralcollapse.measurement.depth import NO_DEPTH, centre_mismatches, network_depth
from neuralcollapse.measurement.missing import not_said_again
from neuralcollapse.measurement.options import Options
from neuralcollapse.measurement.passes import Seen, over_data, readable_again
from neuralcollapse.measurement.pooling import pooling_for
from neuralcollapse.measurement.ranks import Ranks
from neuralcollapse.measurement.report import CollapseReport


def measure_classes(
    model: nn.Module,
    loader: Iterable[Any],
    options: Options,
    ranks: Ranks,
    *,
    hold_bytes: int,
    ncc: bool,
    allow_missing: bool,
    target: Target | None,
) -> CollapseReport:
    """One pass of all ranks over the data, and a second one for the depth of all layers."""
    seen = over_data(model, loader, options, ranks, hold_bytes=hold_bytes)
    main, streamed = seen.main.moments(ranks, seen.widths[""], seen.num_classes)
    metrics = collapse_metrics(main, seen.weight, seen.bias, allow_missing=allow_missing, target=target)
    inner: dict[str, CollapseMetrics] = {}
    found: dict[str, tuple[Moments, ClassStatistics | None]] = {}
    with not_said_again(allow_missing):
        for name, gathered in seen.layers.items():
            found[name] = gathered.moments(ranks, seen.widths[name], seen.num_classes)
            inner[name] = collapse_metrics(found[name][0], allow_missing=allow_missing)
    attack = None
    if seen.attacked is not None and options.attack is not None:
        found_under, _ = seen.attacked.moments(ranks, seen.widths[""], seen.num_classes)
        head = seen.weight, seen.bias
        right = seen.attacked_right
        attack = AttackReport.of(options.attack, main, found_under, right, *head, allow_missing=allow_missing)
    depth = None
    if options.layers == "all":
        _warn_of_blocks(seen, inner)
        centres = {name: moments for name, (moments, _) in found.items()}
        pooling = pooling_for([*centres, seen.classifier], options.pooling)
        again = dataclasses.replace(
            options, classifier=seen.classifier or None, layers=list(centres), pooling=pooling, attack=None
        )
        mismatches = None
        if ncc and seen.right is not None and readable_again(loader, ranks, NO_DEPTH):
            mismatches = centre_mismatches(model, loader, again, ranks, centres)
        depth = network_depth(inner, {name: kept for name, (_, kept) in found.items() if kept is not None}, mismatches)
    if ncc and not seen.held_everywhere:
        warnings.warn(
            "the features exceed 2 GiB and were not held: ncc_mismatch is left out (ncc=False silences this)",
            CollapseWarning,
            stacklevel=3,
        )
    features, labels = seen.held or (None, None)
    return CollapseReport(
        metrics=metrics,
        accuracy=None if seen.right is None else seen.right / main.total,
        ncc_mismatch=_mismatch(seen, main, ranks) if ncc else None,
        layers=inner,
        moments=main,
        classifier=seen.classifier,
        weight=seen.weight,
        bias=seen.bias,
        features=features,
        labels=labels,
        streamed=streamed,
        depth=depth,
        attack=attack,
    )


def _warn_of_blocks(seen: Seen, inner: Mapping[str, CollapseMetrics]) -> None:
    for name, problem in seen.skipped.items():
        warnings.warn(f"layers='all' leaves out {name!r}: {problem}", CollapseWarning, stacklevel=4)
    wide = [name for name, metrics in inner.items() if metrics.nc1 is None]
    if wide:
        warnings.warn(
            f"layers='all' leaves out NC1 and the ranks of {', '.join(wide)}: with so many features their d x d sums "
            "exceed 2 GiB",
            CollapseWarning,
            stacklevel=4,
        )


def _mismatch(seen: Seen, moments: Moments, ranks: Ranks) -> float | None:
    """Over all ranks, where every one of them holds its features and a classifier decided."""
    if not seen.held_everywhere or seen.right is None:
        return None
    wrong = 0.0
    if seen.held is not None:
        wrong = ncc_mismatch(seen.held[0], torch.cat(seen.decisions), moments) * len(seen.held[0])
    return ranks.total(wrong) / moments.total
