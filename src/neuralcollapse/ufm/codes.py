"""Softmax codes: the directions that replace the simplex ETF when classes outnumber features.

Jiang et al., "Generalized neural collapse for a large number of classes", ICML 2024 (arXiv 2310.05351): unit vectors of
largest one-vs-rest margin, min_k dist(w_k, conv{w_j : j != k}).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linprog, minimize
from scipy.sparse import coo_array, csr_array, hstack
from scipy.special import gammaln, logsumexp

from neuralcollapse.geometry import simplex_etf
from neuralcollapse.geometry.margin import one_vs_rest_margin
from neuralcollapse.ufm.arguments import whole

_TEMPERATURES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4)
"""The smoothed margin errs by at most the temperature times log K(K-1)."""

_POLISHED = 150
"""K d up to which linear programs follow the smoothed optimum to a vertex."""


@dataclass(frozen=True)
class SoftmaxCode:
    """K unit vectors in d dimensions, and how good their margin is."""

    vectors: Float[np.ndarray, "K d"]
    margin: float
    """One-vs-rest margin of these vectors."""
    lower: float
    """What theory guarantees that the best vectors reach."""
    upper: float
    """What no vectors exceed."""
    exact: bool
    """Whether these vectors are known to be the best; otherwise the best of several searches."""

    def __str__(self) -> str:
        kind = "exact" if self.exact else "the best found"
        k, d = self.vectors.shape
        theory = f"theory: {self.lower:.4g} to {self.upper:.4g}"
        return f"softmax code of {k} classes in {d} dimensions: margin {self.margin:.9g} ({kind}; {theory})"


def softmax_code(num_classes: int, feature_dim: int, *, starts: int = 8, seed: int = 0) -> SoftmaxCode:
    """Unit vectors of largest one-vs-rest margin.

    Exact for d = 2 (the regular polygon), K <= d + 1 (the simplex ETF) and d + 1 < K <= 2d (a cross-polytope's).
    Otherwise optimised from several starts: a smoothed margin first, then linear programs around its optimum.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, at least 1; at least 2 for more than two classes.
        starts: random starts where the code must be searched for.
        seed: of these starts.

    Raises:
        ValueError: naming the argument, its value and the constraint.

    Source: Jiang et al. 2024, Theorems 3.3 and 3.4.

    >>> round(softmax_code(5, 2).margin, 9), round(softmax_code(4, 7).margin, 9), round(softmax_code(6, 3).margin, 9)
    (0.690983006, 1.333333333, 1.0)
    """
    for name, value, least in (("num_classes", num_classes, 2), ("feature_dim", feature_dim, 1), ("starts", starts, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    k, d = num_classes, feature_dim
    if d == 1 and k > 2:
        raise ValueError(f"feature_dim=1 holds two directions, and num_classes={k} need more: raise feature_dim to 2")
    known = _known(k, d)
    if known is not None:
        margin = float(one_vs_rest_margin(torch.tensor(known)))
        return SoftmaxCode(known, margin, margin, margin, True)
    rng = np.random.default_rng(whole("seed", seed, least=0))
    found = max((_search(k, d, rng) for _ in range(starts)), key=lambda pair: pair[0])
    lower, upper = margin_bounds(k, d)
    return SoftmaxCode(found[1], found[0], max(lower, found[0]), upper, False)


def margin_bounds(num_classes: int, feature_dim: int) -> tuple[float, float]:
    """Bounds of the largest one-vs-rest margin of K unit vectors in d >= 2 dimensions, for K > 2d.

    ½ [sqrt(π)/K Γ((d+1)/2)/Γ(d/2+1)]^{2/(d-1)} and the smaller of 1 and 2 [2 sqrt(π)/K Γ((d+1)/2)/Γ(d/2)]^{1/(d-1)}.
    Source: Jiang et al. 2024, Theorem 3.3; that the margin falls with K bounds it by its value 1 at K = 2d.

    >>> low, high = margin_bounds(20, 3)
    >>> round(low, 6), round(high, 6)
    (0.033333, 0.894427)
    """
    k, d = num_classes, feature_dim
    common = math.log(math.pi) / 2 - math.log(k) + float(gammaln((d + 1) / 2))
    lower = math.exp(2 / (d - 1) * (common - float(gammaln(d / 2 + 1)))) / 2
    upper = 2 * math.exp((common + math.log(2) - float(gammaln(d / 2))) / (d - 1))
    return lower, min(upper, 1.0)


def _known(k: int, d: int) -> Float[np.ndarray, "K d"] | None:
    """The best vectors where theory has them."""
    if k <= d + 1:
        return simplex_etf(k, d, dtype=torch.float64).numpy()
    if d == 2:
        angles = 2 * math.pi * np.arange(k) / k
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if k <= 2 * d:
        return np.concatenate([np.eye(d), -np.eye(d)])[:k]
    return None


def _search(k: int, d: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Margin and vectors of one local optimum."""
    weight = rng.standard_normal((k, d))
    pair = np.concatenate([weight, weight])  # each class with the normal of its hyperplane
    for temperature in _TEMPERATURES:
        pair = minimize(
            _smoothed, pair.ravel(), args=(k, temperature), jac=True, method="L-BFGS-B",
            options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
        ).x.reshape(2 * k, d)  # fmt: skip
        pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    if k * d <= _POLISHED:
        pair = _linear_programs(pair, k)
    return float(one_vs_rest_margin(torch.tensor(pair[:k]))), pair[:k]


def _smoothed(x: np.ndarray, k: int, temperature: float) -> tuple[float, np.ndarray]:
    """Negative soft minimum of <w_k - w_j, h_k> over pairs, and its gradient through the normalisation."""
    raw = x.reshape(2 * k, -1)
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    units = raw / norms
    weight, normal = units[:k], units[k:]
    scores = (normal @ weight.T - (normal * weight).sum(1)[:, None]) / temperature
    np.fill_diagonal(scores, -np.inf)
    value = float(logsumexp(scores))
    shares = np.exp(scores - value)
    rows = shares.sum(1, keepdims=True)
    slope = np.concatenate([shares.T @ normal - rows * normal, shares @ weight - rows * weight])
    slope = (slope - (slope * units).sum(1, keepdims=True) * units) / norms
    return temperature * value, slope.ravel()


def _linear_programs(pair: np.ndarray, k: int, rounds: int = 30) -> np.ndarray:
    """Trust-region linear programs that raise the least <w_k - w_j, h_k>, moving along the spheres."""
    d = pair.shape[1]
    radius, best = 0.05, _least(pair, k)
    first, second = (index[~np.eye(k, dtype=bool)] for index in np.indices((k, k)))
    tangents = np.stack([np.linalg.svd(row[None])[2][1:] for row in pair])  # (2k, d-1, d)
    for _ in range(rounds):
        weight, normal = pair[:k], pair[k:]
        heights = ((weight[first] - weight[second]) * normal[first]).sum(1)
        along = np.einsum("pd,ptd->pt", normal[first], tangents[first])
        back = -np.einsum("pd,ptd->pt", normal[first], tangents[second])
        turned = np.einsum("pd,ptd->pt", weight[first] - weight[second], tangents[k + first])
        blocks = [_placed(part, where, 2 * k) for part, where in ((along, first), (back, second), (turned, k + first))]
        slopes = blocks[0] + blocks[1] + blocks[2]
        constraints = hstack([-slopes, np.ones((len(first), 1))], format="csr")
        cost = np.zeros(2 * k * (d - 1) + 1)
        cost[-1] = -1
        bounds = [(-radius, radius)] * (len(cost) - 1) + [(None, None)]
        step = linprog(cost, A_ub=constraints, b_ub=heights, bounds=bounds, method="highs")
        if step.x is None:
            break
        moved = pair + np.einsum("kt,ktd->kd", step.x[:-1].reshape(2 * k, d - 1), tangents)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        reached = _least(moved, k)
        if reached > best:
            gained, best, pair = reached - best, reached, moved
            tangents = np.stack([np.linalg.svd(row[None])[2][1:] for row in pair])
            radius *= 1.5
            if gained < 1e-14:
                break
        else:
            radius /= 4
            if radius < 1e-9:
                break
    return pair


def _placed(values: np.ndarray, where: np.ndarray, blocks: int) -> csr_array:
    """A sparse matrix whose row p holds values[p] in block where[p]."""
    rows, width = values.shape
    columns = where[:, None] * width + np.arange(width)
    entries = (values.ravel(), (np.repeat(np.arange(rows), width), columns.ravel()))
    return coo_array(entries, shape=(rows, blocks * width)).tocsr()


def _least(pair: np.ndarray, k: int) -> float:
    weight, normal = pair[:k], pair[k:]
    heights = (weight * normal).sum(1)[:, None] - normal @ weight.T
    np.fill_diagonal(heights, np.inf)
    return float(heights.min())
