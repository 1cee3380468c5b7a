"""Where a model's tensors lie, where it is to compute, and in which precision it takes its inputs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def home_of(model: nn.Module, device: torch.device | None) -> tuple[torch.device | None, torch.dtype]:
    """Where inputs go (None: nowhere, as the model has no tensors), and the precision of numbers without one."""
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_meta]
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())
    return device or next((tensor.device for tensor in tensors), None), dtype


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a model whose first batch would create its weights: it could not be left as it was.

    Raises:
        ValueError: naming the layer.
    """
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"{lazy[0]!r} of the model is lazy and has no shape yet: run one batch through the model first"
        )


def checked_device(model: nn.Module, device: torch.device | str | None) -> torch.device | None:
    """The device to compute on.

    Raises:
        ValueError: if it, or the model, is on the meta device, where there are no numbers.
    """
    offloaded = hasattr(model, "hf_device_map")
    chosen = None if device is None else _existing(device)
    if (chosen is not None and chosen.type == "meta") or (
        not offloaded and any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    ):
        raise ValueError(
            "the meta device holds no numbers to measure: load the model's weights, and compute on another device"
        )
    return chosen


def _existing(device: torch.device | str) -> torch.device:
    """A device by name, if a tensor can lie on it."""
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"device={str(device)!r} is not available here: {str(error).splitlines()[0]}") from error
    return chosen
