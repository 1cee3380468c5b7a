"""What the chosen head takes and gives: features and logits."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.measurement.agreement import close, decided_otherwise, reordered
from neuralcollapse.measurement.axes import as_rows, batch_axis
from neuralcollapse.measurement.layers import inner_model, own_name
from neuralcollapse.measurement.options import Options
from neuralcollapse.measurement.outputs import logits_in, main_output
from neuralcollapse.measurement.pooling import Batch, Pooling, last_kept, mean_over_positions, pooling_for
from neuralcollapse.nn import find_classifier
from neuralcollapse.nn.surgery import is_pointwise, layer_shape

_SAMPLE = 64
"""Rows of a batch by which W and b are checked."""


def find_head(model: nn.Module, options: Options) -> Head | None:
    """The classifier that is named, or the one that a model seems to have; None where features alone are measured.

    Raises:
        ValueError: as :func:`neuralcollapse.find_classifier`, or if it has a single output and classes are measured.
    """
    named = options.classifier
    chosen = own_name(model, named) if isinstance(named, str) and named else named
    if options.features_only:
        try:
            return Head(*find_classifier(model, chosen))
        except ValueError:
            if chosen is not None:
                raise
            return None
    name, module = find_classifier(model, chosen)
    head = Head(name, module)
    if head.num_classes < 2 and options.task != "regression":
        raise ValueError(
            f"classifier {name!r} has a single output: collapse is defined for 2 or more classes, one logit each; "
            'a network that predicts one number is measured with task="regression"'
        )
    return head


def head_pooling(
    model: nn.Module, classifier: str | None, pooling: Pooling | Mapping[str, Pooling] | None
) -> Pooling | Mapping[str, Pooling] | None:
    """The choice for the classifier alone, for a pass that measures no inner layers.

    Raises:
        ValueError: as :func:`find_head`.
    """
    if not isinstance(pooling, Mapping):
        return pooling
    head = find_head(inner_model(model), Options(classifier))
    return pooling_for([] if head is None else [head.name], pooling)


def _first_argument(module: nn.Module) -> str | None:
    try:
        return next(iter(inspect.signature(module.forward).parameters), None)
    except (TypeError, ValueError):
        return None


class Head:
    """Watches a classifier layer through a forward pass.

    Args:
        name: its dotted name, for messages.
        module: the layer.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self.feature_dim, self.num_classes = layer_shape(module)
        self.idle = False
        """Set where a model turns out to give features rather than the logits of this layer."""
        self.sample: tuple[Tensor, ...] | None = None
        """Some inputs and outputs of the last batch, by which W and b are checked."""
        self.keeps_gradient = False
        """Set where the logits are to be differentiated."""
        self._seen: tuple[Tensor, Tensor] | None = None

    def start(self) -> None:
        """Forget the batch before."""
        self._seen = None

    def watch(self, module: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any], output: Any) -> None:
        """A forward hook."""
        if self.idle:
            return
        given = (
            inputs[0] if inputs else keywords.get(_first_argument(module) or "", next(iter(keywords.values()), None))
        )
        if self._seen is not None:
            raise ValueError(
                f"classifier {self.name!r} runs more than once per batch, so its features are ambiguous: pass "
                "forward=, a function of (model, inputs) that runs it once"
            )
        if not isinstance(given, Tensor) or not isinstance(output, Tensor):
            raise ValueError(f"classifier {self.name!r} takes or gives a {type(given).__name__}, not a tensor")
        if given.is_nested or given.is_complex() or given.layout != torch.strided:
            kind = given.dtype if given.is_complex() else "nested" if given.is_nested else "sparse"
            raise ValueError(
                f"classifier {self.name!r} takes {kind} features: pass forward=, a function of (model, inputs) that "
                "runs it on dense real numbers"
            )
        # Copies: a later layer may change either in place, or the next batch overwrite its memory.
        self._seen = given.clone(), output.clone()
        if not self.keeps_gradient:
            self._seen = self._seen[0].detach(), self._seen[1].detach()

    def makes(self, returned: Any, batch: Batch) -> bool:
        """Whether the model returned what this layer gave."""
        if self._seen is None:
            return False
        output = self._seen[1]
        found = logits_in(returned, batch.samples, self.num_classes)
        return output.ndim > 2 or any(other.shape == output.shape and close(output, other) for other in found)

    def read(self, returned: Any, batch: Batch, pooling: Pooling | None) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, K) of the batch.

        A head that runs at many positions (GPT's ``score``, a 1x1 convolution) is followed by a choice of position or
        a mean over them; both act on features as they act on logits, and the logits that the model returned show which.

        Args:
            returned: what the model returned.
            batch: samples and padding.
            pooling: the user's choice of position, which decides where nothing else does.

        Raises:
            ValueError: if the head did not run, or its features are not one vector per sample.
        """
        if self._seen is None:
            raise ValueError(
                f"layer {self.name!r} did not run in the forward pass: name the right one with classifier=, or pass "
                "forward=, a function of (model, inputs)"
            )
        given, output = self._seen
        shape = tuple(given.shape)
        samples_axis = self._samples_axis(given, batch)
        found = logits_in(returned, batch.samples, self.num_classes)
        if given.ndim == 2:
            order = reordered(output, found)
            features, logits = rows, scores = (given, output) if order is None else (given[order], output[order])
        else:
            channels = 1 if is_pointwise(self.module) else given.ndim - 1
            rows, scores = (as_rows(tensor, samples_axis, channels) for tensor in (given, output))
            features, logits = self._reduced(rows, scores, found, batch, pooling, shape)
        if features.shape[1] != self.feature_dim or logits.shape != (batch.samples, self.num_classes):
            raise ValueError(
                f"classifier {self.name!r} gave logits of shape {tuple(logits.shape)} for features of shape {shape}, "
                f"{batch.samples} samples and {self.num_classes} classes"
            )
        self._refuse_nan(logits, returned)
        self.sample = tuple(part.detach().flatten(0, -2)[:_SAMPLE] for part in (rows, scores))
        return features, logits

    def _samples_axis(self, given: Tensor, batch: Batch) -> int:
        try:
            if given.ndim < 2:
                raise ValueError(f"its shape is {tuple(given.shape)}")
            return batch_axis(self.module, given, batch.samples, batch.sequences_first)
        except ValueError:
            raise ValueError(
                f"the input of classifier {self.name!r} has shape {tuple(given.shape)} for {batch.samples} labels: "
                f"expected ({batch.samples}, {self.feature_dim}), one feature vector per sample. Name the right layer "
                "with classifier=, or say with batch= which part of a batch are its labels"
            ) from None

    def _reduced(
        self,
        rows: Tensor,
        scores: Tensor,
        returned: list[Tensor],
        batch: Batch,
        pooling: Pooling | None,
        shape: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        if rows.shape[1] == 1:
            return rows[:, 0], scores[:, 0]
        for choose in self._ways(rows, scores, returned, batch):
            logits = choose(scores)
            if any(close(logits, other) for other in returned):
                return choose(rows), logits
        if pooling in ("first", "last"):
            places = 0 if pooling == "first" else last_kept(batch.padding.at(self.name, rows.shape[1]))
            index = torch.arange(len(rows), device=rows.device)
            return rows[index, places], scores[index, places]
        if is_pointwise(self.module):
            features, logits, rectified = (mean_over_positions(part) for part in (rows, scores, scores.relu()))
            for other in returned:
                if close(rectified, other):  # SqueezeNet has a ReLU between convolution and mean
                    return features, other
                if not close(scores.amax(1), other) and decided_otherwise(other, logits.argmax(1)) == 0:
                    return features, logits
        raise ValueError(
            f"the input of classifier {self.name!r} has shape {shape}, and the model's logits are neither its output "
            'at one position nor the mean over them: pass pooling="first" or "last", or forward=, a function of '
            "(model, inputs) that runs it once per sample"
        )

    def _ways(self, rows: Tensor, scores: Tensor, returned: list[Tensor], batch: Batch) -> Iterator[Any]:
        index = torch.arange(len(rows), device=rows.device)
        kept = batch.kept if batch.kept is not None and batch.kept.shape == rows.shape[:2] else None
        for places in (last_kept(kept), 0, -1):
            yield lambda tensor, places=places: tensor[index, places]
        yield lambda tensor: mean_over_positions(tensor)
        if kept is not None:
            yield lambda tensor: mean_over_positions(tensor, kept)
        for other in returned:  # one position per sample, wherever the model found it
            same = (scores == other[:, None]).all(-1)
            if bool(same.any(1).all()):
                chosen = same.int().argmax(1)
                yield lambda tensor, places=chosen: tensor[index, places]

    def _refuse_nan(self, logits: Tensor, returned: Any) -> None:
        for found in (logits, main_output(returned)):
            if found is not None and found.is_floating_point() and bool(found.isnan().any()):
                raise ValueError(
                    f"the logits hold NaN in {int(found.isnan().flatten(1).any(1).sum()) if found.ndim > 1 else 1} of "
                    f"{len(logits)} samples: there is no decision to measure"
                )
