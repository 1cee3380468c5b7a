"""Mean squared error: the optimum thresholds the targets' singular values (Zhou et al. 2022; Dang et al. 2023).

Minimising ||Z - Y||²/(2N) + τ ||Z||_* keeps the singular vectors of Y and takes Nτ off each singular value.
"""

from __future__ import annotations

import math

import numpy as np

from neuralcollapse.ufm.balance import balance_ratio, factors
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point


def squared_optimum(problem: UFM) -> Point:
    """The minimiser in the coordinates of ``problem.by_class``; a small d keeps the d largest singular values.

    Raises:
        ValueError: for unequal classes with a decayed bias, or nonnegative features with a bias.
    """
    if not problem.bias:
        return _own_axes(problem)
    if problem.nonnegative:
        raise ValueError("loss=mse has no closed form with nonnegative features and a bias: use solve(), or bias=False")
    if problem.lambda_b == 0:
        return _free_bias(problem)
    if not problem.balanced:
        raise ValueError("the closed form needs equal classes where the bias is decayed: use solve() for unequal ones")
    return _decayed_bias(problem)


def _own_axes(problem: UFM) -> Point:
    """No bias: Y has orthogonal rows, so that each class keeps an axis, of size sqrt(n_k) - Nτ."""
    k, d = problem.num_classes, problem.feature_dim
    roots = np.sqrt(problem.class_counts)
    sizes = np.sqrt(np.maximum(roots - problem.total * problem.tau, 0))
    kept = np.argsort(-problem.class_counts, kind="stable")[:d]
    axes = np.zeros((k, d))
    axes[kept, np.arange(len(kept))] = sizes[kept]
    ratio = balance_ratio(problem)
    return Point(ratio * axes, axes.T / ratio / roots, np.zeros(k))


def _free_bias(problem: UFM) -> Point:
    """λb = 0: the bias takes the mean, and the centred targets are thresholded."""
    shares = problem.class_counts / problem.total
    centred = (np.eye(problem.num_classes) - shares[:, None]) * np.sqrt(problem.class_counts)
    left, values, right = np.linalg.svd(centred)
    values = np.maximum(values - problem.total * problem.tau, 0)
    return Point(*factors(problem, (left * values) @ right), shares)


def _decayed_bias(problem: UFM) -> Point:
    """λb > 0, equal classes: the direction 1 pays (1 + λb)/λb times as much, as the bias shares its work."""
    k = problem.num_classes
    root = math.sqrt(int(problem.class_counts[0]))
    cost = problem.total * problem.tau
    each = max(root - cost, 0.0)
    common = max(root - cost * (1 + problem.lambda_b) / problem.lambda_b, 0.0)
    weight, features = factors(problem, each * (np.eye(k) - 1 / k) + common / k)
    bias = (1 / k - (weight @ features).mean(1)) / (1 + problem.lambda_b)
    return Point(weight, features, bias)
