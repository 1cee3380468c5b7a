"""Binary cross-entropy for equal classes: scalar equations.

By symmetry the logits of a minimiser are α on the complement of 1, γ along 1, and one bias b for all classes. With u
the error of a sample's own class and v that of each other class, the derivatives along α, γ and b give
u + v = K τ sqrt(n), (K-1) v - u = -K τ sqrt(n) sign(γ), and (K-1) v - u = -K λb b.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.special import expit, logit


class BinaryLogits(NamedTuple):
    """Logits α (I - 11'/K) + γ 11'/K + b."""

    own: float
    """α"""
    common: float
    """γ"""
    bias: float
    """b"""


def binary_logits(num_classes: int, cost: float, lambda_b: float | None) -> BinaryLogits:
    """The minimiser for K classes.

    Args:
        num_classes: K.
        cost: τ sqrt(n).
        lambda_b: decay of the bias, zero for a free one; None for no bias.
    """
    k, total = num_classes, num_classes * cost
    found = _without_common(k, total, lambda_b)
    # γ stays zero while its own decay holds it there.
    if lambda_b == 0 or abs(_pull(k, found)) <= total * (1 + 1e-12):
        return found
    bias = 0.0 if lambda_b is None else -cost / lambda_b
    if total >= 1:  # α = 0: u = 1 - v
        level = float(logit((1 + total) / k))
        return BinaryLogits(0.0, k * (level - bias), bias)
    own, other = -float(logit(total * (k - 2) / k)), float(logit(2 * total / k))
    alpha = own - other
    return BinaryLogits(alpha, alpha + k * (other - bias), bias)


def _pull(k: int, found: BinaryLogits) -> float:
    """(K-1) v - u, the slope of K times the loss along γ."""
    own, other = found.own * (1 - 1 / k) + found.bias, -found.own / k + found.bias
    return float((k - 1) * expit(other) - expit(-own))


def _without_common(k: int, total: float, lambda_b: float | None) -> BinaryLogits:
    """The minimiser among those with γ = 0."""
    if total >= 1:  # α = 0
        if lambda_b is None:
            return BinaryLogits(0.0, 0.0, 0.0)
        level = -math.log(k - 1)
        if lambda_b > 0:
            level = _root(lambda b: k * expit(b) - 1 + k * lambda_b * b, level, 0.0)
        return BinaryLogits(0.0, 0.0, level)
    if lambda_b is None:
        high = 2 * k * (1 + abs(float(logit(total / 2))))
        alpha = _root(lambda a: total - expit(-a * (1 - 1 / k)) - expit(-a / k), 0.0, high)
        return BinaryLogits(alpha, 0.0, 0.0)
    if lambda_b == 0:
        own, other = -float(logit(total * (k - 1) / k)), float(logit(total / k))
        return BinaryLogits(own - other, 0.0, other + (own - other) / k)

    def at(share: float) -> BinaryLogits:
        own, other = -float(logit(total * (1 - share))), float(logit(total * share))
        return BinaryLogits(own - other, 0.0, other + (own - other) / k)

    # v between its values for a free bias and for none: 1/K and at most 1 of u + v.
    def imbalance(share: float) -> float:
        return total * (k * share - 1) + k * lambda_b * at(share).bias

    return at(_root(imbalance, 1 / k, 1 - 1e-16))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The root of a rising function between two numbers."""
    if function(low) >= 0:
        return low
    return float(brentq(function, low, high, xtol=1e-300, rtol=1e-15, maxiter=500))
