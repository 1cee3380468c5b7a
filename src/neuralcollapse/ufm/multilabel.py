"""Multi-label neural collapse: pick-all-labels cross-entropy over unconstrained features.

Li, Wang, Li and Qu, "Neural collapse in multi-label learning with pick-all-label loss", ICML 2024 (arXiv 2310.15903). A
sample with the set S of labels has the loss Σ_{k in S} CE(W h + b, k).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit

from neuralcollapse.geometry import simplex_etf
from neuralcollapse.ufm.arguments import decays


@dataclass(frozen=True)
class MultilabelOptimum:
    """The global minimum; one feature per set of labels, in the order of ``sets``."""

    W: Float[np.ndarray, "K d"]
    H: Float[np.ndarray, "d S"]
    sets: Bool[np.ndarray, "S K"]
    """The sets of labels, multi-hot; by multiplicity, then in lexicographic order."""
    amplitudes: dict[int, float]
    """a_m of each multiplicity m: the logits of a set S are a_m (1_S - m/K)."""
    value: float

    @property
    def tag_scales(self) -> dict[int, float]:
        """a_m/a_1: h_S is so many times the sum of its tags' features. Empty where the single-label samples vanish."""
        one = self.amplitudes.get(1, 0.0)
        return {m: a / one for m, a in self.amplitudes.items() if m > 1} if one else {}

    def __str__(self) -> str:
        found = ", ".join(f"a_{m} = {a:.6g}" for m, a in self.amplitudes.items())
        return f"pick-all-labels optimum: value {self.value:.9g}, {found}"


def multilabel_optimum(
    num_classes: int,
    samples_per_set: Mapping[int, int],
    feature_dim: int,
    *,
    lambda_w: float,
    lambda_h: float,
) -> MultilabelOptimum:
    r"""The global minimiser for pick-all-labels cross-entropy, balanced within each multiplicity.

    Every set S of m labels has n_m samples; its logits are Z_S = a_m (1_S - m/K 1), with a minimising

    .. math:: \frac1N \sum_m n_m \tbinom{K}{m} m [\log(m e^{a_m} + K - m) - a_m]
              + \tau (K-1) \sqrt{\textstyle\sum_m n_m \tbinom{K-2}{m-1} a_m^2}

    a convex problem with one unknown per multiplicity. W is a simplex ETF, and h_S = (a_m/a_1) Σ_{k in S} h_k: the
    tag-wise average. The bias is zero at the optimum, whatever its decay.

    Args:
        num_classes: K, at least 2.
        samples_per_set: n_m, the samples of each set of m labels, for each multiplicity m from 1 to K - 1.
        feature_dim: d, at least K - 1.
        lambda_w: weight decay of the classifier.
        lambda_h: weight decay of the features.

    Raises:
        ValueError: naming the argument, its value and the constraint.

    Source: Li et al. 2024, Theorem 1; the convex problem in a: this package's documentation.

    >>> found = multilabel_optimum(4, {1: 10, 2: 3}, 4, lambda_w=1e-3, lambda_h=1e-3)
    >>> sum_of_tags = found.H[:, 0] + found.H[:, 1]                # the set {0, 1} is the fifth
    >>> bool(np.allclose(found.H[:, 4], found.tag_scales[2] * sum_of_tags))
    True
    """
    k = num_classes
    _check(k, samples_per_set, feature_dim, lambda_w, lambda_h)
    sizes = sorted(samples_per_set)
    counts = np.array([samples_per_set[m] for m in sizes], dtype=float)
    total = sum(samples_per_set[m] * math.comb(k, m) for m in sizes)
    tau = math.sqrt(lambda_w) * math.sqrt(lambda_h)
    spread = np.array([n * math.comb(k - 2, m - 1) for m, n in zip(sizes, counts, strict=True)])
    amplitudes, value = _amplitudes(k, np.array(sizes), counts, spread, total, tau)

    chosen = [subset for m in sizes for subset in itertools.combinations(range(k), m)]
    sets = np.array([[tag in subset for tag in range(k)] for subset in chosen])
    strength = math.sqrt(float(spread @ amplitudes**2))  # each of the K - 1 singular values of W H
    frame = math.sqrt((k - 1) / k) * simplex_etf(k, feature_dim, dtype=torch.float64).numpy()  # frame frame' = S
    balance = math.sqrt(math.sqrt(lambda_h) / math.sqrt(lambda_w))
    weight = balance * math.sqrt(strength) * frame
    per_set = amplitudes[[sizes.index(int(m)) for m in sets.sum(1)]]
    features = np.zeros((feature_dim, len(sets)))
    if strength:
        features = frame.T @ (sets.T * per_set) / (balance * math.sqrt(strength))
    return MultilabelOptimum(weight, features, sets, dict(zip(sizes, amplitudes.tolist(), strict=True)), value)


def _amplitudes(
    k: int, m: np.ndarray, counts: np.ndarray, spread: np.ndarray, total: int, tau: float
) -> tuple[np.ndarray, float]:
    """The convex problem in a. The norm's only kink is the origin: optimal iff the slope there is no steeper."""
    share = counts * np.array([math.comb(k, int(size)) for size in m]) * m / total
    root = np.sqrt(spread)

    def loss(a: np.ndarray) -> tuple[float, np.ndarray]:
        values = np.logaddexp(np.log(m) + a, np.log(k - m)) - a
        return float(share @ values), -share * expit(np.log((k - m) / m) - a)

    steepest = loss(np.zeros(len(m)))[1] / root
    if np.linalg.norm(steepest) <= tau * (k - 1):
        return np.zeros(len(m)), loss(np.zeros(len(m)))[0]

    def value_and_slope(a: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(a)
        norm = float(np.linalg.norm(root * a))
        return value + tau * (k - 1) * norm, slope + tau * (k - 1) * spread * a / norm

    a = minimize(value_and_slope, -steepest / root, jac=True, method="BFGS", options={"gtol": 1e-10}).x
    if not np.isfinite(a).all() or not a.any():  # nearer to the origin than float64 resolves
        return np.zeros(len(m)), loss(np.zeros(len(m)))[0]
    for _ in range(50):  # Newton: BFGS stops where its values no longer differ
        slope = value_and_slope(a)[1]
        p = expit(np.log((k - m) / m) - a)
        norm = float(np.linalg.norm(root * a))
        along = root * (root * a / norm)
        curved = np.diag(share * p * (1 - p)) + tau * (k - 1) / norm * (np.diag(spread) - np.outer(along, along))
        step = -np.linalg.solve(curved, slope)
        better = value_and_slope(a + step)
        if np.linalg.norm(better[1]) >= np.linalg.norm(slope):
            break
        a = a + step
    return a, value_and_slope(a)[0]


def _check(k: int, samples: Mapping[int, int], feature_dim: int, lambda_w: float, lambda_h: float) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 2:
        raise ValueError(f"num_classes={k!r} must be a whole number of at least 2")
    if not samples:
        raise ValueError("samples_per_set is empty: give the samples per set of labels for each multiplicity")
    for m, n in samples.items():
        if not (isinstance(m, int) and 1 <= m < k):
            raise ValueError(f"samples_per_set has multiplicity {m!r}: it must be a whole number from 1 to {k - 1}")
        if not (isinstance(n, int) and n >= 1):
            raise ValueError(f"samples_per_set[{m}]={n!r} must be a positive whole number")
    if isinstance(feature_dim, bool) or not isinstance(feature_dim, int) or feature_dim < k - 1:
        raise ValueError(f"feature_dim={feature_dim!r} must be at least K - 1 = {k - 1}, to hold a simplex ETF")
    decays(lambda_w, lambda_h)
