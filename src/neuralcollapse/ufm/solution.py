"""Points of the unconstrained feature model, and what a solver gives back."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from neuralcollapse.ufm.norms import euclidean

if TYPE_CHECKING:
    from neuralcollapse.ufm.certificate import Certificate
    from neuralcollapse.ufm.problem import UFM

TOLERANCE = 1e-6
"""Relative duality gap at which a point counts as globally optimal, where nothing else is said."""


@dataclass(frozen=True, init=False)
class Point:
    """A point of the model: classifier W (K, d), features H (d, M), bias b (K,). Columns class by class.

    Arrays, lists and torch tensors of any precision are taken; float64 arrays are held.

    Raises:
        ValueError: if a part is no array of real numbers, or has the wrong number of axes.

    >>> Point([[1, 0], [0, 1]], [[1, 0], [0, 1]], [0, 0]).norm()
    2.0
    """

    W: Float[np.ndarray, "K d"]
    H: Float[np.ndarray, "d M"]
    b: Float[np.ndarray, " K"]

    def __init__(self, W: Any, H: Any, b: Any) -> None:
        for name, value, axes in (("W", W, 2), ("H", H, 2), ("b", b, 1)):
            object.__setattr__(self, name, _float64(name, value, axes))

    def to_vector(self) -> Float[np.ndarray, " size"]:
        """W, H and b one after the other, in rows."""
        return np.concatenate([self.W.ravel(), self.H.ravel(), self.b])

    def __add__(self, other: Point) -> Point:
        return Point(self.W + other.W, self.H + other.H, self.b + other.b)

    def __rmul__(self, factor: float) -> Point:
        return Point(factor * self.W, factor * self.H, factor * self.b)

    def norm(self) -> float:
        """Euclidean norm over all entries."""
        return math.hypot(*(euclidean(part) for part in (self.W, self.H, self.b)))


def _float64(name: str, value: Any, axes: int) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, on any device, in any precision
        value = value.detach().cpu().double().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} has rows of different length: it must be an array of numbers") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {array.dtype}: it must hold real numbers")
    if array.ndim != axes:
        raise ValueError(f"{name} has shape {array.shape}: it must have {axes} {'axis' if axes == 1 else 'axes'}")
    return array.astype(np.float64, copy=False)


class Stop(enum.Enum):
    """Why a solver stopped."""

    CLOSED_FORM = "closed form"
    CERTIFIED = "the gap is within tol of the value"
    CRITICAL = "the gradient is zero to six digits; no certificate exists for this loss, which is not convex"
    ITERATIONS = "max_iterations reached: raise it, or start from this solution"
    STALLED = "no further decrease in float64, and nothing proves optimality within tol"


@dataclass(frozen=True)
class Step:
    """A line of a solver's history."""

    iteration: int
    value: float
    gap: float | None
    """value - lower bound; None where no certificate exists."""


@dataclass(frozen=True)
class Solution:
    """Where a solver ended, why, and how good that is for certain."""

    problem: UFM
    class_point: Point
    """The point; with one feature per class where that says it all."""
    value: float
    method: str
    stop: Stop
    history: list[Step] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    relaxed: Solution | None = None
    """For d too small to reach the convex bound: the solution of lowest rank that does reach it."""
    tol: float = TOLERANCE
    """Relative gap up to which the point counts as globally optimal: the solve's own."""

    @cached_property
    def point(self) -> Point:
        """The point with a feature for each sample, (d, N): expanded when asked for."""
        return self.class_point if self.model is self.problem else self.problem.expand(self.class_point)

    @cached_property
    def certificate(self) -> Certificate:
        """The proof, judged by the solve's own tol; with the bound of the relaxed solution where that is better."""
        from neuralcollapse.ufm.certificate import certify

        known = 0.0 if self.relaxed is None else self.relaxed.certificate.lower_bound or 0.0
        return certify(self.model, self.class_point, tol=self.tol, known_bound=known)

    @property
    def model(self) -> UFM:
        """The model in whose coordinates the point is held."""
        held_by_class = self.class_point.H.shape[1] == self.problem.num_classes != self.problem.total
        return self.problem.by_class if held_by_class else self.problem

    def __str__(self) -> str:
        number = self.history[-1].iteration if self.history else 0
        iterations = f", {number} iteration{'s' * (number != 1)}" if self.history else ""
        why = self.stop.value.replace("tol", f"tol={self.tol:g}")
        return f"{self.method}{iterations}, {self.seconds:.3g} s, {why}\n{self.certificate}"
