"""How W and H share their product at a minimum: λW W'W = λH H H'."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from neuralcollapse.ufm.problem import UFM


def balance_ratio(problem: UFM) -> float:
    """(λH/λW)^¼: dividing W and multiplying H by it makes both decays τ."""
    return math.sqrt(math.sqrt(problem.lambda_h) / math.sqrt(problem.lambda_w))


def factors(
    problem: UFM, logits: Float[np.ndarray, "K K"]
) -> tuple[Float[np.ndarray, "K d"], Float[np.ndarray, "d K"]]:
    """W and the features of the classes with the least decay, of the best approximation of rank d.

    Args:
        problem: the model.
        logits: W H by class, with column k multiplied by sqrt(n_k).
    """
    left, values, right = np.linalg.svd(logits)
    rank = min(problem.feature_dim, problem.num_classes)
    roots = np.zeros(problem.feature_dim)
    roots[:rank] = np.sqrt(values[:rank])
    ratio = balance_ratio(problem)
    weight, features = np.zeros((problem.num_classes, len(roots))), np.zeros((len(roots), problem.num_classes))
    weight[:, :rank], features[:rank] = left[:, :rank], right[:rank]
    return ratio * weight * roots, features * roots[:, None] / ratio / np.sqrt(problem.class_counts)
