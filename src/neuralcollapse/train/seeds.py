"""Seeds for the parts of a run, each independent of the others."""

from __future__ import annotations

import numpy as np


def mix(*parts: int) -> int:
    """One 64-bit seed from several non-negative integers, through NumPy's SeedSequence.

    Neighbouring inputs give unrelated seeds, and inputs of any size are allowed.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
