"""Norms whose squares neither overflow nor underflow, however extreme the decays."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float


def euclidean(array: np.ndarray) -> float:
    """Root of the sum of squares of all entries.

    >>> euclidean(np.array([3e-300, 4e-300]))
    5e-300
    """
    largest = float(np.abs(array).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(array / largest))


def spectral(blocks: Iterable[Float[np.ndarray, "K block"]]) -> tuple[float, Float[np.ndarray, " K"]]:
    """The spectral norm of blocks of columns side by side, and the left singular vector, through their Gram matrix.

    >>> round(spectral([np.array([[3e-200], [0.0]]), np.array([[4e-200], [0.0]])])[0] * 1e200, 12)
    5.0
    """
    gram: np.ndarray | float = 0.0
    unit = 0.0
    for block in blocks:
        largest = float(np.abs(block).max(initial=0.0))
        if largest > unit:
            gram, unit = gram * (unit / largest) ** 2, largest
        scaled = block / (unit or 1.0)
        gram = gram + scaled @ scaled.T
    values, vectors = np.linalg.eigh(gram)
    return unit * math.sqrt(max(float(values[-1]), 0.0)), vectors[:, -1]
