"""Small problems that all tests of the unconstrained feature model run over, and its oracles."""

from __future__ import annotations

import numpy as np
import torch

from neuralcollapse.ufm import UFM, Point
from neuralcollapse.ufm.losses import Loss


def make(k: int, n: int | list[int], d: int, w: float = 5e-3, h: float = 1e-3, b: float = 0.0) -> UFM:
    return UFM(k, n, d, lambda_w=w, lambda_h=h, lambda_b=b)


CASES = {
    "d=K": make(4, 5, 4),
    "d=K-1": make(4, 5, 3),
    "d=2K": make(3, 4, 6, b=1e-2),
    "two classes": make(2, 7, 2, b=1.0),
    "unequal": make(4, [9, 1, 4, 2], 4),
    "unequal with bias decay": make(3, [10, 3, 1], 5, b=1e-2),
    "partly equal": make(4, [6, 6, 6, 2], 5, b=1e-2),
    "past the transition": make(3, 4, 3, w=0.5, h=0.3),
    "narrow": make(6, 3, 2),
    "one dimension": make(3, 2, 1, b=0.1),
}


def torch_loss(loss: Loss, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Losses of columns by torch's own functions."""
    log_p = torch.log_softmax(logits, 0)
    match loss.name:
        case "mse":
            return (logits - targets).square().sum(0) / 2
        case "binary_cross_entropy":
            entries = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            return entries.sum(0)
        case "focal":
            own = (targets * log_p).sum(0)
            return -((1 - own.exp()) ** loss.gamma) * own
        case "label_smoothing":
            return -(((1 - loss.alpha) * targets + loss.alpha / len(targets)) * log_p).sum(0)
        case _:
            return -(targets * log_p).sum(0)


def torch_objective(problem: UFM, vector: torch.Tensor) -> torch.Tensor:
    """Value of f by torch, over all samples."""
    k, d, n = problem.num_classes, problem.feature_dim, problem.total
    weight, features, bias = vector.split([k * d, d * n, k])
    labels = torch.repeat_interleave(torch.arange(k), torch.tensor(problem.class_counts))
    targets = torch.eye(k, dtype=vector.dtype)[:, labels]
    weight, features = weight.reshape(k, d), features.reshape(d, n)
    bias = bias if problem.bias else 0 * bias
    loss = torch_loss(problem.loss, weight @ features + bias[:, None], targets).sum() / n
    decay = problem.lambda_w * weight.square().sum() + problem.lambda_h * features.square().sum()
    return loss + (decay + problem.lambda_b * bias.square().sum()) / 2


def convex_optimum(problem: UFM, solver: str = "CLARABEL", **options: object) -> float:
    """Optimum of program (37) by cvxpy: nuclear norm of the logits in place of the factors."""
    import cvxpy as cp

    k, n = problem.num_classes, problem.total
    logits, bias = cp.Variable((k, n)), cp.Variable(k)
    outputs = logits + cp.reshape(bias, (k, 1), order="C") @ np.ones((1, n))
    one_hot = np.repeat(np.eye(k), problem.class_counts, axis=1)
    match problem.loss.name:
        case "mse":
            loss = cp.sum_squares(outputs - one_hot) / 2
        case "binary_cross_entropy":
            loss = cp.sum(cp.logistic(outputs)) - cp.sum(cp.multiply(one_hot, outputs))
        case _:
            alpha = getattr(problem.loss, "alpha", 0)
            targets = (1 - alpha) * one_hot + alpha / k
            loss = cp.sum(cp.log_sum_exp(outputs, axis=0)) - cp.sum(cp.multiply(targets, outputs))
    decay = problem.tau * cp.normNuc(logits) + problem.lambda_b / 2 * cp.sum_squares(bias)
    program = cp.Problem(cp.Minimize(loss / n + decay))
    if solver == "CLARABEL":  # its own 1e-8 is out of reach on some processors, which it then warns of
        options = {"tol_gap_abs": 1e-7, "tol_gap_rel": 1e-7, "tol_feas": 1e-7, **options}
    program.solve(solver=solver, **options)
    return float(program.value)


def near(point: Point, size: float, seed: int) -> Point:
    rng = np.random.default_rng(seed)
    return Point(*(part + size * rng.standard_normal(part.shape) for part in (point.W, point.H, point.b)))
