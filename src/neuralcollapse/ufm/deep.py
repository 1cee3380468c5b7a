r"""Deep linear heads: M linear layers over unconstrained features, squared error, no bias.

.. math:: f = \frac1{2N}\|W_M \cdots W_1 H - Y\|^2 + \frac12 \sum_l λ_l \|W_l\|^2 + \frac{λ_H}2 \|H\|^2

Dang, Tran, Osher, Tran-The, Ho and Nguyen, "Neural collapse in deep linear networks: from balanced to imbalanced
data", ICML 2023, arXiv 2301.00437. At a minimum all layers share their singular vectors and λ_l σ_l² is the same for
each layer and the features, so that the problem falls apart into one scalar problem per class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from neuralcollapse.ufm.arguments import class_sizes, positive, whole


@dataclass(frozen=True)
class DeepOptimum:
    """The global minimum of a deep linear model."""

    weights: tuple[np.ndarray, ...]
    """W_1 (d, d) first, W_M (K, d) last."""
    features: Float[np.ndarray, "d K"]
    """One feature per class, for each of its samples."""
    singular_values: Float[np.ndarray, " K"]
    """z_k, the singular value of W_M ... W_1 H that class k has; zero for a class that the decay erases."""
    value: float
    threshold: float
    """Class k is erased if sqrt(n_k) is below this."""
    jump: float
    """z just above the threshold: (M-1)/M of it. Zero only for M = 1, where the optimum is continuous."""

    @property
    def product(self) -> Float[np.ndarray, "K d"]:
        """W_M ... W_1."""
        product = self.weights[0]
        for weight in self.weights[1:]:
            product = weight @ product
        return product

    @property
    def erased(self) -> tuple[int, ...]:
        """Classes whose logits are all zero."""
        return tuple(int(k) for k in np.flatnonzero(self.singular_values == 0))

    def __str__(self) -> str:
        lost = f"erased: classes {', '.join(map(str, self.erased))}" if self.erased else "no class is erased"
        return (
            f"{len(self.weights)} linear layers: value {self.value:.9g}; {lost}\n"
            f"a class is erased up to {self.threshold**2:.6g} samples; above, z starts at {self.jump:.6g}"
        )


def deep_optimum(
    class_counts: Sequence[int] | Int[np.ndarray, " K"], feature_dim: int, *, lambdas: Sequence[float], lambda_h: float
) -> DeepOptimum:
    r"""The global minimiser of M linear layers over free features, in closed form up to one root per class.

    Per singular value, z minimises (z - sqrt(n_k))²/(2N) + (M+1)/2 Λ z^{2/(M+1)} with Λ = (λ_1 ... λ_M λ_H)^{1/(M+1)}.
    For M >= 2 the optimum jumps: with z_c = (N Λ (M-1))^{(M+1)/(2M)} the origin wins until sqrt(n_k) = z_c M/(M-1),
    where z jumps to z_c. For M = 1 it is the soft threshold, [sqrt(n_k) - N Λ]₊. At a tie the origin is given.

    Args:
        class_counts: samples of each class.
        feature_dim: d, width of the features and of each hidden layer. With d < K the d largest classes are kept.
        lambdas: weight decays of W_1 to W_M: M is their number.
        lambda_h: weight decay of the features.

    Raises:
        ValueError: naming the argument, its value and the constraint.

    >>> one = deep_optimum([9, 4, 1], 3, lambdas=[0.1], lambda_h=0.1)
    >>> one.singular_values.round(6).tolist(), one.erased
    ([1.6, 0.6, 0.0], (2,))
    >>> two = deep_optimum([9, 4, 1], 3, lambdas=[0.1, 0.1], lambda_h=0.1)
    >>> two.erased, round(two.jump / two.threshold, 6)
    ((1, 2), 0.5)
    """
    counts = np.array(class_sizes(class_counts))
    feature_dim = whole("feature_dim", feature_dim, least=1)
    _check(lambdas, lambda_h)
    layers, total, size = len(lambdas), int(counts.sum()), len(counts)
    decay = math.exp(sum(map(math.log, (*lambdas, lambda_h))) / (layers + 1))
    threshold, jump = jump_of(layers, total * decay)
    roots = np.sqrt(counts.astype(float))
    kept = np.argsort(-counts, kind="stable")[:feature_dim]
    values = np.zeros(size)
    for k in kept:
        values[k] = largest_root(roots[k], layers, total * decay) if roots[k] > threshold else 0.0
    lost = (values - roots) ** 2 / (2 * total)
    value = float(lost.sum() + (layers + 1) / 2 * decay * (values ** (2 / (layers + 1))).sum())

    # One axis of the hidden space per class that is kept; λ_l σ_l² = shared for all layers and the features.
    shared = np.sqrt(decay) * values[kept] ** (1 / (layers + 1))
    square = np.zeros((feature_dim, feature_dim))
    axes = np.arange(len(kept))
    weights = []
    for decay_of_layer in lambdas[:-1]:
        weight = square.copy()
        weight[axes, axes] = shared / math.sqrt(decay_of_layer)
        weights.append(weight)
    last, features = np.zeros((size, feature_dim)), np.zeros((feature_dim, size))
    last[kept, axes] = shared / math.sqrt(lambdas[-1])
    features[axes, kept] = shared / math.sqrt(lambda_h) / roots[kept]
    return DeepOptimum((*weights, last), features, values, value, threshold, jump)


def jump_of(layers: int, decay: float) -> tuple[float, float]:
    """The sqrt(n) up to which the origin wins, and z just above it, for N Λ = ``decay``."""
    if layers == 1:
        return decay, 0.0
    start = (decay * (layers - 1)) ** ((layers + 1) / (2 * layers))
    return start * layers / (layers - 1), start


def largest_root(target: float, layers: int, decay: float) -> float:
    """The local minimum of (z - s)²/2 + (M+1)/2 NΛ z^{2/(M+1)}, for a target s above the threshold."""
    if layers == 1:
        return target - decay
    power = (1 - layers) / (1 + layers)

    def slope(z: float) -> float:
        return z - target + decay * z**power

    return float(brentq(slope, jump_of(layers, decay)[1], target, xtol=1e-300, rtol=8.9e-16))


def _check(lambdas: Sequence[float], lambda_h: float) -> None:
    if not len(lambdas):
        raise ValueError("lambdas is empty: give one weight decay per linear layer")
    for index, value in enumerate(lambdas):
        positive(f"lambdas[{index}]", value)
    positive("lambda_h", lambda_h)
