"""One forward pass of a model over a loader: what enters the head, what it decides, and the labels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuralcollapse.measurement.axes import FeatureAxes, has_sequences_first
from neuralcollapse.measurement.batches import arguments, as_labels, moved, names_of, split_batch, takes_model
from neuralcollapse.measurement.blocks import Blocks
from neuralcollapse.measurement.heads import Head, affine
from neuralcollapse.measurement.layers import Layer, chosen_layers, inner_model, own_name
from neuralcollapse.measurement.outputs import as_features
from neuralcollapse.measurement.pooling import Batch, Pooling, kept_positions, pooling_of
from neuralcollapse.measurement.preserve import on_device, plain_modes, resharded, same_random_numbers, untouched
from neuralcollapse.measurement.progress import tracked
from neuralcollapse.measurement.ranks import Ranks, is_sharded
from neuralcollapse.nn import find_classifier


@dataclass(frozen=True)
class Captured:
    """One batch, on the device it was computed on."""

    features: Tensor
    """(B, d), what enters the head"""
    labels: Tensor
    """(B,)"""
    logits: Tensor | None
    """(B, K), the head's own; None where features alone are measured"""
    layers: dict[str, Tensor] = field(default_factory=dict)
    """(B, width) of each inner layer asked for"""


@dataclass(frozen=True)
class Options:
    """How to run a model. See :func:`neuralcollapse.measure`."""

    classifier: str | None = None
    layers: Sequence[str] | Literal["all"] | None = None
    pooling: Pooling | Mapping[str, Pooling] | None = None
    forward: Callable[..., Any] | None = None
    batch: Callable[[Any], tuple[Any, Any]] | None = None
    device: torch.device | str | None = None
    features_only: bool = False
    progress: bool | None = None


class Capture:
    """A pass over the data, to be iterated once within a ``with`` block.

    Inside, the model is in evaluation mode, without gradient or autocast, uncompiled; on leaving, also after an error,
    it, the random numbers and the caller's modes are as they were.

    Args:
        model: any torch module; wrappers for several devices and for compilation are seen through.
        loader: batches.
        options: which layers, and how.
        ranks: the processes that take part.
    """

    def __init__(self, model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
        if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
            raise TypeError(
                f"loader is a {type(loader).__name__}: expected an iterable of batches, such as a DataLoader"
            )
        self.model = inner_model(model)
        self._loader = loader
        self._options = options
        self._ranks = ranks
        self.head = self._find_head()
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None
        self._blocks: Blocks | None = None
        self._layers: Mapping[str, Layer]
        if isinstance(options.layers, str) and options.layers == "all":
            self._blocks = Blocks(self.model, self.head.module if self.head else None)
            self._layers = self._blocks.candidates
        else:
            self._layers = chosen_layers(self.model, options.layers)
        self.skipped: dict[str, str] = {}
        """Why a block could not be measured, by name."""
        if isinstance(options.pooling, Mapping):
            unknown = set(options.pooling) - {*self._layers, *([self.head.name] if self.head else [])}
            if unknown:
                raise ValueError(
                    f"pooling names {', '.join(map(repr, unknown))}, which is not measured: name it in layers="
                )
        for layer in self._layers.values():
            layer.pooling = pooling_of(options.pooling, layer.name)
        self._head_pooling = pooling_of(options.pooling, self.head.name) if self.head else None
        self._sequences_first = has_sequences_first(self.model)
        self._device = _checked_device(self.model, options.device)
        self._modes = contextlib.ExitStack()
        self._hooks = contextlib.ExitStack()

    @property
    def num_classes(self) -> int | None:
        """K, where a head says it."""
        return None if self.head is None else self.head.num_classes

    @property
    def layer_names(self) -> list[str]:
        """The inner layers watched, as they were asked for; blocks are known after the first batch."""
        return list(self._layers) if self._blocks is None else []

    def _find_head(self) -> Head | None:
        chosen = self._options.classifier and own_name(self.model, self._options.classifier)
        if self._options.features_only:
            try:
                return Head(*find_classifier(self.model, chosen))
            except ValueError:
                if chosen is not None:
                    raise
                return None
        name, module = find_classifier(self.model, chosen)
        head = Head(name, module)
        if head.num_classes < 2:
            raise ValueError(
                f"classifier {name!r} has a single output: collapse is defined for 2 or more classes, one logit each"
            )
        return head

    def __enter__(self) -> Capture:
        with contextlib.ExitStack() as modes:
            modes.enter_context(plain_modes())
            modes.enter_context(same_random_numbers(self._loader))
            modes.enter_context(untouched(self.model))
            modes.enter_context(on_device(self.model, self._device))
            modes.enter_context(resharded(self.model))
            modes.enter_context(self._hooks)
            self._watch()
            self._modes = modes.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._modes.__exit__(*error)

    def _watch(self) -> None:
        if self.head is not None:
            handle = self.head.module.register_forward_hook(self.head.watch, with_kwargs=True)
            self._hooks.callback(handle.remove)
            if self._blocks is not None:
                self._hooks.callback(self.head.module.register_forward_hook(self._blocks.watch_head).remove)
        for layer in self._layers.values():
            self._hooks.callback(layer.module.register_forward_hook(layer.watch).remove)

    def __iter__(self) -> Iterator[Captured]:
        batches: Iterator[Any] = tracked(self._loader, self._options.progress)
        sharded = is_sharded(self.model)
        steps = self._ranks.in_step(batches) if sharded else ((batch, True) for batch in batches)
        axes: FeatureAxes | None = FeatureAxes() if any(layer.undecided for layer in self._layers.values()) else None
        for number, (batch, counts) in enumerate(steps):
            try:
                captured = self._run(batch, axes)
            except Exception as error:
                error.add_note(f"while measuring batch {number}")
                raise
            axes = None
            if counts and len(captured.labels):
                yield captured

    def finish(self) -> None:
        """Read the head's weight and bias, after the last batch: the forward pass may compute them."""
        self._hooks.close()
        if self.head is not None and not self._options.features_only:
            weight, bias = affine(self.head.module)
            self.weight, self.bias = weight.to("cpu", copy=True), None if bias is None else bias.to("cpu", copy=True)

    def _run(self, batch: Any, axes: FeatureAxes | None) -> Captured:
        inputs, labels = self._split(batch)
        home, dtype = _home(self.model, self._device)
        labels = as_labels(labels, home or torch.device("cpu"))
        call, named = self._bound(moved(inputs, home, dtype))
        about = Batch(len(labels), kept_positions(self.model, named, len(labels)), self._sequences_first)
        for layer in self._layers.values():
            layer.start(about, axes)
        if self.head is not None:
            self.head.start()
        with contextlib.nullcontext() if axes is None else axes.following(self.model):
            output = call()
        if self._blocks is not None:
            self._settle(self._blocks)
        found = {name: layer.read() for name, layer in self._layers.items()}
        if self.head is not None and self._ends_elsewhere(self.head, output, about):
            self.head.idle, self.head = True, None
        if self.head is None:
            return Captured(as_features(output, len(labels)), labels, None, found)
        features, logits = self.head.read(output, about, self._head_pooling)
        return Captured(features, labels.to(features.device), None if self._options.features_only else logits, found)

    def _settle(self, blocks: Blocks) -> None:
        """After the first batch: watch the blocks that it has shown, and these alone."""
        self._layers, self.skipped, self._blocks = blocks.settle(), blocks.skipped, None

    def _ends_elsewhere(self, head: Head, output: Any, about: Batch) -> bool:
        """Whether the last linear layer of a model that is to give features is no classifier."""
        guessed = self._options.features_only and self._options.classifier is None
        return guessed and not head.makes(output, about)

    def _split(self, batch: Any) -> tuple[Any, Any]:
        if self._options.batch is None:
            return split_batch(batch, self.model)
        pair = self._options.batch(batch)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"batch= gave a {type(pair).__name__}: expected a pair (inputs, labels)")
        return pair[0], pair[1]

    def _bound(self, inputs: Any) -> tuple[Callable[[], Any], Mapping[str, Any]]:
        """The forward pass, ready to be called, and its inputs by name."""
        forward = self._options.forward
        if forward is not None:
            given = (self.model, inputs) if takes_model(forward) else (inputs,)
            return lambda: forward(*given), names_of(self.model, inputs)
        positional, keywords = arguments(self.model, inputs)
        return lambda: self.model(*positional, **keywords), names_of(self.model, inputs)


def _home(model: nn.Module, device: torch.device | None) -> tuple[torch.device | None, torch.dtype]:
    """Where inputs go (None: nowhere, as the model has no tensors), and the precision of numbers without one."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_meta]
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())
    return device or next((tensor.device for tensor in tensors), None), dtype


def _checked_device(model: nn.Module, device: torch.device | str | None) -> torch.device | None:
    """The device to compute on.

    Raises:
        ValueError: if it, or the model, is on the meta device, where there are no numbers.
    """
    offloaded = hasattr(model, "hf_device_map")
    chosen = None if device is None else torch.device(device)
    if (chosen is not None and chosen.type == "meta") or (
        not offloaded and any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    ):
        raise ValueError(
            "the meta device holds no numbers to measure: load the model's weights, and compute on another device"
        )
    return chosen
