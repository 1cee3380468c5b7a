"""The one scalar problem that cross-entropy, label smoothing and focal loss come down to for equal classes.

With logits t (e_y - 1/K) for a sample of class y, each loss is a function of t, and the decays cost in proportion to t.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from neuralcollapse.ufm.losses import CrossEntropy, Focal, LabelSmoothing

_SPAN = 800.0
"""Largest t: beyond it the slope of every loss underflows."""


def margin(loss: CrossEntropy, num_classes: int, cost: float) -> float:
    """The t >= 0 that minimises ℓ(t) + (K-1) cost t; zero where the origin is the minimiser.

    Args:
        loss: cross-entropy, label smoothing or focal.
        num_classes: K.
        cost: τ sqrt(n) for equal classes.

    >>> round(margin(CrossEntropy(), 2, 0.25), 9) == round(math.log(3), 9)
    True
    """
    k = num_classes
    if isinstance(loss, Focal):
        return _focal_margin(loss, k, cost)
    alpha = loss.alpha if isinstance(loss, LabelSmoothing) else 0.0
    excess, wrong = 1 - alpha - k * cost, alpha / k + cost  # of each wrong class at the optimum
    if excess <= 0:
        return 0.0
    return math.log1p(excess / wrong) if wrong > 1e-300 else -math.log(wrong)


def _focal_margin(loss: Focal, k: int, cost: float) -> float:
    """Focal loss need not be convex in t: every stationary point is found, and the lowest wins."""
    target = np.eye(k)[:, :1]
    frame = target - 1 / k

    def value_and_slope(t: float) -> tuple[float, float]:
        values, gradient = loss.value_and_gradient(t * frame, target)
        return float(values[0]) + (k - 1) * cost * t, float(gradient[:, 0] @ frame[:, 0]) + (k - 1) * cost

    grid = np.concatenate([np.linspace(0, 40, 801), np.linspace(40, _SPAN, 400)[1:]])
    slopes = [value_and_slope(float(t))[1] for t in grid]
    turns = [index for index in range(len(grid) - 1) if slopes[index] < 0 <= slopes[index + 1]]
    stationary = [
        brentq(lambda t: value_and_slope(t)[1], grid[index], grid[index + 1], xtol=1e-15, rtol=1e-15) for index in turns
    ]
    return float(min([0.0, *stationary], key=lambda t: value_and_slope(float(t))[0]))
