"""Leave a model, its caller and the random numbers as they were found, also after an error or Ctrl-C."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from neuralcollapse.measurement.belongings import Belongings
from neuralcollapse.measurement.generators import set_state, states_in


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
    """Evaluation mode inside; afterwards the flags of each module, and all that it holds, are what they were.

    Flags are set one by one: a module that overrides ``train`` may merge or swap its weights there (as LoRA
    layers do), and that would not be undone. See :class:`Belongings` for what is given back.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    before = Belongings(model)
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, training in zip(modules, flags, strict=True):
            module.training = training
        before.restore()


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
    held = states_in(loader)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(host)
        if device is not None:
            (device.set_rng_state_all if every else device.set_rng_state)(state)
        for generator, before in held:
            set_state(generator, before)


def _started_accelerator() -> Any:
    """The module of the accelerator in use (such as ``torch.cuda``); to ask an idle one would start it."""
    if not torch.accelerator.is_available():
        return None
    device = torch.get_device_module(torch.accelerator.current_accelerator())
    return device if getattr(device, "is_initialized", lambda: True)() else None
