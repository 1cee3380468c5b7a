"""Arithmetic that depends on nothing but its operands: full precision, any scale, float64 on any machine."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SAFE = {torch.float32: 60, torch.float64: 400}
"""Entries between 2**-SAFE and 2**SAFE can be squared and summed without scaling, in each precision."""

_FULL = ("ieee", "none")


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No gradient, inference mode, autocast or TF32, whatever the caller has switched on."""
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.no_grad())
        if torch.amp.autocast_mode.is_autocast_available(device.type):
            modes.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device() != device:  # torch.set_default_device decides where new tensors lie
            modes.enter_context(device)
        modes.enter_context(_float32_products())
        yield


@contextlib.contextmanager
def _float32_products() -> Iterator[None]:
    """Float32 products in float32: neither TF32 nor bfloat16 inside them."""
    backends: list[Any] = [getattr(module, "matmul", None) for module in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    found = [(backend, backend.fp32_precision) for backend in backends if backend.fp32_precision not in _FULL]
    for backend, _ in found:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in found:
            backend.fp32_precision = precision


def float64_device(device: torch.device | str | None) -> torch.device:
    """The device itself, or the host where it has no float64 (Apple's MPS)."""
    try:
        return torch.zeros(1, dtype=torch.float64, device=device).device
    except (TypeError, RuntimeError):
        return torch.device("cpu")


def exponent_of(largest: float) -> int:
    """Exponent e of the unit 2**e in which ``largest`` can be squared; 0 for all ordinary sizes."""
    if largest == 0 or 2.0 ** -SAFE[torch.float64] <= largest <= 2.0 ** SAFE[torch.float64]:
        return 0
    return math.frexp(largest)[1] - 1


def times_power_of_two(tensor: Tensor, exponent: int) -> Tensor:
    """``tensor * 2**exponent``, in steps that are numbers of its precision; the tensor itself for 0."""
    most = 2 * SAFE[torch.float32] if tensor.dtype == torch.float32 else 2 * SAFE[torch.float64]
    while exponent:
        step = max(-most, min(most, exponent))
        tensor, exponent = tensor * 2.0**step, exponent - step
    return tensor


def in_unit(tensor: Tensor) -> tuple[Tensor, int]:
    """A tensor in units of 2**e, its largest entry in [1, 2), and e: no product of a few such overflows or vanishes.

    >>> in_unit(torch.tensor([12.0, -3.0]))
    (tensor([ 1.5000, -0.3750]), 3)
    """
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    exponent = math.frexp(largest)[1] - 1 if 0 < largest < math.inf else 0
    return times_power_of_two(tensor, -exponent), exponent


def row_norms(rows: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
    """Euclidean norms in float64: rows that are very long or short for their precision are scaled first."""
    norms = torch.linalg.vector_norm(rows, dim=1).double()
    safe = 2.0 ** SAFE[rows.dtype]
    rough = ~((norms > 1 / safe) & (norms < safe))
    if bool(rough.any()):
        chosen = rows[rough].double()
        largest = chosen.abs().amax(1, keepdim=True)
        scaled = chosen / largest.where(largest > 0, 1.0)
        norms[rough] = torch.linalg.vector_norm(scaled, dim=1) * largest[:, 0]
    return norms
