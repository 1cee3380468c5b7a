"""Leave a model, its caller and the random numbers as they were found, also after an error or Ctrl-C."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INTERNAL = frozenset(vars(nn.Module()))
"""Attributes of every module: its tables of parameters, buffers, children and hooks, and its training flag."""


@contextlib.contextmanager
def plain_modes() -> Iterator[None]:
    """No gradient, inference mode, autocast or compilation, whatever the caller has switched on."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.no_grad())
        for kind in {"cpu", "cpu" if accelerator is None else accelerator.type}:
            if torch.amp.autocast_mode.is_autocast_available(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:  # compiled code runs no hooks of the layers inside it
            modes.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextlib.contextmanager
def resharded(model: nn.Module) -> Iterator[None]:
    """Weights that FSDP gathers for a forward pass are given up again."""
    try:
        yield
    finally:
        for module in reversed(list(model.modules())):
            if type(module).__name__.startswith("FSDP") and hasattr(module, "reshard"):
                module.reshard()  # type: ignore[operator]


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards the flags, buffers and plain attributes of each module are what they were.

    Flags are set one by one: a module that overrides ``train`` may merge or swap its weights there (as LoRA
    layers do), and that would not be undone.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    attributes = [{name: value for name, value in vars(module).items() if name not in _INTERNAL} for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    copies = {
        id(buffer): (buffer, buffer.detach().clone())
        for table in buffers
        for buffer in table.values()
        if buffer is not None
    }
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, training, plain, table in zip(modules, flags, attributes, buffers, strict=True):
            module.training = training
            _restore(vars(module), plain)
            if not isinstance(module, torch.jit.ScriptModule):  # whose buffers keep their names and are copied below
                module._buffers.clear()
                module._buffers.update(table)
        for buffer, copy in copies.values():
            _restore_tensor(buffer, copy)


def _restore(found: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in found if name not in _INTERNAL and name not in before]:
        del found[name]
    found.update(before)


@torch.no_grad()
def _restore_tensor(buffer: Tensor, copy: Tensor) -> None:
    if buffer.shape != copy.shape or buffer.dtype != copy.dtype:
        buffer.data = copy.to(buffer.device)
    elif not _same(buffer, copy.to(buffer.device)):
        buffer.copy_(copy)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


@contextlib.contextmanager
def on_device(model: nn.Module, device: torch.device | None) -> Iterator[None]:
    """The model on a device, and afterwards, or if the move fails half-way, each tensor where it was.

    The tensors themselves come back, not copies of copies: views, optimizers and tied weights stay whole.
    """
    if device is None:
        yield
        return
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    gradients = [tensor.grad for tensor in tensors.values() if tensor.grad is not None]
    before = [(tensor, tensor.data) for tensor in (*tensors.values(), *gradients)]
    homes = {tensor.device for tensor, _ in before}
    tables = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    try:
        model.to(device)
        yield
    finally:
        for module, parameters, buffers in tables:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        for tensor, data in before:
            if tensor.data.data_ptr() != data.data_ptr() or tensor.device != data.device:
                tensor.data = data
        if len(homes) == 1 and device not in homes:
            model.to(homes.pop())  # moves nothing: for modules that note where they are, as Lightning's


@contextlib.contextmanager
def same_random_numbers(loader: Any = None) -> Iterator[None]:
    """The states of torch's, NumPy's and Python's generators are restored on leaving, and of those a loader holds."""
    python, legacy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    device = _started_accelerator()
    every = hasattr(device, "get_rng_state_all")
    state = None if device is None else device.get_rng_state_all() if every else device.get_rng_state()
    held = [(generator, _state(generator)) for generator in _generators(loader, 4, set())]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(host)
        if device is not None:
            (device.set_rng_state_all if every else device.set_rng_state)(state)
        for generator, before in held:
            _set_state(generator, before)


def _generators(owner: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """Random generators in the attributes of a loader, its samplers and its data set."""
    if id(owner) in seen:
        return
    seen.add(id(owner))
    if isinstance(owner, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
        yield owner
    elif depth and hasattr(owner, "__dict__") and not isinstance(owner, type | nn.Module | Tensor):
        for part in list(vars(owner).values()):
            yield from _generators(part, depth - 1, seen)


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _started_accelerator() -> Any:
    """The module of the accelerator in use (such as ``torch.cuda``); to ask an idle one would start it."""
    if not torch.accelerator.is_available():
        return None
    device = torch.get_device_module(torch.accelerator.current_accelerator())
    return device if getattr(device, "is_initialized", lambda: True)() else None
