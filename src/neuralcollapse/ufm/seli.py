"""The limit of no decay: SELI, and the limit of a free bias beside it.

Thrampoulidis, Kini, Vakilian and Behnia, "Imbalance trouble: revisiting neural-collapse geometry", NeurIPS 2022, arXiv
2208.05512.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def no_decay(
    counts: list[int], *, free: bool
) -> tuple[Float[np.ndarray, "K d"], Float[np.ndarray, "K d"], Float[np.ndarray, " K"]]:
    """W, class means (in rows) and bias, up to a common scale, for a free bias or without one.

    With Z D^½ = U Σ V', W = U Σ^½ and H = Σ^½ V' D^-½; scaled to a largest row of W of norm one.

    SELI has Z = S. A free bias takes over (π - 1/K) 1', π the class frequencies, and leaves Z = I - π 1': the bias that
    makes the nuclear norm of (S - b 1') D^½ least, as then the features' mean over samples is zero.
    """
    k = len(counts)
    taken = np.array(counts) / sum(counts) if free else np.full(k, 1 / k)
    left, singular, right = np.linalg.svd((np.eye(k) - taken[:, None]) * np.sqrt(counts))
    weight = left[:, : k - 1] * np.sqrt(singular[: k - 1])
    means = (np.sqrt(singular[: k - 1])[:, None] * right[: k - 1] / np.sqrt(counts)).T
    scale = float(np.linalg.norm(weight, axis=1).max())
    return weight / scale, means / scale, (taken - 1 / k) / scale**2
