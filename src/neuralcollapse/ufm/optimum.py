"""The global minimiser in closed form, where there is one.

Zhu et al. 2021 (Theorem 3.1) for cross-entropy, Zhou et al. 2022 for label smoothing, focal loss and mean squared
error, Dang et al. 2024 for features behind a ReLU.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from neuralcollapse.geometry import simplex_etf
from neuralcollapse.ufm.balance import balance_ratio, factors
from neuralcollapse.ufm.binary import binary_logits
from neuralcollapse.ufm.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError
from neuralcollapse.ufm.margin import margin
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point, Solution, Stop
from neuralcollapse.ufm.squared import squared_optimum


def global_optimum(problem: UFM) -> Solution:
    """The global minimiser, up to a rotation of feature space.

    =========================  ============================================================================
    loss                       closed form for
    =========================  ============================================================================
    cross-entropy, label       equal classes, d >= K-1: a simplex ETF. Nonnegative features: d >= K, and unequal
    smoothing, focal           classes too without a bias: an orthogonal frame.
    mean squared error         any d. Without a bias or with a free one (``lambda_b=0``) any classes; with a decayed one
                               equal classes. Nonnegative features: without a bias.
    binary cross-entropy       equal classes, d >= K (d >= K-1 where the optimum's rank allows).
    =========================  ============================================================================

    Raises:
        ValueError: if there is no closed form: ``solve()`` is for the rest.

    >>> solution = global_optimum(UFM(3, 5, 3, lambda_w=1e-2, lambda_h=1e-2, loss="mse"))
    >>> solution.certificate.gap < 1e-9
    True
    """
    match problem.loss:
        case MeanSquaredError():
            point = squared_optimum(problem)
        case BinaryCrossEntropy():
            point = _binary(problem)
        case CrossEntropy() as loss:
            point = _orthogonal_frame(problem, loss) if problem.nonnegative else _simplex(problem, loss)
        case other:
            raise ValueError(f"loss={other} has no closed form: use solve()")
    value = problem.by_class.objective(point)
    return Solution(problem, point, value, method="closed form", stop=Stop.CLOSED_FORM)


def _simplex(problem: UFM, loss: CrossEntropy) -> Point:
    """Theorem 3.1: logits t S with S = I - 11'/K, W a multiple of a simplex ETF, features aligned with it."""
    k, d = problem.num_classes, problem.feature_dim
    need_equal_classes(problem)
    _need_dimension(problem, k - 1)
    root = math.sqrt(int(problem.class_counts[0]))
    t = margin(loss, k, problem.tau * root)
    etf = math.sqrt(t * (k - 1) / k) * simplex_etf(k, d, dtype=torch.float64).numpy()
    ratio = balance_ratio(problem) * math.sqrt(root)
    return Point(ratio * etf, etf.T / ratio, np.zeros(k))


def _orthogonal_frame(problem: UFM, loss: CrossEntropy) -> Point:
    """Dang et al. 2024: logits S diag(t), each class with a feature axis of its own.

    The same features less their mean are a simplex ETF: it has been shifted into the nonnegative orthant, along a
    direction that W does not see. So with equal classes the bias is zero, whether there is one or not.
    """
    k, d = problem.num_classes, problem.feature_dim
    if problem.bias:
        need_equal_classes(problem)
    _need_dimension(problem, k)
    counts = problem.class_counts.astype(float)
    costs = problem.total * problem.tau / np.sqrt(k * (k - 1) * counts)
    margins = np.array([margin(loss, k, float(cost)) for cost in costs])
    # λW ||S e_k||² t²/a² = λH n a² balances the two decays.
    ratio = balance_ratio(problem)
    size = np.sqrt(margins) * ((k - 1) / k / counts) ** 0.25
    frame = np.eye(k) - 1 / k
    towards = np.divide(margins, size, out=np.zeros(k), where=size > 0)
    wide = np.zeros((k, d - k))
    return Point(np.hstack([ratio * frame * towards, wide]), np.vstack([np.diag(size) / ratio, wide.T]), np.zeros(k))


def _binary(problem: UFM) -> Point:
    """Logits α I + β 11' and an equal bias for all classes, from scalar equations."""
    k = problem.num_classes
    need_equal_classes(problem)
    if problem.nonnegative:
        raise ValueError(f"loss={problem.loss} has no closed form with nonnegative features: use solve()")
    root = math.sqrt(int(problem.class_counts[0]))
    found = binary_logits(k, problem.tau * root, problem.lambda_b if problem.bias else None)
    _need_dimension(problem, k if found.common else k - 1 if found.own else 1)
    logits = found.own * (np.eye(k) - 1 / k) + found.common / k
    return Point(*factors(problem, logits * root), np.full(k, found.bias))


def need_equal_classes(problem: UFM) -> None:
    """Refuse classes of unequal size.

    Raises:
        ValueError: if there are any.
    """
    if not problem.balanced:
        raise ValueError("the closed form needs equal classes: use solve() for unequal ones")


def _need_dimension(problem: UFM, least: int) -> None:
    if problem.feature_dim < least:
        raise ValueError(
            f"feature_dim={problem.feature_dim} is too small for the closed form of {problem.num_classes} classes: "
            f"it needs at least {least}"
        )
