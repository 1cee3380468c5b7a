"""The global minimiser in closed form (Zhu et al., Theorem 3.1)."""

from __future__ import annotations

import math

import numpy as np
import torch

from neuralcollapse.geometry import simplex_etf
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point, Solution, Stop


def optimal_value(problem: UFM) -> tuple[float, float]:
    """(f*, ρ) with ρ = ||W||² at the global minimiser; (log K, 0) past the phase transition.

    With c = sqrt(λW/(λH n)): if K² n λW λH >= 1 the origin is the minimiser. Otherwise
    ρ = (K-1)/c log((c - (K-1) λW)/λW) and f* = log(1 + (K-1) exp(-c ρ/(K-1))) + λW ρ.

    Raises:
        ValueError: if the classes are of unequal size, or d < K - 1.
    """
    k, d = problem.num_classes, problem.feature_dim
    if not problem.balanced:
        raise ValueError("the closed form needs equal classes: use solve() for unequal ones")
    if d < k - 1:
        raise ValueError(f"feature_dim={d} is too small for the closed form of {k} classes: it needs at least {k - 1}")
    decay = problem.lambda_w
    c = math.sqrt(decay / (problem.lambda_h * int(problem.class_counts[0])))
    if c <= k * decay:
        return math.log(k), 0.0
    rho = (k - 1) / c * math.log1p((c - k * decay) / decay)
    return math.log1p((k - 1) * math.exp(-c * rho / (k - 1))) + decay * rho, rho


def global_optimum(problem: UFM) -> Solution:
    """Theorem 3.1: W = sqrt(ρ/K) times a simplex ETF, h = c w for each sample, b = 0.

    Raises:
        ValueError: if the classes are of unequal size, or d < K - 1.

    >>> solution = global_optimum(UFM(3, 5, 3, lambda_w=1e-2, lambda_h=1e-2))
    >>> round(solution.value, 12) == round(optimal_value(UFM(3, 5, 3, lambda_w=1e-2, lambda_h=1e-2))[0], 12)
    True
    """
    value, rho = optimal_value(problem)
    k, d = problem.num_classes, problem.feature_dim
    etf = simplex_etf(k, d, dtype=torch.float64).numpy()
    weight = math.sqrt(rho / k) * etf
    c = math.sqrt(problem.lambda_w / (problem.lambda_h * int(problem.class_counts[0])))
    point = Point(weight, c * weight.T, np.zeros(k))
    return Solution(problem, point, value, method="closed form", stop=Stop.CLOSED_FORM)
