"""Shared cases: features with a known structure, and the float64 oracle that shares no code with the package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Features drawn around class means, with a classifier."""

    name: str
    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor

    def __repr__(self) -> str:
        return self.name


def draw(
    name: str = "case",
    sizes: tuple[int, ...] = (30,) * 4,
    dim: int = 6,
    spread: float = 0.1,
    offset: float = 0.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """Means of scale 1, noise of scale ``spread``, everything shifted by ``offset``; shuffled."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = labels[rng.permutation(len(labels))]
    means = rng.standard_normal((len(sizes), dim))
    features = means[labels] + spread * rng.standard_normal((len(labels), dim)) + offset
    weight, bias = rng.standard_normal((len(sizes), dim)), rng.standard_normal(len(sizes))
    return Case(
        name,
        torch.tensor(features).to(dtype),
        torch.tensor(labels),
        torch.tensor(weight).to(dtype),
        torch.tensor(bias).to(dtype),
    )


def flattened(along: float, seed: int) -> Case:
    """Within-class deviations that are ``along`` times as large along the class means as across them."""
    case = draw(sizes=(300,) * 4, dim=24, spread=1.0, dtype=torch.float64, seed=seed)
    means = torch.stack([case.features[case.labels == label].mean(0) for label in range(4)])
    rows = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[:3]
    deviations = case.features - means[case.labels]
    deviations -= (1 - along) * (deviations @ rows.T @ rows)
    return Case("flattened", (means[case.labels] + deviations).float(), case.labels, case.weight.float(), case.bias)


CASES = [
    draw("balanced"),
    draw("unequal", sizes=(5, 40, 17, 2)),
    draw("two_classes", sizes=(20, 30), dim=3),
    draw("wide", sizes=(9,) * 3, dim=50),
    draw("narrow", sizes=(12,) * 8, dim=3),
    draw("one_dimension", sizes=(8, 9, 10), dim=1),
    draw("float64", dtype=torch.float64, spread=1e-6),
    draw("bfloat16", dtype=torch.bfloat16, spread=0.5),
    draw("float16", dtype=torch.float16, spread=0.3),
    draw("collapsed", spread=1e-5, sizes=(50,) * 5),
    draw("offset", spread=1e-2, offset=300.0),
]


def oracle(
    features: Tensor, labels: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> dict[str, float]:
    """Every measure straight from its definition, in float64 NumPy, with the d x d matrices and pinv."""
    x, y = features.double().numpy(), labels.numpy()
    classes = np.unique(y)
    k, n = len(classes), len(x)
    means = np.stack([x[y == c].mean(0) for c in classes])
    centred = means - means.mean(0)
    centred_x = np.concatenate([x[y == c] - means[i] for i, c in enumerate(classes)])
    within = centred_x.T @ centred_x / n
    between = centred.T @ centred / k
    rank = min(k - 1, x.shape[1])
    values, vectors = np.linalg.eigh(between)
    values, vectors = values[-rank:], vectors[:, -rank:]
    traces = np.array([((x[y == c] - means[i]) ** 2).sum(1).mean() for i, c in enumerate(classes)])
    ideal = (np.eye(k) - 1 / k) / np.sqrt(k - 1)

    def to_ideal(gram: np.ndarray) -> float:
        return float(np.linalg.norm(gram / np.linalg.norm(gram) - ideal))

    def angles(a: np.ndarray) -> np.ndarray:
        unit = a / np.linalg.norm(a, axis=1, keepdims=True)
        return (unit @ unit.T)[~np.eye(k, dtype=bool)]

    pairs = [
        (traces[i] + np.delete(traces, i)) / (2 * ((means[i] - np.delete(means, i, 0)) ** 2).sum(1)) for i in range(k)
    ]
    norms = np.linalg.norm(centred, axis=1)
    answer = {
        "nc1": float(np.trace(within @ (vectors / values) @ vectors.T)) / k,
        "nc2_means": to_ideal(centred @ centred.T),
        "cdnv": float(np.mean(pairs)),
        "nc1_quotient": float(np.trace(within) / np.trace(between)),
        "equinorm_means": float(norms.std() / norms.mean()),
        "equiangularity_means": float(angles(centred).std()),
        "max_equiangularity_means": float(np.abs(angles(centred) + 1 / (k - 1)).mean()),
    }
    if weight is not None and bias is not None:
        w, b = weight.double().numpy(), bias.double().numpy()
        w_norms = np.linalg.norm(w, axis=1)
        answer |= {
            "nc2": to_ideal(w @ w.T),
            "nc3": to_ideal(w @ centred.T),
            "nc4": float(np.linalg.norm(b + w @ x.mean(0))),
            "nc4_relative": float(np.linalg.norm(b + w @ x.mean(0)) / (np.linalg.norm(w @ centred.T) / np.sqrt(k))),
            "equinorm_weights": float(w_norms.std() / w_norms.mean()),
            "equiangularity_weights": float(angles(w).std()),
            "max_equiangularity_weights": float(np.abs(angles(w) + 1 / (k - 1)).mean()),
            "self_duality": float(((w / np.linalg.norm(w) - centred / np.linalg.norm(centred)) ** 2).sum()),
            "bias_spread": float(b.std()),
        }
    return answer
