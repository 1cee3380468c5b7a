"""What a loss of the unconstrained feature model is, and what the convex ones share."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import entr

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


def entropy(base: Columns, change: Columns) -> Columns:
    """-(base + change) log(base + change), to relative precision where the base is one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near_one = -(1 + change) * np.log1p(np.maximum(change, -1))
    near_one[change <= -1] = 0
    return np.where(base == 1, near_one, entr(np.maximum(base + change, 0)))


def share_above(dual: Columns, room: Columns) -> float:
    """The largest s up to 1 with room + s dual >= 0 everywhere."""
    over = dual < -room
    return float((room[over] / -dual[over]).min()) if over.any() else 1.0
