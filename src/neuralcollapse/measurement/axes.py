"""Which axis of a layer's output counts samples, and which holds features: known, or an error; never a guess."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, padding, pooling
from torch.utils.weak import WeakIdKeyDictionary

from neuralcollapse.nn import ETFClassifier, PrototypeClassifier
from neuralcollapse.nn.etf_classifier import ETFConvolution

_SECOND = (
    conv._ConvNd, batchnorm._NormBase, nn.GroupNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.PixelShuffle,
    nn.PixelUnshuffle, nn.ChannelShuffle, nn.Fold, nn.Unfold, ETFConvolution,
)  # fmt: skip
"""Layers whose features lie on axis 1: convolutions, norms of channels (batch, instance and group), and what moves
numbers between positions and channels."""

_SEQUENCE = (
    nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.TransformerEncoder,
    nn.TransformerDecoder, nn.Transformer,
)  # fmt: skip
"""Layers of sequences: features last, and samples on the axis that ``batch_first`` says."""

_LAST = (*_SEQUENCE, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, ETFClassifier, PrototypeClassifier)

_NORMS_OF_THE_LAST = tuple(getattr(nn, name) for name in ("LayerNorm", "RMSNorm") if hasattr(nn, name))

_POOLS = (
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd, pooling._LPPoolNd,
    pooling._MaxUnpoolNd, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.Upsample, padding._ConstantPadNd,
    padding._ReflectionPadNd, padding._ReplicationPadNd, padding._CircularPadNd,
)  # fmt: skip
"""Layers that change positions alone; channels lie on axis 1, unless what they got is known to be otherwise."""

_FACTORS = (2, 3, 4, 8, 9, 16)
"""Positions that are joined into the features of one, or one taken apart into (merged patches, shuffled pixels)."""

_ENTRYWISE = ("activation", "dropout", "linear")
"""Modules of torch.nn whose classes (nn.Identity among them) leave every axis where it is."""


def axis_of_class(module: nn.Module, output: Tensor) -> int | None:
    """The feature axis of an output where the layer's class decides it."""
    if isinstance(module, _SECOND):
        return 1
    if isinstance(module, _LAST):
        return output.ndim - 1
    if isinstance(module, _NORMS_OF_THE_LAST) and len(module.normalized_shape) == 1:
        # Subclasses may norm axis 1 (LayerNorm2d of torchvision and timm), which their width tells.
        if type(module).forward in [norm.forward for norm in _NORMS_OF_THE_LAST]:
            return output.ndim - 1
        first = type(module).__name__.endswith("2d") or getattr(module, "data_format", "") == "channels_first"
        return 1 if first else _only(output, module.normalized_shape[0])
    return None


def decides(module: nn.Module) -> bool:
    """Whether the class of a layer alone decides its feature axis."""
    plain = type(module).forward in [norm.forward for norm in _NORMS_OF_THE_LAST]
    return isinstance(module, (*_SECOND, *_LAST)) or (plain and len(module.normalized_shape) == 1)  # type: ignore[arg-type]


def is_batch_first(module: nn.Module) -> bool | None:
    """Whether samples lie on axis 0 rather than 1 in a layer of sequences; None for other layers."""
    if not isinstance(module, _SEQUENCE):
        return None
    return all(getattr(part, "batch_first", True) for part in module.modules())


def has_sequences_first(model: nn.Module) -> bool:
    """Whether any layer of a model has sequence positions on axis 0 and samples on axis 1."""
    return any(is_batch_first(module) is False for module in model.modules())


def batch_axis(module: nn.Module, output: Tensor, samples: int, sequences_first: bool) -> int:
    """The axis that counts samples: 0, or 1 in models whose sequences come first.

    Raises:
        ValueError: if neither fits, or both do.
    """
    first = is_batch_first(module)
    if output.ndim >= 3 and first is not None:
        axis = 0 if first else 1
        if output.shape[axis] == samples:
            return axis
    either = sequences_first and output.ndim >= 3 and output.shape[1] == samples
    if output.shape[0] == samples and not either:
        return 0
    if either and output.shape[0] != samples:
        return 1
    both = "both axis 0 and axis 1 could count" if either else "no axis counts"
    raise ValueError(
        f"its output has shape {tuple(output.shape)}, in which {both} the {samples} samples: pass pooling=, a function "
        "of the output that gives (samples, features)"
    )


class FeatureAxes:
    """Follows the feature axis from layer to layer through one forward pass.

    A layer that has no axis of its own (an activation, a permutation, a container) hands on that of the layer before:
    by the identity of the tensor, by the strides of a view, or where just one axis is as wide as the features and
    nothing but a permutation, a choice or a mean of positions explains the shape. Code with weights of its own hands it
    on only where it keeps the shape: nobody knows what they mix.
    """

    def __init__(self) -> None:
        self._known: Any = WeakIdKeyDictionary()
        self._last: tuple[str, Tensor, int] | None = None  # the layer last seen, where its axis is known
        self._mixing: set[str] = set()  # containers with weights of their own

    @contextlib.contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Watch every layer of a model, ahead of the hooks that ask."""
        with contextlib.ExitStack() as hooks:
            for name, module in model.named_modules():
                leaf = not any(True for _ in module.children())
                if not leaf and _has_matrices(module):
                    self._mixing.add(name)
                if isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                    continue
                if name and (decides(module) or leaf):
                    hook = self._watcher(name)
                    hooks.callback(module.register_forward_hook(hook, prepend=True).remove)
            yield

    def _watcher(self, name: str) -> Any:
        def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            found = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(found, Tensor) or found.ndim < 2:
                return
            axis = self._of_layer(module, inputs[0] if inputs else None, found)
            self._last = None if axis is None else (name, found, axis)
            if axis is not None:
                self._known[found] = axis

        return watch

    def _of_layer(self, module: nn.Module, given: Any, output: Tensor) -> int | None:
        axis = axis_of_class(module, output)
        if axis is not None:
            return axis
        before = self._before(given)
        if isinstance(module, _POOLS) and output.ndim > 2:
            return 1 if before is None else before
        return None if before is None else _carried(given, before, output, module)

    def _before(self, given: Any) -> int | None:
        """The feature axis of what a layer got."""
        if not isinstance(given, Tensor):
            return None
        known = self._known.get(given)
        if known is None and self._last is not None:
            return _carried(self._last[1], self._last[2], given, mixed=bool(self._mixing))
        return known

    def of(self, name: str, module: nn.Module, output: Tensor) -> int | None:
        """The feature axis of the output of a layer that has just run; None where it is not known."""
        axis = axis_of_class(module, output)
        if axis is None:
            axis = self._known.get(output)
        if axis is None and self._last is not None and self._last[0].startswith(f"{name}." if name else ""):
            parts, top = self._last[0].split("."), len(name.split(".")) if name else 0
            between = {".".join(parts[:end]) for end in range(top, len(parts))}
            axis = _carried(self._last[1], self._last[2], output, mixed=bool(between & self._mixing))
        return axis


def _leaves_axes(module: nn.Module) -> bool:
    room, _, file = type(module).__module__.rpartition(".")
    return room == "torch.nn.modules" and file in _ENTRYWISE


def _has_matrices(module: nn.Module) -> bool:
    """Whether a module has weights of its own that may mix features, beside those of its children."""
    own = (parameter.shape for parameter in module.parameters(recurse=False))
    return any(sum(size > 1 for size in shape) > 1 for shape in own)


def _carried(
    before: Tensor, axis: int, after: Tensor, module: nn.Module | None = None, *, mixed: bool = False
) -> int | None:
    """Where the feature axis of one tensor lies in another that was made from it.

    Args:
        before: what is known.
        axis: its feature axis.
        after: what was made of it.
        module: by this layer; None for code between layers.
        mixed: whether that code has weights of its own.
    """
    same = after.shape == before.shape
    if after is before or (same and module is not None and _leaves_axes(module)):
        return axis
    width = before.shape[axis]
    if _is_view(before, after):
        stride = before.stride(axis)
        found = [i for i in range(after.ndim) if after.stride(i) == stride and after.shape[i] == width]
        return found[0] if len(found) == 1 else None
    only = _only(after, width)
    if same:
        return axis if only == axis else None
    if mixed or (module is not None and _has_matrices(module)):
        return None
    if after.ndim == before.ndim and after.shape[axis] != width:
        others = [i for i in range(after.ndim) if i != axis]
        if all(after.shape[i] == before.shape[i] for i in others):  # features joined to others, as in a DenseNet
            return axis
    if only is None or only == axis or only - after.ndim == axis - before.ndim:  # as far from the first, or the last
        return only
    sizes = [after.shape[i] for i in range(1, after.ndim) if i != only]
    joined = any(size in (width * factor, width / factor) for size in sizes for factor in _FACTORS)
    return only if after.numel() == before.numel() and not joined else None


def _is_view(before: Tensor, after: Tensor) -> bool:
    try:
        shared = before.untyped_storage().data_ptr() == after.untyped_storage().data_ptr() != 0
    except (NotImplementedError, RuntimeError):
        return False
    return shared and before.numel() == after.numel() and before.dtype == after.dtype


def _only(tensor: Tensor, width: int) -> int | None:
    """The one axis besides the first that is as long as ``width``, where just one is."""
    found = [axis for axis in range(1, tensor.ndim) if tensor.shape[axis] == width]
    return found[0] if len(found) == 1 else None


def as_rows(output: Tensor, samples_axis: int, features_axis: int) -> Tensor:
    """(samples, positions, features) of an output."""
    return output.movedim((samples_axis, features_axis), (0, -1)).flatten(1, -2)
