"""The memory of a real training step, tensor by tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def measure_memory(model: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Bytes of a training step of a copy of the model: ``activations``, ``sgd_peak`` and ``adam_peak``.

    Raises:
        ImportError: if this torch has no MemTracker as it was known.
    """
    return {
        "activations": _activations(model, inputs),
        "sgd_peak": _peak(model, inputs, lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9)),
        "adam_peak": _peak(model, inputs, lambda p: torch.optim.Adam(p, lr=1e-4)),
    }


def _loss(model: nn.Module, inputs: Tensor) -> Tensor:
    output = model(inputs)
    logits = output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else output.logits
    labels = torch.arange(len(inputs), device=inputs.device) % logits.shape[1]
    return cross_entropy(logits, labels)


def _activations(model: nn.Module, inputs: Tensor) -> int:
    """Bytes that autograd keeps between forward and backward, parameters and buffers left out."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _loss(model, inputs)  # noqa: F841  # keeps the graph alive, and with it each storage its address
    return sum(kept.values())


def _peak(model: nn.Module, inputs: Tensor, make: Callable[[Any], torch.optim.Optimizer]) -> int:
    """Highest memory over two steps: in the second the optimizer's state exists from the start."""
    model = _frozen_as_buffers(copy.deepcopy(model)).train()
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    tracker = _memory_tracker()
    tracker.track_external(model, optimizer, inputs)
    with tracker:
        for _ in range(2):
            tracker.reset_mod_stats()  # its records of each module, which it keeps for one pass only; not the peak
            _loss(model, inputs).backward()
            optimizer.step()
            optimizer.zero_grad()
    peaks = tracker.get_tracker_snapshot("peak")
    return sum(int(parts["Total"]) for parts in peaks.values())


def _frozen_as_buffers(model: nn.Module) -> nn.Module:
    """The same model, its frozen parameters kept as buffers: Torch's MemTracker asks every parameter for a gradient."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    return model


def _memory_tracker() -> Any:
    """Torch's MemTracker, which is private: another torch may have it elsewhere, or changed."""
    try:
        from torch.distributed._tools.mem_tracker import MemTracker
    except ImportError as error:
        raise ImportError(_NO_TRACKER) from error
    needed = ("track_external", "reset_mod_stats", "get_tracker_snapshot")
    if not all(hasattr(MemTracker, name) for name in needed):
        raise ImportError(_NO_TRACKER)
    return MemTracker()


_NO_TRACKER = (
    f"torch {torch.__version__} has no memory tracker that this version knows: count without memory "
    "(leave out inputs=, or --memory)"
)
