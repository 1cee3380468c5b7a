"""Seeds for the parts of a run, each independent of the others."""

from __future__ import annotations

import numpy as np
import torch


def mix(*parts: int) -> int:
    """One 64-bit seed from several non-negative integers, through NumPy's SeedSequence.

    Neighbouring inputs give unrelated seeds, and inputs of any size are allowed.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the host's generator and the one of a device.

    ``torch.manual_seed`` asks every kind of accelerator, and each one that is absent formats a stack trace for later.
    In every step that would slow small networks down.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != torch.default_generator.device.type:
        torch.get_device_module(device).manual_seed(seed)
