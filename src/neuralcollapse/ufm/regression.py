"""Neural regression collapse: squared error with continuous targets over unconstrained features.

Andriopoulos, Dong, Guo, Zhao and Ross, "The prevalence of neural collapse in neural multivariate regression", NeurIPS
2024 (arXiv 2409.04180), Theorem 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuralcollapse.ufm.arguments import decays, whole


@dataclass(frozen=True)
class RegressionOptimum:
    """The global minimum of the unconstrained feature model for continuous targets."""

    W: Float[np.ndarray, "n d"]
    H: Float[np.ndarray, "d N"]
    b: Float[np.ndarray, " n"]
    value: float
    singular_values: Float[np.ndarray, " r"]
    """Of W H, largest first: those of the targets, less N τ, never negative."""

    @property
    def rank(self) -> int:
        """Directions of the targets that the decay leaves."""
        return int((self.singular_values > 0).sum())

    def __str__(self) -> str:
        return f"regression optimum: value {self.value:.9g}, {self.rank} of {len(self.b)} target directions kept"


def regression_optimum(
    targets: Float[np.ndarray, "N n"], feature_dim: int, *, lambda_w: float, lambda_h: float, bias: bool = True
) -> RegressionOptimum:
    """The global minimiser of ||W H + b1' - Y'||²/(2N) + λW/2 ||W||² + λH/2 ||H||², in closed form.

    WW' = sqrt(λH/λW) U [Σ - N τ]₊ U' from the SVD of the targets, centred if there is a (free) bias; with fewer
    features than targets the largest singular values are kept.

    Args:
        targets: N x n, one row per sample, any real numbers.
        feature_dim: d.
        lambda_w: weight decay of the last layer.
        lambda_h: weight decay of the features.
        bias: whether there is a bias, without decay.

    Raises:
        ValueError: naming the argument, its value and the constraint.

    >>> targets = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> found = regression_optimum(targets, 2, lambda_w=0.25, lambda_h=0.25)     # N τ = 1
    >>> (found.singular_values**2).round(6).tolist()
    [10.514719, 0.171573]
    """
    targets = np.asarray(targets, dtype=float)
    if targets.ndim != 2 or not targets.size:
        raise ValueError(f"targets have shape {targets.shape}: expected (N, n), one row per sample")
    if not np.isfinite(targets).all():
        raise ValueError("targets hold NaN or infinity")
    feature_dim = whole("feature_dim", feature_dim, least=1)
    lambda_w, lambda_h = decays(lambda_w, lambda_h)
    total, outputs = targets.shape
    offset = targets.mean(0) if bias else np.zeros(outputs)
    left, singular, right = np.linalg.svd((targets - offset).T, full_matrices=False)
    tau = math.sqrt(lambda_w) * math.sqrt(lambda_h)
    shrunk = np.maximum(singular - total * tau, 0)
    shrunk[feature_dim:] = 0
    used = min(feature_dim, len(singular))
    balance = math.sqrt(math.sqrt(lambda_h) / math.sqrt(lambda_w))
    weight, features = np.zeros((outputs, feature_dim)), np.zeros((feature_dim, total))
    weight[:, :used] = left[:, :used] * (balance * np.sqrt(shrunk[:used]))
    features[:used] = (np.sqrt(shrunk[:used]) / balance)[:, None] * right[:used]
    value = float(((singular - shrunk) ** 2).sum() / (2 * total) + tau * shrunk.sum())
    return RegressionOptimum(weight, features, offset, value, shrunk)
