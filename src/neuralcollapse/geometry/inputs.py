"""What the public functions accept as features, labels and classifiers, and the sentences that refuse the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.ways_out import as_integers, not_numbers, to_matrix

Rows: TypeAlias = Sequence[Any] | np.ndarray
"""Array-like input besides tensors: a NumPy array or nested lists of numbers."""


def as_tensor(values: Any, name: str) -> Tensor:
    """A dense tensor of tensors, NumPy arrays and lists; never a view that the caller could see change.

    Raises:
        TypeError: if it is none of these, or a tensor without plain numbers inside.
    """
    if isinstance(values, Tensor):
        return _dense(values.detach(), name)
    if values is None:
        raise TypeError(f"{name} {_are(name)} None: expected a tensor, a NumPy array or a list of numbers")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} {_are(name)} a {type(values).__name__} that is no array of numbers: {error}"
        ) from error
    if np.ma.is_masked(values):
        raise TypeError(f"{name} {_are(name)} a masked array: drop the masked rows first, as its numbers hide there")
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"{name} {_are(name)} {not_numbers(values, name)}")
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
    return torch.from_numpy(native)


def _are(name: str) -> str:
    return "are" if name in _PLURAL else "is"


def _have(name: str) -> str:
    return "have" if name in _PLURAL else "has"


_PLURAL = ("features", "labels", "predictions", "logits", "targets", "vectors", "class_means", "separations")


def _dense(tensor: Tensor, name: str) -> Tensor:
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(
            f"{name} {_are(name)} a sparse or nested tensor ({tensor.layout}): pass a dense one, as by .to_dense()"
        )
    if tensor.is_meta:
        raise TypeError(f"{name} {_are(name)} a tensor on the meta device, which holds no numbers: load it first")
    if tensor.is_quantized:
        raise TypeError(f"{name} {_are(name)} a quantized tensor ({tensor.dtype}): pass {name}.dequantize()")
    return tensor


def as_real(values: Any, name: str) -> Tensor:
    """A dense tensor of float16, bfloat16, float32 or float64.

    Raises:
        TypeError: for any other kind of number.
    """
    tensor = as_tensor(values, name)
    if isinstance(values, list | tuple) and not tensor.is_complex() and tensor.dtype != torch.bool:
        tensor = tensor.double()  # Python's numbers: [0, 1] means [0.0, 1.0]
    if not tensor.is_floating_point():
        raise TypeError(f"{name} {_have(name)} dtype {tensor.dtype}: expected a floating point dtype")
    if tensor.element_size() == 1 or tensor.dtype not in _REAL:
        raise TypeError(f"{name} {_have(name)} dtype {tensor.dtype}, too narrow to compute with: pass {name}.float()")
    return tensor


_MOST_ENTRIES = 1 << 42
"""Of class means, 35 TB: more is a mistake, and to ask for that memory can stop a machine."""

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_labels(values: Any, name: str = "labels") -> Tensor:
    """A dense tensor of integers, any width.

    Raises:
        TypeError: for anything else.
    """
    tensor = as_tensor(values, name)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(
            f"{name} have dtype {tensor.dtype}: expected integers, one class index per "
            f"sample{as_integers(values, tensor)}"
        )
    return tensor


def check_sizes(num_classes: Any, feature_dim: Any) -> tuple[int, int]:
    """K and d as plain integers.

    Raises:
        ValueError: if K < 2 or d < 1.
        TypeError: if either is no integer.
    """
    num_classes, feature_dim = as_count(num_classes, "num_classes"), as_count(feature_dim, "feature_dim")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: collapse is defined for at least 2 classes")
    if feature_dim < 1:
        raise ValueError(f"feature_dim={feature_dim} must be at least 1")
    if num_classes * feature_dim > _MOST_ENTRIES:
        raise ValueError(
            f"num_classes={num_classes} and feature_dim={feature_dim} need {8e-9 * num_classes * feature_dim:.3g} GB, "
            "more than any machine has: number the classes from 0"
        )
    return num_classes, feature_dim


def as_count(value: Any, name: str) -> int:
    """A plain integer.

    Raises:
        TypeError: if it is none.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r} must be an integer")
    return int(value.__index__())


def check_batch(features: Tensor, labels: Tensor, num_classes: int, feature_dim: int) -> float:
    """Refuse a batch that would give a wrong number; returns the largest absolute entry of the features.

    Raises:
        ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
    """
    if features.ndim != 2 or features.shape[1] != feature_dim:
        logits = features.ndim == 2 and features.shape[1] == num_classes
        way = "; these may be logits: pass the input of the last layer" if logits else to_matrix(features)
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (B, {feature_dim}){way}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels have shape {tuple(labels.shape)}: expected ({len(features)},), one label per feature")
    if not len(labels):
        return 0.0
    low, high = label_range(labels)
    if low < 0 or high >= num_classes:
        allowed = f"lie in [0, {num_classes})" if num_classes < 1 << 62 else "be at least 0"
        way = "leave rows without a label out" if low < 0 else "where labels begin with 1, subtract 1"
        raise ValueError(f"label {low if low < 0 else high} is out of range: labels must {allowed}; {way}")
    lowest, highest = (float(bound) for bound in features.aminmax())  # NaN if any entry is
    largest = max(-lowest, highest)
    if not largest < float("inf"):
        bad = int((~features.isfinite()).any(1).sum())
        raise ValueError(f"features hold NaN or infinity in {bad} of {len(features)} samples")
    return largest


def label_range(labels: Tensor) -> tuple[int, int]:
    """Smallest and largest label, of any integer dtype."""
    if labels.dtype == torch.uint64:  # int64 would wrap around: no label may be that large
        labels = labels.view(torch.int64)
        if bool((labels < 0).any()):
            return 0, 2**63
    low, high = labels.to(torch.int64).aminmax()
    return int(low), int(high)


def check_classifier(
    weight: Any, bias: Any, num_classes: int | None, feature_dim: int
) -> tuple[Float[Tensor, "K d"] | None, Float[Tensor, " K"] | None]:
    """W and b where given, checked against the features; ``num_classes`` None takes W's own.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or b is given without W.
        TypeError: if either is no tensor of real numbers.
    """
    if weight is None:
        if bias is not None:
            raise ValueError("bias was given without weight: NC4 needs both")
        return None, None
    weight = as_real(weight, "weight")
    if weight.ndim == 2 and num_classes is None:
        num_classes = weight.shape[1] if weight.shape[1] != feature_dim == weight.shape[0] else weight.shape[0]
    if weight.shape != (num_classes, feature_dim):
        expected = f"({'K' if num_classes is None else num_classes}, {feature_dim})"
        turned = ": pass weight.T" if weight.shape == (feature_dim, num_classes) else ""
        raise ValueError(f"weight has shape {tuple(weight.shape)}: expected {expected}, one row per class{turned}")
    if bias is not None:
        bias = as_real(bias, "bias")
        if bias.shape != (num_classes,):
            raise ValueError(f"bias has shape {tuple(bias.shape)}: expected ({num_classes},)")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has non-finite entries (NaN or infinity)")
    return weight, bias


def as_rows(vectors: Any, name: str, normalize: bool) -> Float[Tensor, "K d"]:
    """The rows of a matrix in float64, of length one where asked.

    Raises:
        ValueError: if there are fewer than two, or one is not finite, or zero where it is normalised.
        TypeError: as :func:`as_real`.
    """
    vectors = as_real(vectors, name)
    if vectors.ndim != 2 or len(vectors) < 2 or not vectors.shape[1]:
        raise ValueError(f"{name} has shape {tuple(vectors.shape)}: expected (K, d) with K at least 2")
    rows = vectors.double()
    if not bool(rows.isfinite().all()):
        raise ValueError(f"{name} has non-finite entries (NaN or infinity)")
    if not normalize:
        return rows
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True)
    zero = (largest[:, 0] == 0).nonzero().flatten().tolist()
    if zero:
        raise ValueError(f"{name} has a zero row ({zero[0]}): it has no direction to normalise")
    rows = rows / largest  # first, so that no square overflows or vanishes
    return rows.div_(rows.norm(dim=1, keepdim=True))
