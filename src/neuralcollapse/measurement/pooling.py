"""From a layer's output to one feature vector per sample: the mean over positions, padding left out."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.measurement.axes import FeatureAxes, as_rows, axis_of_class, batch_axis
from neuralcollapse.measurement.padding import Padding, Sequences

Pooling = int | str | Callable[[Any], Tensor]
"""A feature axis, the name of a rule (``first``, ``last``, ``flatten``), or a function of the layer's output."""

_RULES = ("first", "last", "flatten")


@dataclass(frozen=True)
class Batch:
    """What pooling has to know of the batch under way."""

    samples: int
    padding: Padding
    sequences_first: bool

    @property
    def kept(self) -> Tensor | None:
        """(samples, positions), True for what is no padding; None where nothing is padded, or it is not known."""
        return self.padding.kept


def pooling_of(pooling: Pooling | Mapping[str, Pooling] | None, layer: str) -> Pooling | None:
    """The choice for one layer, checked.

    Raises:
        ValueError: if it is neither an axis, a rule nor a function.
    """
    chosen = pooling.get(layer) if isinstance(pooling, Mapping) else pooling
    known = chosen is None or callable(chosen) or chosen in _RULES
    if not known and (not isinstance(chosen, int) or isinstance(chosen, bool)):
        raise ValueError(
            f"pooling={chosen!r} is unknown: give the number of the feature axis, one of {', '.join(_RULES)}, a "
            "function of the layer's output, or a dictionary of these by layer"
        )
    return chosen


def pooling_for(
    layers: Container[str], pooling: Pooling | Mapping[str, Pooling] | None
) -> Pooling | Mapping[str, Pooling] | None:
    """The choices for some layers alone: a pass refuses those for layers that it does not measure."""
    if not isinstance(pooling, Mapping):
        return pooling
    return {name: chosen for name, chosen in pooling.items() if name in layers}


def pooled(
    name: str, module: nn.Module, output: Any, batch: Batch, pooling: Pooling | None, axes: FeatureAxes | int | None
) -> tuple[Tensor, int | None]:
    """(samples, features) of a layer's output, and its feature axis where one was needed.

    Args:
        name: of the layer, for messages.
        module: the layer.
        output: what it returned: a tensor, or a tuple or record that begins with one.
        batch: samples and padding.
        pooling: the user's choice, None for the mean over positions.
        axes: who knows the feature axis, or the axis itself where an earlier batch has shown it.

    Raises:
        ValueError: if the output holds no features, or their axis cannot be known.
    """
    if callable(pooling):
        found = pooling(output)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != batch.samples:
            shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ValueError(f"pooling of layer {name!r} gave {shape}: expected ({batch.samples}, d)")
        return found, None
    tensor, batch = _tensor_of(name, output, batch)
    try:
        samples_axis = batch_axis(module, tensor, batch.samples, batch.sequences_first)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from None
    if pooling == "flatten":
        return tensor.movedim(samples_axis, 0).flatten(1), None
    if tensor.ndim == 2 and not isinstance(pooling, int):
        return tensor, None
    axis = _feature_axis(name, module, tensor, pooling, axes)
    if axis == samples_axis:
        raise ValueError(f"layer {name!r} gives shape {tuple(tensor.shape)}, whose axis {axis} counts the samples")
    if tensor.ndim == 2:
        return tensor, None
    rows = as_rows(tensor, samples_axis, axis)
    if pooling == "first":
        return rows[:, 0], axis
    if pooling == "last":
        return rows[torch.arange(len(rows), device=rows.device), last_kept(batch.padding.at(name, rows.shape[1]))], axis
    return mean_over_positions(rows, batch.padding.at(name, rows.shape[1])), axis


def _tensor_of(name: str, output: Any, batch: Batch) -> tuple[Tensor, Batch]:
    found = output
    if isinstance(found, Mapping):
        found = found.get("last_hidden_state", next(iter(found.values()), None))
    found = getattr(found, "last_hidden_state", found)
    if isinstance(found, tuple | list) and not isinstance(found, nn.utils.rnn.PackedSequence):
        found = found[0] if found else None
    if isinstance(found, nn.utils.rnn.PackedSequence):
        found, lengths = nn.utils.rnn.pad_packed_sequence(found, batch_first=True)
        kept = torch.arange(found.shape[1]) < lengths[:, None]
        packed = Sequences("its lengths", kept.to(found.device))
        batch = Batch(batch.samples, Padding((packed,)), sequences_first=False)
        return found.to(found.dtype, copy=True), batch
    if not isinstance(found, Tensor) or found.ndim < 2 or not found.is_floating_point():
        raise ValueError(
            f"layer {name!r} gives a {type(output).__name__}, no features to measure: pass pooling=, a function of "
            "that output which gives (samples, features)"
        )
    return found, batch


def _feature_axis(
    name: str, module: nn.Module, tensor: Tensor, pooling: Pooling | None, axes: FeatureAxes | int | None
) -> int:
    if isinstance(pooling, int):
        if not -tensor.ndim <= pooling < tensor.ndim:
            raise ValueError(f"pooling={pooling} is no axis of layer {name!r}, which gives shape {tuple(tensor.shape)}")
        return pooling % tensor.ndim
    if isinstance(axes, FeatureAxes):
        found = axes.of(name, module, tensor)
    else:
        found = axis_of_class(module, tensor) if axes is None else axes
    if found is None and pooling in ("first", "last") and tensor.ndim == 3:
        return 2  # whoever chooses a token knows that features come last
    if found is None:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) gives shape {tuple(tensor.shape)}, and its class does not say "
            f"which axis holds the features: pass pooling=1 or pooling=-1 (the axis; the others are averaged), or "
            f"pooling={{{name!r}: ...}} for this layer alone"
        )
    return found


def mean_over_positions(rows: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean over axis 1 of (samples, positions, features); half precision is summed, and returned, in float32."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if kept is None:
        return rows.mean(1, dtype=dtype)
    used = torch.where(kept[:, :, None], rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
    return used.sum(1, dtype=dtype) / kept.sum(1, keepdim=True)


def last_kept(kept: Tensor | None) -> Tensor | int:
    """Index of the last position of each sample that is no padding."""
    if kept is None:
        return -1
    places = torch.arange(kept.shape[1], device=kept.device)
    return torch.where(kept, places, -1).max(1).values
