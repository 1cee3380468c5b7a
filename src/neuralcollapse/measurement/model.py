"""Measure a model over a loader, in one pass, and leave it as it was."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuralcollapse.geometry import (
    ClassStatistics,
    CollapseMetrics,
    CollapseWarning,
    Moments,
    collapse_metrics,
    ncc_mismatch,
)
from neuralcollapse.geometry.arithmetic import float64_device
from neuralcollapse.nn import PrototypeClassifier, find_classifier

_RETAINED_BYTES = 2 << 30
"""Features held for the nearest-class-centre mismatch, which needs them once more when means are known."""


@dataclass(frozen=True)
class CollapseReport:
    """What :func:`measure` found. Prints as a table."""

    metrics: CollapseMetrics
    """Measures of the features that enter the classifier."""
    train_accuracy: float
    """Share of the samples measured that the model classifies rightly."""
    ncc_mismatch: float | None
    """Share of decisions that differ from the nearest class centre. None where features were too many to hold."""
    layers: dict[str, CollapseMetrics]
    """Measures of the inner layers asked for, by name."""
    statistics: ClassStatistics
    """Moments of the features that enter the classifier."""
    classifier: str
    """Dotted name of the classifier layer."""
    features: Float[Tensor, "N d"] | None = field(default=None, repr=False)
    """The features (this process's), where they were held."""
    labels: Int[Tensor, "N"] | None = field(default=None, repr=False)
    """Their labels."""

    def to_dict(self) -> dict[str, float | None]:
        """Every measure of the classifier's features by name, accuracy and mismatch included."""
        return {
            **self.metrics.to_dict(),
            "ncc_mismatch": self.ncc_mismatch,
            "train_accuracy": self.train_accuracy,
        }

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=100).print(self.table())
        return stream.getvalue().rstrip()

    def table(self) -> Any:
        """The measures as a rich table, a column a layer."""
        from rich.table import Table

        samples = f"{self.statistics.total:,} samples, {self.statistics.num_classes} classes"
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


@torch.no_grad()
def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    classifier: str | None = None,
    layers: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    allow_missing: bool = False,
    ncc: bool = True,
    progress: bool | None = None,
) -> CollapseReport:
    """Measure the neural collapse of any torch classifier over a loader, in one pass without gradient.

    The classifier's input is what is measured (Zhu et al., equations (7) to (10)). The model is put in
    evaluation mode and afterwards left as it was found, also after an error: training mode of each
    module, buffers, hooks, device. Under torch.distributed each rank passes its own share of the data,
    all compute with the buffers of rank 0, and every rank gets the answer for all.

    Args:
        model: any torch classifier; the classifier layer is found by :func:`neuralcollapse.find_classifier`.
        loader: batches ``(inputs, labels)`` or mappings with ``labels`` (Hugging Face).
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well; spatial maps and token sequences are averaged.
        device: where to compute; by default where the model is.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.
        ncc: hold the features for the nearest-class-centre mismatch (up to 2 GiB).
        progress: show a progress bar; by default on a terminal.

    Raises:
        ValueError: if the classifier is ambiguous, the loader empty, or the features or labels are such
            that no measure is defined (see :func:`neuralcollapse.collapse_metrics`).

    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> x, y = torch.randn(64, 2), torch.arange(64) % 2
    >>> measure(model, [(x, y)]).classifier
    '2'
    """
    name, head = find_classifier(model, classifier)
    modules = dict(model.named_modules())
    for layer in layers or ():
        if layer not in modules:
            raise ValueError(f"layers: the model has no layer {layer!r}; it has {', '.join(list(modules)[1:30])}, ...")
    weight, bias = affine(head)
    probes = {"": _Probe(name, len(weight), weight.shape[1])}
    probes |= {layer: _Probe(layer, len(weight)) for layer in layers or ()}
    held = _Held(ncc)
    right = 0
    with _untouched(model), contextlib.ExitStack() as hooks:
        broadcast_buffers(model)
        hooks.callback(head.register_forward_pre_hook(probes[""].before, with_kwargs=True).remove)
        for layer in layers or ():
            hooks.callback(modules[layer].register_forward_hook(probes[layer].after).remove)
        if device is not None:
            home = next(model.parameters()).device
            model.to(device)
            hooks.callback(model.to, home)
        target = next(model.parameters()).device
        for batch in _tracked(loader, progress):
            inputs, labels = split_batch(batch)
            labels = torch.as_tensor(labels).to(target)
            for probe in probes.values():
                probe.start(labels)
            logits = logits_of(_call(model, inputs, target))
            for probe in probes.values():
                probe.finish()
            if logits.shape != (len(labels), len(weight)):
                raise ValueError(
                    f"the model gave logits of shape {tuple(logits.shape)} for {len(labels)} labels and "
                    f"{len(weight)} classes"
                )
            decisions = logits.argmax(1)
            right += int((decisions == labels).sum())
            held.add(probes[""].features, decisions, labels)
        weight, bias = (tensor.to(target, copy=True) for tensor in (weight, bias))
    statistics = {key: _merge_ranks(probe.statistics) for key, probe in probes.items()}
    main = statistics.pop("")
    if main is None:
        raise ValueError("no samples were seen: the loader is empty")
    kept = held.tensors()
    moments = main.moments()
    if kept is not None and not _distributed():
        moments = Moments.from_features(kept[0], kept[2], num_classes=main.num_classes)
    metrics = collapse_metrics(moments, weight, bias, allow_missing=allow_missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if allow_missing else "default", CollapseWarning)
        inner = {
            key: collapse_metrics(value, allow_missing=allow_missing)
            for key, value in statistics.items()
            if value is not None
        }
    mismatch = None
    if kept is not None:
        mismatch = _mean_over_ranks(ncc_mismatch(kept[0], kept[1], main), len(kept[0]))
    elif ncc:
        warnings.warn(
            "the features exceed 2 GiB and were not held: ncc_mismatch is left out (ncc=False silences this)",
            CollapseWarning,
            stacklevel=2,
        )
    accuracy = _sum_over_ranks(right) / main.total
    features, labels = (kept[0], kept[2]) if kept is not None else (None, None)
    return CollapseReport(metrics, accuracy, mismatch, inner, main, name, features, labels)


class _Probe:
    """Gathers the statistics of one layer, as batches pass through it."""

    def __init__(self, name: str, num_classes: int, feature_dim: int | None = None) -> None:
        self.name = name
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.statistics: ClassStatistics | None = None
        self.features: Tensor | None = None
        self._labels: Tensor | None = None

    def start(self, labels: Tensor) -> None:
        self._labels, self.features = labels, None

    def before(self, module: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        found = inputs[0] if inputs else next(iter(keywords.values()))
        if isinstance(module, nn.Conv2d) and found.ndim == 4:  # a 1x1 convolution, averaged after it: linear
            found = found.mean((2, 3))
        if found.ndim != 2:
            raise ValueError(
                f"the input of classifier {self.name!r} has shape {tuple(found.shape)}: expected (B, d), one "
                "feature vector a sample. Name the right layer with classifier="
            )
        self._set(found)

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found = output[0] if isinstance(output, tuple | list) else output
        found = getattr(found, "last_hidden_state", found)
        if not isinstance(found, Tensor) or found.ndim < 2:
            raise ValueError(f"layer {self.name!r} gives a {type(found).__name__}, no features to measure")
        if found.ndim == 3:  # tokens: (B, tokens, d)
            found = found.mean(1)
        elif found.ndim > 3:  # maps: (B, d, ...)
            found = found.flatten(2).mean(2)
        self._set(found)

    def _set(self, found: Tensor) -> None:
        if self.features is not None:
            raise ValueError(f"layer {self.name!r} runs more than once a batch: its features are ambiguous")
        self.features = found.detach()

    def finish(self) -> None:
        if self.features is None or self._labels is None:
            raise ValueError(
                f"layer {self.name!r} did not run in the forward pass: name the right one with classifier= or layers="
            )
        if self.statistics is None:
            width = self.feature_dim or self.features.shape[1]
            self.statistics = ClassStatistics(self.num_classes, width, device=float64_device(self.features.device))
        self.statistics.update(self.features, self._labels)


class _Held:
    """Features, decisions and labels on the host, while they fit."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._bytes = 0

    def add(self, features: Tensor | None, decisions: Tensor, labels: Tensor) -> None:
        if not self._wanted or features is None:
            return
        self._bytes += features.nbytes
        if self._bytes > _RETAINED_BYTES:
            self._wanted, self._parts = False, []
            return
        # A copy: the layer's input may be a view of memory that the next batch overwrites.
        self._parts.append((features.to("cpu", copy=True), decisions.cpu(), labels.cpu()))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor] | None:
        if not self._parts:
            return None
        features, decisions, labels = (torch.cat(column) for column in zip(*self._parts, strict=True))
        return features, decisions, labels


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; training flags and buffers as before, after."""
    flags = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
        for name, buffer in model.named_buffers():
            if name in buffers and not torch.equal(buffer, buffers[name].to(buffer.device)):
                buffer.copy_(buffers[name])


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels of a batch: an (inputs, labels) pair, or a mapping that holds the labels.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(batch, Mapping):
        for key in ("labels", "label"):
            if key in batch:
                return {name: value for name, value in batch.items() if name != key}, batch[key]
        raise ValueError(f"the batch has keys {', '.join(map(str, batch))}: none of them is labels or label")
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise ValueError(
        f"the loader gave a {type(batch).__name__}: expected (inputs, labels) pairs or mappings with labels"
    )


def _call(model: nn.Module, inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Mapping):
        return model(**{key: _to(value, device) for key, value in inputs.items()})
    return model(_to(inputs, device))


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: a tensor, or a record (Hugging Face, torchvision) that holds them.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    found = getattr(output, "logits", output[0] if isinstance(output, tuple | list) else None)
    if not isinstance(found, Tensor):
        raise ValueError(f"the model returned a {type(output).__name__} without logits")
    return found


def affine(classifier: nn.Module) -> tuple[Float[Tensor, "K d"], Float[Tensor, "K"]]:
    """W and b of a classifier layer, without gradient; zeros where it has no bias."""
    stored: Any = classifier.class_means if isinstance(classifier, PrototypeClassifier) else classifier.weight
    weight = stored.detach().flatten(1)
    bias = getattr(classifier, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()


def _tracked(loader: Iterable[Any], progress: bool | None) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown = console.is_terminal if progress is None else progress
    total = len(loader) if isinstance(loader, Sized) else None
    yield from track(loader, "Measuring", total=total, console=console, disable=not shown, transient=True)


def broadcast_buffers(model: nn.Module) -> None:
    """Give every rank the buffers of rank 0, as DDP does before a forward pass in training.

    Running statistics of batch normalisation differ between ranks: without this each would measure its
    share of the data on another model.
    """
    if _distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _merge_ranks(statistics: ClassStatistics | None) -> ClassStatistics | None:
    """The statistics of all ranks; every rank gets the same."""
    if not _distributed():
        return statistics
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, None if statistics is None else _on_host(statistics))
    merged: ClassStatistics | None = None
    for state in states:
        if state is not None:
            part = ClassStatistics.from_state(state)
            merged = part if merged is None else merged.merge(part)
    return merged


def _on_host(statistics: ClassStatistics) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in statistics.state().items()}


def _sum_over_ranks(value: float | int) -> float:
    if not _distributed():
        return float(value)
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, float(value))
    return float(sum(values))


def _mean_over_ranks(value: float, count: int) -> float:
    return _sum_over_ranks(value * count) / _sum_over_ranks(count)
