"""Measure a model over a loader, in one pass, and leave it as it was."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuralcollapse.geometry import ClassStatistics, CollapseMetrics, collapse_metrics, ncc_mismatch
from neuralcollapse.geometry.collapse import CollapseWarning
from neuralcollapse.geometry.moments import Moments
from neuralcollapse.geometry.target import Target
from neuralcollapse.measurement.capture import Capture, Options
from neuralcollapse.measurement.depth import centre_mismatches, network_depth
from neuralcollapse.measurement.passes import Seen, over_data
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.ranks import Ranks
from neuralcollapse.measurement.report import CollapseReport

_RETAINED_BYTES = 2 << 30
"""Features held for exact moments and the nearest-class-centre mismatch; as many again for all inner layers."""


class ExtractedFeatures(NamedTuple):
    """What :func:`extract_features` returns, on the host."""

    features: Float[Tensor, "N d"]
    """what enters the classifier"""
    labels: Int[Tensor, " N"]
    """class indices"""
    logits: Float[Tensor, "N K"] | None
    """what the classifier answers; None with ``features_only=True``"""


def extract_features(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    classifier: str | None = None,
    pooling: Pooling | Mapping[str, Pooling] | None = None,
    forward: Callable[..., Any] | None = None,
    batch: Callable[[Any], tuple[Any, Any]] | None = None,
    device: torch.device | str | None = None,
    features_only: bool = False,
    progress: bool | None = None,
) -> ExtractedFeatures:
    """The features that enter a model's classifier, their labels and logits, over a loader.

    For plots, prototypes and out-of-distribution scores (:class:`neuralcollapse.NECO`). The model is left as it was
    found. Under torch.distributed each rank gets its own share.

    Args:
        model: as in :func:`measure`, like all that follows.
        loader: batches.
        classifier: dotted name of the classifier layer, where it cannot be found.
        pooling: position of a classifier that runs at many, where the logits do not show it.
        forward: runs the model.
        batch: splits a batch.
        device: where to compute.
        features_only: for models without a classifier.
        progress: show a progress bar.

    Returns:
        ``features`` (N, d), ``labels`` (N,) and ``logits`` (N, K), in the order of the loader.

    Raises:
        ValueError: as :func:`measure`.
        TypeError: as :func:`measure`.

    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> features, labels, logits = extract_features(model, [(torch.randn(8, 2), torch.arange(8) % 2)])
    >>> features.shape, labels.shape, logits.shape
    (torch.Size([8, 4]), torch.Size([8]), torch.Size([8, 2]))
    """
    options = Options(classifier, None, pooling, forward, batch, device, features_only, progress)
    parts: list[tuple[Tensor, Tensor, Tensor | None]] = []
    with Capture(model, loader, options, Ranks(sync=False)) as capture:
        for seen in capture:
            parts.append((seen.features.cpu(), seen.labels.cpu(), None if seen.logits is None else seen.logits.cpu()))
    if not parts:
        raise ValueError("no samples were seen: the loader is empty")
    logits = [part[2] for part in parts if part[2] is not None]
    features, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return ExtractedFeatures(features, labels, torch.cat(logits) if logits else None)


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    classifier: str | None = None,
    layers: Sequence[str] | Literal["all"] | None = None,
    pooling: Pooling | Mapping[str, Pooling] | None = None,
    forward: Callable[..., Any] | None = None,
    batch: Callable[[Any], tuple[Any, Any]] | None = None,
    device: torch.device | str | None = None,
    allow_missing: bool = False,
    ncc: bool = True,
    sync: bool = True,
    features_only: bool = False,
    target: Target | None = None,
    progress: bool | None = None,
) -> CollapseReport:
    """Measure the neural collapse of any torch classifier over a loader, in one pass without gradient.

    The classifier's input is what is measured (Zhu et al., equations (7) to (10)), and its output are the logits. The
    model is put in evaluation mode and afterwards left as it was found, also after an error: training mode of each
    module, buffers, hooks, device, random numbers. Under torch.distributed each rank passes its own share of the data,
    all compute with the buffers of rank 0, and every rank gets the answer for all; an error on one is raised on all.

    Args:
        model: any torch classifier; the classifier layer is found by :func:`neuralcollapse.find_classifier`.
            Models that are compiled, or wrapped for several devices, are measured inside.
        loader: batches: tuples or lists that begin (inputs, labels), or mappings and named tuples with ``labels``.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well; maps and token sequences are averaged over positions, padding
            left out. ``"all"`` measures every block in the order in which they run, and adds ``report.depth``: ranks,
            nearest class centres, the law of separation and the effective depth. A block is a child of the network
            with parameters, with the norms and activations that follow it; containers are opened, and so is what holds
            the classifier or more than half of the parameters. Features are streamed, and the data read twice.
        pooling: how the outputs of ``layers`` become one vector per sample, where a layer's class does not say which
            axis holds its features: the number of that axis, ``"first"`` or ``"last"`` (one token), ``"flatten"``, a
            function of the output, or a dictionary of these by layer.
        forward: a function of (model, inputs), or of inputs alone, in place of ``model(inputs)``.
        batch: a function that takes a batch and returns (inputs, labels), for any other kind of batch.
        device: where to compute; by default where the model is.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.
        ncc: hold the features (up to 2 GiB): for exact moments and for the nearest-class-centre mismatch.
        sync: measure together with the other processes of the default process group; False for this one alone.
        features_only: measure features without a classifier: what enters it or, where a model has none, its output.
        target: what the class sizes should make of the classifier and its features, as in
            :func:`neuralcollapse.collapse_metrics`.
        progress: show a progress bar; by default on a terminal.

    Raises:
        ValueError: if the classifier is ambiguous, the loader empty, a batch or a layer's output not understood, or the
            features, labels or logits are such that no measure is defined, as in
            :func:`neuralcollapse.collapse_metrics`.
        TypeError: if labels are not integers, or the model is none whose layers can be watched.

    Warns:
        CollapseWarning: as :func:`neuralcollapse.collapse_metrics`, and where features were too many to hold. With
            ``layers="all"`` also for blocks that are left out, as their features cannot be known, and for data that can
            be read only once.

    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> x, y = torch.randn(64, 2), torch.arange(64) % 2
    >>> measure(model, [(x, y)]).classifier
    '2'
    """
    options = Options(classifier, layers, pooling, forward, batch, device, features_only, progress)
    ranks = Ranks(sync)
    seen = over_data(model, loader, options, ranks, hold_bytes=_RETAINED_BYTES if ncc else 0)
    main, streamed = seen.main.moments(ranks, seen.widths[""], seen.num_classes)
    metrics = collapse_metrics(main, seen.weight, seen.bias, allow_missing=allow_missing, target=target)
    inner: dict[str, CollapseMetrics] = {}
    found: dict[str, tuple[Moments, ClassStatistics | None]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if allow_missing else "default", CollapseWarning)
        for name, gathered in seen.layers.items():
            found[name] = gathered.moments(ranks, seen.widths[name], seen.num_classes)
            inner[name] = collapse_metrics(found[name][0], allow_missing=allow_missing)
    depth = None
    if layers == "all":
        _warn_of_blocks(seen, inner)
        centres = {name: moments for name, (moments, _) in found.items()}
        again = dataclasses.replace(options, layers=list(centres))
        mismatches = None
        if ncc and seen.right is not None and _readable_again(loader, ranks):
            mismatches = centre_mismatches(model, loader, again, ranks, centres)
        depth = network_depth(inner, {name: kept for name, (_, kept) in found.items() if kept is not None}, mismatches)
    if ncc and not seen.held_everywhere:
        warnings.warn(
            "the features exceed 2 GiB and were not held: ncc_mismatch is left out (ncc=False silences this)",
            CollapseWarning,
            stacklevel=2,
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
    )


def _warn_of_blocks(seen: Seen, inner: Mapping[str, CollapseMetrics]) -> None:
    for name, problem in seen.skipped.items():
        warnings.warn(f"layers='all' leaves out {name!r}: {problem}", CollapseWarning, stacklevel=3)
    wide = [name for name, metrics in inner.items() if metrics.nc1 is None]
    if wide:
        warnings.warn(
            f"layers='all' leaves out NC1 and the ranks of {', '.join(wide)}: with so many features their d x d sums "
            "exceed 2 GiB",
            CollapseWarning,
            stacklevel=3,
        )


def _readable_again(loader: Iterable[Any], ranks: Ranks) -> bool:
    """Whether the data can be read a second time, on every rank."""
    if any(ranks.gather(isinstance(loader, Iterator))):
        warnings.warn(
            "the loader is an iterator, which can be read only once: layers='all' leaves out the nearest class centres "
            "and the effective depth. Pass a list of batches or a DataLoader",
            CollapseWarning,
            stacklevel=3,
        )
        return False
    return True


def _mismatch(seen: Seen, moments: Moments, ranks: Ranks) -> float | None:
    """Over all ranks, where every one of them holds its features and a classifier decided."""
    if not seen.held_everywhere or seen.right is None:
        return None
    wrong = 0.0
    if seen.held is not None:
        wrong = ncc_mismatch(seen.held[0], torch.cat(seen.decisions), moments) * len(seen.held[0])
    return ranks.total(wrong) / moments.total
