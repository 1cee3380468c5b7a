"""Random inputs of the public measures: scales, dtypes, ranks, imbalance, missing classes, close means, offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float32, torch.float64, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Input:
    """What a user may pass; ``exact`` are features of the same NC1 and full rank, where these have low rank."""

    features: Tensor
    labels: Tensor
    weight: Tensor | None
    bias: Tensor | None
    num_classes: int
    coordinates: np.ndarray
    description: str

    @property
    def x(self) -> np.ndarray:
        """The features as they are, in float64."""
        return self.features.double().numpy()

    @property
    def y(self) -> np.ndarray:
        """The labels."""
        return self.labels.numpy().astype(np.int64)


def random_input(seed: int) -> Input:
    """The input of a seed."""
    rng = np.random.default_rng(seed)
    dtype = DTYPES[rng.integers(len(DTYPES))]
    num_classes, dim = int(rng.integers(2, 9)), int(rng.integers(1, 12))
    present = np.sort(rng.permutation(num_classes)[: max(2, num_classes - rng.binomial(3, 0.15))])
    largest = int(rng.choice([3, 12, 60]))
    sizes = np.full(len(present), largest) if rng.random() < 0.3 else rng.integers(2, largest + 1, len(present))
    labels = rng.permutation(np.repeat(present, sizes))
    low_rank = rng.random() < 0.2 and dim > 1
    means, noise = rng.standard_normal((num_classes, dim)), rng.standard_normal((len(labels), dim))
    spread = 10.0 ** rng.uniform(*{torch.float64: (-8, 1), torch.float32: (-4, 1)}.get(dtype, (-1, 0)))
    exponent = 0
    if low_rank:
        rank = int(rng.integers(1, min(dim - 1, len(present) - 1) + 1)) if len(present) > 1 else 1
        coordinates, features = _low_rank(rng, means[:, :rank], noise[:, :rank], labels, dim)
    else:
        if rng.random() < 0.15:
            means[present[1]] = means[present[0]] + 10.0 ** rng.uniform(-9, -1) * means[present[1]]
        offset = rng.choice([0, 0, 1, 300]) if dtype in (torch.float32, torch.float64) else 0
        features = means[labels] + spread * noise + offset
        exponent = _exponent(rng, dtype)
        features = coordinates = np.ldexp(features, exponent)
    narrow = torch.tensor(features).to(dtype)
    if not low_rank:
        coordinates = narrow.double().numpy()
    weight = bias = None
    if rng.random() < 0.7:
        weight = torch.tensor(rng.standard_normal((num_classes, dim)) * 10.0 ** rng.uniform(-3, 3)).to(dtype)
        bias = torch.tensor(rng.standard_normal(num_classes)).to(dtype) if rng.random() < 0.7 else None
    text = f"seed {seed}: {dtype} N={len(labels)} d={dim} K={num_classes} spread={spread:.0e} 2^{exponent}"
    text += " low rank" if low_rank else ""
    return Input(narrow, torch.tensor(labels), weight, bias, num_classes, coordinates, text)


def _exponent(rng: np.random.Generator, dtype: torch.dtype) -> int:
    """Power of two by which the features are scaled: mostly none."""
    if rng.random() < 0.6:
        return 0
    low, high = {torch.float64: (-1000, 1000), torch.float16: (-3, 3)}.get(dtype, (-115, 115))
    return int(rng.integers(low, high + 1))


def _low_rank(
    rng: np.random.Generator, means: np.ndarray, noise: np.ndarray, labels: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of few bits, and features that are small integer combinations of them: exact in every dtype."""
    rank = means.shape[1]
    coordinates = np.round((means[labels] * 2 + noise) * 4).clip(-20, 20) / 4
    mixing = np.zeros((rank, dim))
    mixing[:, :rank] = np.eye(rank)
    mixing[rng.integers(rank, size=dim - rank), np.arange(rank, dim)] = rng.choice([-1, 1], dim - rank)
    return coordinates, coordinates @ mixing
