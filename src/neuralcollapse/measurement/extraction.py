"""The features of a model over a loader, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralcollapse.measurement.capture import Capture
from neuralcollapse.measurement.labels import Task, checked_task
from neuralcollapse.measurement.options import Options
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.ranks import Ranks


class ExtractedFeatures(NamedTuple):
    """What :func:`extract_features` returns, on the host."""

    features: Float[Tensor, "N d"]
    """what enters the classifier"""
    labels: Shaped[Tensor, " N *columns"]
    """class indices (N,), label sets (N, K) or targets (N, n)"""
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
    task: Task = "classification",
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
        task: what the labels are: ``"multilabel"`` gives them as booleans (N, K), ``"regression"`` as targets (N, n).

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
    options = Options(classifier, None, pooling, forward, batch, device, features_only, progress, checked_task(task))
    parts: list[tuple[Tensor, Tensor, Tensor | None]] = []
    with Capture(model, loader, options, Ranks(sync=False)) as capture:
        for seen in capture:
            parts.append((seen.features.cpu(), seen.labels.cpu(), None if seen.logits is None else seen.logits.cpu()))
    if not parts:
        raise ValueError("no samples were seen: the loader is empty")
    logits = [part[2] for part in parts if part[2] is not None]
    features, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return ExtractedFeatures(features, labels, torch.cat(logits) if logits else None)
