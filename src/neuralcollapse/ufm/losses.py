r"""The losses of the unconstrained feature model, as small objects that combine with everything else in it.

Each loss maps logits z (one column per sample) and targets y (one-hot columns) to a number per sample, and knows its
gradient, its Hessian applied to a direction, and, where it is convex, its conjugate
:math:`\ell^*(p) = \sup_z \langle p, z\rangle - \ell(z)`, from which certificates come. Small losses keep their relative
precision: nothing is computed as 1 minus a number near 1.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit

Columns = Float[np.ndarray, "K M"]
PerSample = Float[np.ndarray, "M"]


class Loss(abc.ABC):
    """A loss of logits (K, M) against targets (K, M): a number for each of the M samples."""

    name: ClassVar[str]
    """How the loss is called by name."""

    @property
    def convex(self) -> bool:
        """Whether the loss is convex in the logits: only then do certificates exist."""
        return True

    @abc.abstractmethod
    def value_and_gradient(self, logits: Columns, targets: Columns) -> tuple[PerSample, Columns]:
        """The loss of each sample, and its gradient with respect to that sample's logits."""

    @abc.abstractmethod
    def hessian_product(self, logits: Columns, targets: Columns, change: Columns) -> Columns:
        """The Hessian of each sample's loss, applied to a change of that sample's logits."""

    @abc.abstractmethod
    def conjugate(self, dual: Columns, targets: Columns) -> PerSample:
        """ℓ*(p) of each column p of ``dual``, which must lie in the conjugate's domain (see :meth:`share`)."""

    @abc.abstractmethod
    def share(self, dual: Columns, targets: Columns) -> float:
        """The largest s up to 1 for which all columns of s ``dual`` lie in the conjugate's domain."""

    @abc.abstractmethod
    def centre_rows(self, dual: Columns, weights: PerSample, labels: np.ndarray) -> Columns:
        """A dual near the given one whose weighted rows sum to zero, as a bias without decay requires."""

    def value(self, logits: Columns, targets: Columns) -> PerSample:
        """The loss of each sample."""
        return self.value_and_gradient(logits, targets)[0]

    def gradient(self, logits: Columns, targets: Columns) -> Columns:
        """The gradient of each sample's loss with respect to its logits."""
        return self.value_and_gradient(logits, targets)[1]

    def hessians(self, logits: Columns, targets: Columns) -> Float[np.ndarray, "K K M"]:
        """The Hessian of each sample's loss as a matrix."""
        units = np.eye(len(logits))
        ones = np.ones(logits.shape[1])
        return np.stack([self.hessian_product(logits, targets, np.outer(unit, ones)) for unit in units])

    def __str__(self) -> str:
        return self.name


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


def _entropy(base: Columns, change: Columns) -> Columns:
    """-(base + change) log(base + change), to relative precision where the base is one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near_one = -(1 + change) * np.log1p(np.maximum(change, -1))
    near_one[change <= -1] = 0
    return np.where(base == 1, near_one, entr(np.maximum(base + change, 0)))


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
        return -_entropy(self.smoothed(targets), dual).sum(0)

    def share(self, dual: Columns, targets: Columns) -> float:
        """Up to where an entry of y + s p becomes negative."""
        return _share_above(dual, self.smoothed(targets))

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
        return -(_entropy(targets, dual) + _entropy(1 - targets, -dual)).sum(0)

    def share(self, dual: Columns, targets: Columns) -> float:
        """Up to where an entry of y + s p leaves [0, 1]."""
        return min(_share_above(dual, targets), _share_above(-dual, 1 - targets))

    def centre_rows(self, dual: Columns, weights: PerSample, labels: np.ndarray) -> Columns:
        """Shrink the entries of the heavier sign in each row."""
        up, down = np.maximum(dual, 0) @ weights, np.maximum(-dual, 0) @ weights
        lesser = np.minimum(up, down)
        shrink_up = np.divide(lesser, up, out=np.zeros_like(up), where=up > 0)
        shrink_down = np.divide(lesser, down, out=np.zeros_like(down), where=down > 0)
        return np.where(dual > 0, shrink_up[:, None], shrink_down[:, None]) * dual


def _share_above(dual: Columns, room: Columns) -> float:
    """The largest s up to 1 with room + s dual >= 0 everywhere."""
    over = dual < -room
    return float((room[over] / -dual[over]).min()) if over.any() else 1.0


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (CrossEntropy, LabelSmoothing, Focal, MeanSquaredError, BinaryCrossEntropy)
}
"""Losses by name."""


def resolve_loss(loss: str | Loss) -> Loss:
    """A loss from its name, with its parameter behind a colon where it has one.

    Raises:
        ValueError: if the name is unknown or the parameter is none of this loss.

    >>> resolve_loss("label_smoothing:0.2"), resolve_loss("mse")
    (LabelSmoothing(alpha=0.2), MeanSquaredError())
    """
    if isinstance(loss, Loss):
        return loss
    choices = f"choose {', '.join(LOSSES)} (label_smoothing:0.1 and focal:3 set their parameter)"
    if not isinstance(loss, str):
        raise ValueError(f"loss={loss!r} is no loss: {choices}")
    name, colon, parameter = loss.partition(":")
    if name not in LOSSES:
        raise ValueError(f"loss={loss!r} is unknown: {choices}")
    if not colon:
        return LOSSES[name]()
    if name not in ("label_smoothing", "focal"):
        raise ValueError(f"loss={loss!r}: {name} has no parameter")
    try:
        number = float(parameter)
    except ValueError as error:
        raise ValueError(f"loss={loss!r}: {parameter!r} is not a number") from error
    return LabelSmoothing(number) if name == "label_smoothing" else Focal(number)
