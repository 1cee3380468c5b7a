"""Mixed precision: its context, and whether the hardware has arithmetic for it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import torch
from torch.nn.functional import conv2d

DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""The half precision of each of Lightning's names; the others compute in single precision."""

_SLOW = 2.0
"""Times as long as in single precision from which on half precision is emulated, not computed."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """What Lightning's name for a precision means on a device, around a forward pass."""
    return torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES)


def check_precision(asked: str, taken: str) -> None:
    """Refuse a precision that Lightning replaces by another one: float16 on a processor becomes bfloat16.

    Args:
        asked: of the configuration.
        taken: of the trainer.

    Raises:
        ValueError: if they differ.
    """
    if taken != asked:
        raise ValueError(
            f"precision={asked!r} is not there on this device, where Lightning takes {taken!r} in its place: choose "
            "precision='bf16-mixed' or '32-true'"
        )


def slowdown(precision: str, device: torch.device) -> float:
    """How many times as long a small convolution takes as in single precision, its backward pass included.

    About a half where the hardware has arithmetic for it; ten or more on a processor that emulates it.
    """
    if precision not in DTYPES:
        return 1.0
    # Drawn on the host by a generator of its own: to save the state of each accelerator would start them all.
    host = torch.Generator()
    images, kernel = (torch.randn(shape, generator=host) for shape in ((8, 32, 16, 16), (32, 32, 3, 3)))
    images, kernel = images.to(device), kernel.to(device).requires_grad_()
    return _seconds(images, kernel, precision) / _seconds(images, kernel, "32-true")


def emulated(precision: str, device: torch.device) -> str | None:
    """A sentence for the user of a precision that is much slower here than single precision; None for all others."""
    factor = slowdown(precision, device)
    if factor < _SLOW:
        return None
    return (
        f"precision={precision!r}: this hardware has no arithmetic for it, and a convolution takes {factor:.0f} times "
        "as long as with precision='32-true'"
    )


def _seconds(images: torch.Tensor, kernel: torch.Tensor, precision: str) -> float:
    """Of the fastest of three passes, after one that warms up."""
    found = []
    for _ in range(4):
        begun = time.perf_counter()
        with autocast(precision, images.device):
            conv2d(images, kernel, padding=1).sum().backward()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        found.append(time.perf_counter() - begun)
    return min(found[1:])
