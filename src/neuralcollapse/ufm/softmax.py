"""Cross-entropy, label smoothing and focal loss: functions of the softmax of the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from neuralcollapse.ufm.loss import Columns, Loss, PerSample, entropy, share_above


class _Softmax(NamedTuple):
    probabilities: Columns
    residual: Columns
    """P - y for targets that sum to one, to relative precision."""
    values: PerSample
    """Cross-entropy."""


def _softmax(logits: Columns, targets: Columns) -> _Softmax:
    """Softmax with the largest entry of each column kept apart, so that 1 - p has no rounding of 1 in it."""
    columns = np.arange(logits.shape[1])
    top = logits.argmax(0)
    shifted = logits - logits[top, columns]
    others = np.exp(shifted)
    others[top, columns] = 0
    rest = others.sum(0)
    values = np.log1p(rest) - (targets * shifted).sum(0)
    residual = others / (1 + rest) - targets
    at_top = targets[top, columns]
    residual[top, columns] = ((1 - at_top) - at_top * rest) / (1 + rest)
    others[top, columns] = 1
    return _Softmax(others / (1 + rest), residual, values)


def _less_mean(probabilities: Columns, change: Columns) -> Columns:
    """The change less its mean <P, change>: to relative precision also where one probability is nearly one."""
    change = change - change[probabilities.argmax(0), np.arange(change.shape[1])]
    return change - (probabilities * change).sum(0)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """log Σ exp(z) - <y, z>: the paper's loss.

    >>> round(float(CrossEntropy().value(np.zeros((4, 1)), np.eye(4)[:, :1])[0]), 6) == round(math.log(4), 6)
    True
    """

    name: ClassVar[str] = "cross_entropy"

    def smoothed(self, targets: Columns) -> Columns:
        """The distribution that the predictions are compared with."""
        return targets

    def value_and_gradient(self, logits: Columns, targets: Columns) -> tuple[PerSample, Columns]:
        """Cross-entropy and P - y."""
        found = _softmax(logits, self.smoothed(targets))
        return found.values, found.residual

    def hessian_product(self, logits: Columns, targets: Columns, change: Columns) -> Columns:
        """(diag(P) - P P') applied to the change."""
        probabilities = _softmax(logits, targets).probabilities
        return probabilities * _less_mean(probabilities, change)

    def conjugate(self, dual: Columns, targets: Columns) -> PerSample:
        """The negative entropy of y + p, a distribution."""
        return -entropy(self.smoothed(targets), dual).sum(0)

    def share(self, dual: Columns, targets: Columns) -> float:
        """Up to where an entry of y + s p becomes negative."""
        return share_above(dual, self.smoothed(targets))

    def centre_rows(self, dual: Columns, weights: PerSample, labels: np.ndarray) -> Columns:
        """Send the surplus of each row to the rows in deficit; columns keep their sums."""
        surplus = dual @ weights
        surplus = surplus - surplus.sum() / len(surplus)  # rounding: the columns sum to zero
        moved = np.maximum(surplus, 0).sum()
        if moved == 0:
            return dual
        # Samples of a class in surplus give up so much of their own class to the classes in deficit. Entries off the
        # label only grow, so that the dual stays in the domain but for the label's own entry, which `share` watches.
        of_class = np.bincount(labels, weights, minlength=len(dual))
        given = np.divide(np.maximum(surplus, 0), of_class, out=np.zeros(len(dual)), where=of_class > 0)[labels]
        change = np.outer(np.maximum(-surplus, 0) / moved, given)
        change[labels, np.arange(len(labels))] -= given
        return dual + change


@dataclass(frozen=True)
class LabelSmoothing(CrossEntropy):
    """Cross-entropy against targets (1 - α) y + α/K.

    Args:
        alpha: α, from 0 up to but not including 1.

    Raises:
        ValueError: if alpha is outside of that range.
    """

    alpha: float = 0.1
    name: ClassVar[str] = "label_smoothing"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha={self.alpha} must be at least 0 and below 1")

    def smoothed(self, targets: Columns) -> Columns:
        """(1 - α) y + α/K."""
        return (1 - self.alpha) * targets + self.alpha / len(targets)

    def __str__(self) -> str:
        return f"{self.name}:{self.alpha:g}"


@dataclass(frozen=True)
class Focal(CrossEntropy):
    """-(1 - p)^γ log p with p the probability of the sample's class (Lin et al. 2017). Not convex in the logits.

    Args:
        gamma: γ, zero (cross-entropy) or positive.

    Raises:
        ValueError: if gamma is negative or not finite.
    """

    gamma: float = 3.0
    name: ClassVar[str] = "focal"

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and math.isfinite(self.gamma)):
            raise ValueError(f"gamma={self.gamma} must be zero or positive, and finite")

    @property
    def convex(self) -> bool:
        """Only for γ = 0, which is cross-entropy."""
        return self.gamma == 0

    def value_and_gradient(self, logits: Columns, targets: Columns) -> tuple[PerSample, Columns]:
        """The gradient is a(p) (P - y) with a = (1-p)^γ - γ p (1-p)^{γ-1} log p."""
        found = _softmax(logits, targets)
        wrong, right, ratio = self._parts(found, targets)
        scale = wrong**self.gamma
        return scale * found.values, scale * (1 - self.gamma * right * ratio) * found.residual

    def hessian_product(self, logits: Columns, targets: Columns, change: Columns) -> Columns:
        """With δ the change: a (diag(P) - PP') δ + a'(p) p (δ_y - <P, δ>) (P - y)."""
        found = _softmax(logits, targets)
        wrong, right, ratio = self._parts(found, targets)
        gamma, scale = self.gamma, wrong**self.gamma
        change = _less_mean(found.probabilities, change)
        first = scale * (1 - gamma * right * ratio) * found.probabilities * change
        slope = gamma * right * ((gamma - 1) * right * ratio - 2 - wrong * ratio)
        along = (targets * change).sum(0)
        direction = found.residual / np.maximum(wrong, np.finfo(float).tiny)
        return first + scale * slope * along * direction

    def _parts(self, found: _Softmax, targets: Columns) -> tuple[PerSample, PerSample, PerSample]:
        """1 - p, p, and log(p)/(1 - p), whose limit is -1."""
        wrong = -(targets * found.residual).sum(0)
        right = (targets * found.probabilities).sum(0)
        ratio = -np.divide(found.values, wrong, out=np.ones_like(wrong), where=wrong > 0)
        return wrong, right, ratio

    def __str__(self) -> str:
        return f"{self.name}:{self.gamma:g}"
