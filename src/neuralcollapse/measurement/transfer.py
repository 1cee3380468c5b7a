"""A batch's inputs on the device and in the precision of a model, however they are nested."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def moved(value: Any, device: torch.device | None, dtype: torch.dtype) -> Any:
    """A batch's inputs with every tensor on a device, however they are nested; arrays become tensors.

    Args:
        value: tensors, arrays, lists of numbers, and mappings, sequences and dataclasses of these.
        device: where to; None leaves each where it is.
        dtype: of arrays and lists of floating point numbers, which have no precision chosen for a model.
    """
    if isinstance(value, Tensor):
        return value if device is None else value.to(device, non_blocking=True)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        native = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
        return moved(native.to(dtype) if native.is_floating_point() else native, device, dtype)
    if isinstance(value, list) and _numbers(value):
        return moved(np.asarray(value), device, dtype)
    if isinstance(value, Mapping):
        return {key: moved(part, device, dtype) for key, part in value.items()}
    if not isinstance(value, type) and callable(getattr(value, "to", None)):  # packed sequences, graphs
        return value if device is None else value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(part, device, dtype) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(moved(part, device, dtype) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _of_fields(value, lambda part: moved(part, device, dtype))
    return value


def converted(value: Any, dtype: torch.dtype) -> Any:
    """A batch's inputs with every floating point tensor in one precision; the very same object where all are."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        parts = {key: converted(part, dtype) for key, part in value.items()}
        return parts if any(parts[key] is not part for key, part in value.items()) else value
    if isinstance(value, tuple | list):
        found = [converted(part, dtype) for part in value]
        if all(new is part for new, part in zip(found, value, strict=True)):
            return value
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _of_fields(value, lambda part: converted(part, dtype))
    return value


def copied(value: Any) -> Any:
    """A batch's inputs in tensors of their own."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        found = [copied(part) for part in value]
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _of_fields(copy.copy(value), copied)
    return copy.deepcopy(value) if callable(getattr(value, "clone", None)) else value


def _of_fields(record: Any, change: Callable[[Any], Any]) -> Any:
    """A dataclass with its fields changed; the very same object where none is. Its ``__init__`` does not run again."""
    parts = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    changed = {name: new for name, part in parts.items() if (new := change(part)) is not part}
    if not changed:
        return record
    found = copy.copy(record)
    for name, part in changed.items():
        object.__setattr__(found, name, part)  # a frozen one as well
    return found


def _numbers(value: list[Any]) -> bool:
    """Whether nested lists are a rectangle of numbers."""
    first: Any = value
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, bool) or not isinstance(first, int | float | np.number | np.ndarray):
        return False
    try:
        return np.asarray(value).dtype.kind in "fiu"
    except ValueError:
        return False
