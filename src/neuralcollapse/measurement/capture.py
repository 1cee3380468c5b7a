"""One forward pass of a model over a loader: what enters the head, what it decides, and the labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.geometry.inputs import check_batch
from neuralcollapse.measurement.agreement import Agreement
from neuralcollapse.measurement.attack import Attack, attackable, loss_gradient
from neuralcollapse.measurement.axes import FeatureAxes, has_sequences_first
from neuralcollapse.measurement.batches import arguments, names_of, note_on, split_batch, takes_model
from neuralcollapse.measurement.blocks import Blocks
from neuralcollapse.measurement.heads import Head, find_head
from neuralcollapse.measurement.labels import as_labels
from neuralcollapse.measurement.layers import Layer, chosen_layers, inner_model
from neuralcollapse.measurement.options import Captured, Options
from neuralcollapse.measurement.outputs import as_features
from neuralcollapse.measurement.padding import kept_positions
from neuralcollapse.measurement.placement import checked_device, home_of, refuse_lazy
from neuralcollapse.measurement.pooling import Batch, pooling_of
from neuralcollapse.measurement.preserve import on_device, plain_modes, resharded, same_random_numbers, untouched
from neuralcollapse.measurement.progress import tracked
from neuralcollapse.measurement.ranks import Ranks, is_sharded
from neuralcollapse.measurement.transfer import converted, copied, moved
from neuralcollapse.measurement.weights import affine
from neuralcollapse.nn.surgery import not_a_module


class Capture:
    """A pass over the data, to be iterated once within a ``with`` block.

    Inside the block the model is in evaluation mode and runs uncompiled, without gradients or autocast. After the
    block, also after an error, the model, the random numbers and the caller's modes are as they were.

    Args:
        model: any torch module; wrappers for several devices and for compilation are seen through.
        loader: batches.
        options: which layers, and how.
        ranks: the processes that take part.
    """

    def __init__(self, model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks) -> None:
        if not isinstance(model, nn.Module):
            raise not_a_module(model)
        for name, function in (("forward", options.forward), ("batch", options.batch)):
            if function is not None and not callable(function):
                raise TypeError(f"{name}={function!r} is a {type(function).__name__}: expected a function")
        if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
            raise TypeError(
                f"loader is a {type(loader).__name__}: expected an iterable of batches, such as a DataLoader"
            )
        self.model = inner_model(model)
        self._loader = loader
        self._options = options
        self._ranks = ranks
        refuse_lazy(self.model)
        if options.attack is not None and is_sharded(self.model):
            raise ValueError(
                "attack= needs the gradients of a whole model, and this one is sharded: measure a copy of it"
            )
        self.head = find_head(self.model, options)
        self._agreement = Agreement(self.head.name, options.classifier is not None) if self.head else None
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
        self._converts = False
        self._sequences_first = has_sequences_first(self.model)
        self._device = checked_device(self.model, options.device)
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
                error.add_note(note_on(error, number, batch))
                raise
            axes = None
            if counts and len(captured.labels):
                yield captured
        if self._agreement is not None:
            self._agreement.warn()

    def finish(self) -> None:
        """Read the head's weight and bias, after the last batch: the forward pass may compute them."""
        self._hooks.close()
        if self.head is not None and not self._options.features_only:
            weight, bias = affine(self.head.module, *(self.head.sample or ()))
            self.weight, self.bias = weight.to("cpu", copy=True), None if bias is None else bias.to("cpu", copy=True)

    def _run(self, batch: Any, axes: FeatureAxes | None) -> Captured:
        inputs, labels = self._split(batch)
        home, dtype = home_of(self.model, self._device)
        labels = as_labels(labels, home or torch.device("cpu"), self._options.task)
        inputs = moved(inputs, home, dtype)
        kept = kept_positions(self.model, names_of(self.model, inputs), len(labels))
        about = Batch(len(labels), kept, self._sequences_first)
        output = self._output(inputs, dtype, about, axes)
        if self._blocks is not None:
            self._settle(self._blocks)
        found = {name: layer.read() for name, layer in self._layers.items()}
        if self.head is not None and self._ends_elsewhere(self.head, output, about):
            self.head.idle, self.head = True, None
        if self.head is None:
            return Captured(as_features(output, len(labels)), labels, None, found)
        features, logits = self.head.read(output, about, self._head_pooling)
        if self._agreement is not None and self._options.task != "regression":
            self._agreement.add(logits, output)
        if self._options.task != "regression":  # whose float64 targets stay on the host: some devices have none
            labels = labels.to(features.device)
        attacked = None
        if self._options.attack is not None:
            check_batch(features, labels, self.head.num_classes, self.head.feature_dim)
            attacked = self._attacked(self._options.attack, self.head, inputs, labels, dtype, about)
        return Captured(features, labels, None if self._options.features_only else logits, found, attacked)

    def _attacked(
        self, attack: Attack, head: Head, inputs: Any, labels: Tensor, dtype: torch.dtype, about: Batch
    ) -> Captured:
        """The batch again, its inputs changed so that the cross-entropy of the logits grows."""
        start, rebuilt = attackable(converted(inputs, dtype) if self._converts else inputs)

        def read(given: Tensor) -> tuple[Tensor, Tensor]:
            return head.read(self._output(rebuilt(given), dtype, about, None), about, self._head_pooling)

        head.keeps_gradient = True
        try:
            moved = attack.moved(start, lambda given: loss_gradient(lambda x: read(x)[1], given, labels))
        finally:
            head.keeps_gradient = False
        features, logits = read(moved)
        return Captured(features, labels, logits)

    def _settle(self, blocks: Blocks) -> None:
        """After the first batch: watch the blocks that it has shown, and these alone."""
        self._layers, self.skipped, self._blocks = blocks.settle(), blocks.skipped, None

    def _output(self, inputs: Any, dtype: torch.dtype, about: Batch, axes: FeatureAxes | None) -> Any:
        """What the model returns for the inputs.

        Inputs of another precision than the model's are given as they are, and converted where it refuses them.
        """
        exact = converted(inputs, dtype)
        for given in (exact,) if self._converts else (inputs, exact):
            for layer in self._layers.values():
                layer.start(about, axes)
            if self.head is not None:
                self.head.start()
            try:
                with contextlib.nullcontext() if axes is None else axes.following(self.model):
                    return self._called(given)
            except RuntimeError:
                if given is exact or exact is inputs:
                    raise
                self._converts = True
        raise AssertionError("the last try returns or raises")

    def _ends_elsewhere(self, head: Head, output: Any, about: Batch) -> bool:
        """Whether the last linear layer of a model that is to give features is no classifier."""
        guessed = self._options.features_only and self._options.classifier is None
        return guessed and not head.makes(output, about)

    def _split(self, batch: Any) -> tuple[Any, Any]:
        if self._options.batch is None:
            return split_batch(batch, self.model, self._options.task)
        pair = self._options.batch(batch)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"batch= gave a {type(pair).__name__}: expected a pair (inputs, labels)")
        return pair[0], pair[1]

    def _called(self, inputs: Any) -> Any:
        """The forward pass."""
        inputs = copied(inputs)  # some models change what they are given
        forward = self._options.forward
        if forward is not None:
            return forward(self.model, inputs) if takes_model(forward) else forward(inputs)
        positional, keywords = arguments(self.model, inputs)
        return self.model(*positional, **keywords)
