"""A lower bound of f from any point: the Fenchel dual of the convex program (37) of Zhu et al., for any convex loss.

For a dual G (one column per sample) with ||G||₂ <= τ, f >= -(1/N) Σ ℓ_i*(N g_i) - ||G 1||²/(2 λb) everywhere. The
gradient of the loss at a point, scaled until it is feasible, is such a dual; at a global minimum its bound is f itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from neuralcollapse.ufm.losses import MeanSquaredError
from neuralcollapse.ufm.norms import euclidean, spectral
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point

_ROUNDING = 64 * float(np.finfo(float).eps)
"""Relative error of the sums and entropies, generously."""
_KEPT = 1 << 24
"""Entries of logits up to which they are computed once for all biases."""


def lower_bound(problem: UFM, point: Point) -> float:
    """The bound, less a margin for rounding: f is nowhere smaller.

    Without bias decay G 1 = 0 is needed, so the bias is first put near its minimiser, and what is left of G 1 is taken
    out exactly. A small bias decay is treated that way too where it gives the better bound.

    Raises:
        ValueError: if the loss is not convex.
    """
    if not problem.loss.convex:
        raise ValueError(f"loss={problem.loss} is not convex in the logits: no certificate exists")
    if problem.bias and problem.lambda_b == 0:
        point = replace(point, b=best_bias(problem, point))
    duals = [_averaged_gradient(problem, point)]
    if isinstance(problem.loss, MeanSquaredError):
        duals.append(_stationary_dual(problem, point, duals[0]))
    by_class = problem.by_class
    bounds = [0.0]  # losses are never negative
    for dual in duals:
        if not problem.bias or problem.lambda_b > 0:
            bounds.append(_bound(by_class, dual))
        if problem.bias:
            centred = problem.loss.centre_rows(dual, by_class.weights, by_class.labels)
            bounds.append(_bound(by_class, centred, centred=True))
    return max(bounds)


def _averaged_gradient(problem: UFM, point: Point) -> Float[np.ndarray, "K K"]:
    """The loss's gradient averaged within classes, N G: a dual too, and by convexity never a worse one."""
    gradient = np.zeros((problem.num_classes, problem.num_classes))
    for part, residual in problem.residuals(point):
        np.add.at(gradient.T, problem.labels[part], (residual * problem.weights[part] * problem.total).T)
    return gradient / problem.class_counts


def _stationary_dual(problem: UFM, point: Point, dual: np.ndarray) -> Float[np.ndarray, "K K"]:
    """The dual of which G H' = -λW W at a critical point, and the given one across the features.

    The residual of the squared error is the difference of logits and targets: with small decays it is lost in their
    rounding. W and H still say what it is at a minimum.
    """
    roots = np.sqrt(problem.class_counts)
    features = problem.average(point).H * roots
    left, singular, right = np.linalg.svd(features, full_matrices=False)
    kept = singular > 1e-9 * max(float(singular[0]), 1e-300)
    left, singular, right = left[:, kept], singular[kept], right[kept]
    across = dual * roots - (dual * roots) @ right.T @ right
    return (across - problem.total * ((problem.lambda_w * point.W) @ left / singular) @ right) / roots


def margin(problem: UFM) -> float:
    """The share of the bound that is left out for rounding: no smaller gap can be told from zero."""
    return _ROUNDING * problem.num_classes


def _bound(model: UFM, dual: np.ndarray, *, centred: bool = False) -> float:
    """The bound from a dual that is scaled until it is feasible."""
    targets = np.eye(model.num_classes)
    norm = dual_norm(model, dual) / model.total
    share = min(1.0, model.loss.share(dual, targets))
    if share * norm > model.tau:
        share = model.tau / norm
    dual = (share * (1 - margin(model))) * dual
    terms = model.loss.conjugate(dual, targets) * model.weights / model.total
    size = float(np.abs(terms).sum())
    bound = -float(terms.sum())
    if model.bias and not centred:
        penalty = float(((dual @ model.weights / model.total / math.sqrt(model.lambda_b)) ** 2).sum()) / 2
        bound, size = bound - penalty, size + penalty
    return bound - _ROUNDING * size


def dual_norm(model: UFM, dual: np.ndarray) -> float:
    """The norm of N G that τ bounds, or a little more: the spectral norm over all samples.

    With nonnegative features only max ||G v|| over unit v >= 0 matters: at most the root of the largest eigenvalue of
    G'G without its negative entries.
    """
    scaled = dual * np.sqrt(model.weights)
    unit = float(np.abs(scaled).max()) or 1.0
    gram = (scaled / unit).T @ (scaled / unit)
    largest = float(np.linalg.eigvalsh(gram)[-1])
    if model.nonnegative:
        largest = min(largest, float(np.linalg.eigvalsh(np.maximum(gram, 0))[-1]))
    return unit * math.sqrt(max(largest, 0.0))


def best_bias(problem: UFM, point: Point) -> Float[np.ndarray, " K"]:
    """The bias that minimises f for fixed W and H and a convex loss, as far as L-BFGS takes it."""
    at_zero = replace(point, b=np.zeros_like(point.b))
    small = problem.num_classes * len(problem.labels) <= _KEPT
    kept = list(problem.blocks(at_zero)) if small else None

    def value_and_gradient(bias: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros(problem.num_classes)
        for part, logits, targets in kept or problem.blocks(at_zero):
            values, residual = problem.loss.value_and_gradient(logits + bias[:, None], targets)
            value += float(problem.weights[part] @ values)
            gradient += residual @ problem.weights[part]
        decay = problem.lambda_b * bias
        return value / problem.total + float(decay @ bias) / 2, gradient / problem.total + decay

    size = euclidean(value_and_gradient(point.b)[1])
    if size <= 1e-13 * min(1.0, problem.tau):
        return point.b

    def scaled(bias: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(bias)
        return value / size, gradient / size

    options = {"maxiter": 50, "gtol": 1e-14 * min(1.0, problem.tau / size), "ftol": 0, "maxcor": 20}
    found = minimize(scaled, point.b, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x)


def gram_blocks(problem: UFM, point: Point) -> Iterator[np.ndarray]:
    """Blocks of G, weighted so that their Gram matrices add up to that of G over all samples."""
    for part, residual in problem.residuals(point):
        yield residual * np.sqrt(problem.weights[part])


def top_residual(problem: UFM, point: Point) -> tuple[float, Float[np.ndarray, " K"]]:
    """||G||₂ over all samples, and the left singular vector, through the K x K Gram matrix."""
    return spectral(gram_blocks(problem, point))
