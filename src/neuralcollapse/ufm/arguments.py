"""What the arguments of the unconstrained feature model must be."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from neuralcollapse.ufm.solution import Point

if TYPE_CHECKING:
    from neuralcollapse.ufm.problem import UFM

_LEAST_TAU = 1e-300
"""Least sqrt(λW λH): gradients near a minimum are as large, and float64 loses their digits below 2e-308."""


def whole(name: str, value: Any, *, least: int) -> int:
    """A whole number that is large enough, or what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}") from error
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name}={value} must be at least {least}")
    return number


def positive(name: str, value: float) -> float:
    """A weight decay without which there is no minimiser, or what is wrong with it."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value} must be positive and finite: without it there is no minimiser")
    return float(value)


def decays(lambda_w: float, lambda_h: float) -> tuple[float, float]:
    """Both decays, or what is wrong with them, alone or together."""
    found = positive("lambda_w", lambda_w), positive("lambda_h", lambda_h)
    if math.sqrt(found[0]) * math.sqrt(found[1]) < _LEAST_TAU:
        raise ValueError(
            f"lambda_w={lambda_w} and lambda_h={lambda_h} are too small together for float64: the root of their "
            f"product must be at least {_LEAST_TAU}"
        )
    return found


def counts(samples_per_class: int | Sequence[int], num_classes: int) -> Int[np.ndarray, " K"]:
    """Samples of each class, or what is wrong with them."""
    given = np.asarray(samples_per_class)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != num_classes):
        raise ValueError(f"samples_per_class has shape {given.shape}: give one number, or {num_classes}")
    if not np.issubdtype(given.dtype, np.integer) or (given < 1).any():
        raise ValueError(f"samples_per_class={samples_per_class} must be positive whole numbers")
    spread = np.broadcast_to(given, num_classes)
    if (total := sum(spread.tolist())) > 1 << 53:
        raise ValueError(f"samples_per_class adds up to {total} samples: at most 2^53 are counted exactly")
    return spread.astype(np.int64)


def class_sizes(class_counts: Sequence[int] | Int[np.ndarray, " K"]) -> list[int]:
    """The sizes as whole numbers, or what is wrong with them."""
    counts = np.asarray(class_counts)
    if (
        counts.ndim == 1
        and all(isinstance(size, int) for size in class_counts)
        and (total := sum(class_counts)) > 1 << 53
    ):
        raise ValueError(f"class_counts adds up to {total} samples: at most 2^53 are counted exactly")
    if counts.ndim != 1 or len(counts) < 2 or not np.issubdtype(counts.dtype, np.integer) or (counts < 1).any():
        raise ValueError(f"class_counts={class_counts} must be at least two positive whole numbers")
    return [int(count) for count in counts]


def as_point(point: Any, name: str = "point") -> Point:
    """The point, if it is one."""
    if not isinstance(point, Point):
        raise TypeError(
            f"{name} is a {type(point).__name__}: pass Point(W, H, b), with W (K, d), b (K,) and H (d, N), whose "
            "columns come class by class"
        )
    return point


def fitting(model: UFM, point: Point) -> Point:
    """The point, if the model allows it, or what is wrong with it."""
    as_point(point)
    k, d, m = model.num_classes, model.feature_dim, len(model.labels)
    for name, shape in (("W", (k, d)), ("H", (d, m)), ("b", (k,))):
        array = getattr(point, name)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}: this model needs {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has NaN or infinite entries")
    if model.nonnegative and (point.H < 0).any():
        raise ValueError(f"H has an entry of {point.H.min():g}: the features of this model are nonnegative")
    if not model.bias and point.b.any():
        raise ValueError("b is not zero: this model has no bias")
    return point
