"""What the modules of a model hold, kept while the model runs, and given back afterwards."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import types
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse.geometry import CollapseWarning
from neuralcollapse.measurement.generators import FAR_AWAY, set_state, states_in
from neuralcollapse.measurement.ranks import is_sharded

INTERNAL = frozenset(vars(nn.Module()))
"""Attributes of every module: its tables of parameters, buffers, children and hooks, and its training flag."""

_COPIED_BYTES = 64 << 20
"""Tensors up to this total are copied. For larger ones a change is only detected."""

_MOST_CONTAINERS = 100_000
_MOST_PARTS = 10_000
_SAMPLE = 256


class Belongings:
    """All that a forward pass may change in a model: taken note of when made, given back by :meth:`restore`.

    Buffers, plain attributes, tables, lists, mappings and generators are given back whatever their size. Parameters,
    and tensors and arrays in attributes, are copied up to 64 MiB, the smallest first; embeddings that a forward pass
    renormalises (``max_norm``) always are. A larger one that is replaced is given back; one that is changed in place
    cannot be, and a warning names it.

    Args:
        model: to be restored. The parameters of a model that is sharded over processes, or whose weights lie elsewhere,
            are left alone: it manages them in the forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        managed = is_sharded(model) or any(parameter.is_meta for parameter in model.parameters())
        plain = [module for module in self._modules if not isinstance(module, torch.jit.ScriptModule)]
        self._attributes = [(module, _plain(module)) for module in self._modules]
        self._tables = [
            (vars(module)[name], vars(module)[name].copy())
            for module in plain
            for name in (("_buffers",) if managed else INTERNAL)
            if isinstance(vars(module).get(name), dict | set)
        ]
        self._tensors = [_Kept(name, buffer, copy=True) for name, buffer in model.named_buffers()]
        self._containers: list[tuple[Any, Any]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._generators = states_in(*self._modules)
        if not managed:
            self._keep(model)

    def _keep(self, model: nn.Module) -> None:
        """Parameters, and what attributes hold."""
        tensors, arrays, self._containers = _held_in(model)
        always = {
            id(module.weight)
            for module in self._modules
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
        }
        known = {id(kept.tensor) for kept in self._tensors}
        left = _COPIED_BYTES
        for name, tensor in sorted(tensors, key=lambda item: item[1].nbytes):
            if id(tensor) not in known:
                fits = tensor.nbytes <= left
                left -= tensor.nbytes if fits else 0
                self._tensors.append(_Kept(name, tensor, copy=fits or id(tensor) in always))
        for array in sorted(arrays, key=lambda array: array.nbytes):
            if array.nbytes <= left and array.flags.writeable:
                left -= array.nbytes
                self._arrays.append((array, array.copy()))

    def restore(self) -> None:
        """Give everything back; warn of what cannot be.

        Warns:
            CollapseWarning: naming the parameters that the forward pass has changed in place.
        """
        for module, attributes in self._attributes:
            _restore_attributes(vars(module), attributes)
        for table, before in self._tables:
            _refill(table, before)
        for container, before in self._containers:
            _refill(container, before)
        for array, copy in self._arrays:
            array[...] = copy
        for generator, state in self._generators:
            set_state(generator, state)
        lost = [kept.name for kept in self._tensors if not kept.restore()]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            warnings.warn(
                f"the forward pass changes {lost[0]!r}{more} of the model in place, too large to be kept and given "
                "back: measure a copy of the model, copy.deepcopy(model), or load its weights again",
                CollapseWarning,
                stacklevel=3,
            )


class _Kept:
    """A tensor and what it held: a copy of it or, where it is too large for one, signs by which a change shows."""

    def __init__(self, name: str, tensor: Tensor, *, copy: bool) -> None:
        self.name = name
        self.tensor = tensor
        self._data = tensor.data
        self._needed = tensor.requires_grad
        self._gradient = tensor.grad if tensor.is_leaf else None
        self._copy = tensor.detach().clone() if copy else None
        self._signs = None if copy else self._signs_now()

    def _signs_now(self) -> tuple[int, Tensor]:
        flat = self.tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLE)
        return 0 if self.tensor.is_inference() else self.tensor._version, flat[::step].clone()

    @torch.no_grad()
    def restore(self) -> bool:
        """Give it back; False where that cannot be done."""
        tensor = self.tensor
        if self._copy is not None and tensor.is_inference() and not torch.is_inference_mode_enabled():
            with torch.inference_mode():
                return self.restore()
        if tensor.is_leaf:
            if tensor.requires_grad != self._needed:
                tensor.requires_grad_(self._needed)
            if tensor.grad is not self._gradient:
                tensor.grad = self._gradient
        if _place(tensor) != _place(self._data):
            tensor.data = self._data
        if tensor.is_meta or tensor.layout != torch.strided:
            return True
        if self._copy is None:
            assert self._signs is not None
            version, sample = self._signs_now()
            return version == self._signs[0] and same_numbers(sample, self._signs[1])
        if not same_numbers(tensor, self._copy.to(tensor.device)):
            tensor.copy_(self._copy)
        return True


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.dtype, tensor.shape, tensor.data_ptr() if _ordinary(tensor) else 0


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN among them."""
    if one.is_floating_point() and one.itemsize == 1:  # which torch does not compare
        one, other = one.view(torch.uint8), other.view(torch.uint8)
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in INTERNAL}


_Held = tuple[list[tuple[str, Tensor]], list[np.ndarray], list[tuple[Any, Any]]]


def _held_in(model: nn.Module) -> _Held:
    """Parameters and tensors by name, arrays, and lists and mappings with copies: in attributes and in each other."""
    tensors: dict[int, tuple[str, Tensor]] = {id(p): (name, p) for name, p in model.named_parameters() if _ordinary(p)}
    arrays: dict[int, np.ndarray] = {}
    containers: dict[int, tuple[Any, Any]] = {}
    homes = {home for module in model.modules() if not (home := type(module).__module__).startswith("torch.")}
    waiting = collections.deque(
        (f"{name}.{key}" if name else key, value)
        for name, module in model.named_modules()
        for key, value in _plain(module).items()
        if key not in FAR_AWAY
    )
    while waiting and len(containers) < _MOST_CONTAINERS:
        name, value = waiting.popleft()
        if isinstance(value, Tensor):
            if _ordinary(value):
                tensors.setdefault(id(value), (name, value))
        elif isinstance(value, np.ndarray):
            arrays[id(value)] = value
        elif id(value) not in containers:
            table = _table_of(value, homes)
            if table is not None:
                containers[id(value)] = table, _copied(table)
                parts = table.values() if isinstance(table, dict) else table
                waiting.extend((name, part) for part in itertools.islice(parts, _MOST_PARTS))
    return list(tensors.values()), list(arrays.values()), list(containers.values())


def _ordinary(tensor: Tensor) -> bool:
    """Whether numbers can be read of it, and given back."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta


def _table_of(value: Any, homes: set[str]) -> Any:
    """What holds the parts of a container, or the fields of a record; None for anything else.

    Records are dataclasses, and objects whose classes stand beside those of the model's own modules.
    """
    if isinstance(value, dict | list | set | collections.deque | tuple):
        return value
    if isinstance(value, collections.UserDict | collections.UserList):
        return value.data
    record = (
        isinstance(value, types.SimpleNamespace) or dataclasses.is_dataclass(value) or type(value).__module__ in homes
    )
    if record and not isinstance(value, type | nn.Module):
        return getattr(value, "__dict__", None)
    return None


def _copied(table: Any) -> Any:
    return dict(table) if isinstance(table, dict) else set(table) if isinstance(table, set) else list(table)


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, dict):
        same = len(container) == len(before) and all(
            key is old and container[key] is before[old] for key, old in zip(container, before, strict=True)
        )
    elif isinstance(container, set):
        same = {id(part) for part in container} == {id(part) for part in before}
    else:
        same = len(container) == len(before) and all(a is b for a, b in zip(container, before, strict=True))
    if same or isinstance(container, tuple):
        return
    container.clear()
    (container.extend if isinstance(container, list | collections.deque) else container.update)(before)


def _restore_attributes(found: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in found if name not in INTERNAL and name not in before]:
        del found[name]
    found.update(before)
