"""Squared error and binary cross-entropy: sums over the entries of the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from neuralcollapse.ufm.loss import Columns, Loss, PerSample, entropy, share_above


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """||z - y||²/2 for each sample."""

    name: ClassVar[str] = "mse"

    def value_and_gradient(self, logits: Columns, targets: Columns) -> tuple[PerSample, Columns]:
        """The gradient is z - y."""
        residual = logits - targets
        return (residual**2).sum(0) / 2, residual

    def hessian_product(self, logits: Columns, targets: Columns, change: Columns) -> Columns:
        """The identity."""
        return change.copy()

    def conjugate(self, dual: Columns, targets: Columns) -> PerSample:
        """||p||²/2 + <p, y>."""
        return (dual * (dual / 2 + targets)).sum(0)

    def share(self, dual: Columns, targets: Columns) -> float:
        """Every dual is in the domain."""
        return 1.0

    def centre_rows(self, dual: Columns, weights: PerSample, labels: np.ndarray) -> Columns:
        """Subtract the mean of each row."""
        return dual - (dual @ weights / weights.sum())[:, None]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Σ_k log(1 + exp(z_k)) - y_k z_k: one logistic regression per class, summed over the classes."""

    name: ClassVar[str] = "binary_cross_entropy"

    def value_and_gradient(self, logits: Columns, targets: Columns) -> tuple[PerSample, Columns]:
        """The gradient is σ(z) - y."""
        values = targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)
        return values.sum(0), (1 - targets) * expit(logits) - targets * expit(-logits)

    def hessian_product(self, logits: Columns, targets: Columns, change: Columns) -> Columns:
        """σ(z) σ(-z) times the change."""
        return expit(logits) * expit(-logits) * change

    def conjugate(self, dual: Columns, targets: Columns) -> PerSample:
        """The negative entropy of y + p in [0, 1], entry by entry."""
        return -(entropy(targets, dual) + entropy(1 - targets, -dual)).sum(0)

    def share(self, dual: Columns, targets: Columns) -> float:
        """Up to where an entry of y + s p leaves [0, 1]."""
        return min(share_above(dual, targets), share_above(-dual, 1 - targets))

    def centre_rows(self, dual: Columns, weights: PerSample, labels: np.ndarray) -> Columns:
        """Shrink the entries of the heavier sign in each row."""
        up, down = np.maximum(dual, 0) @ weights, np.maximum(-dual, 0) @ weights
        lesser = np.minimum(up, down)
        shrink_up = np.divide(lesser, up, out=np.zeros_like(up), where=up > 0)
        shrink_down = np.divide(lesser, down, out=np.zeros_like(down), where=down > 0)
        return np.where(dual > 0, shrink_up[:, None], shrink_down[:, None]) * dual
