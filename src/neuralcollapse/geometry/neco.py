"""An out-of-distribution score from the geometry of collapse (NECO, Ammar et al., ICLR 2024)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.statistics import ClassStatistics


class NECO:
    r"""Share of a feature's norm that lies in the subspace of the training features.

    :math:`\|P h\| / \|h\|`, with P the first principal directions of the training features; multiplied by
    the largest logit where logits are given, as the authors do. Collapsed training features span K - 1
    directions, and features of other data tend to be orthogonal to them (their NC5): high means in
    distribution. Source: Ammar, Belkhir, Popescu, Manzanera, Franchi, "NECO: NEural Collapse Based
    Out-of-distribution detection", ICLR 2024, arXiv 2310.06823.

    Args:
        statistics: of the training features, with ``within="full"``; for example ``measure(...).statistics``.
        dimension: number of principal directions; K - 1 if not given, the dimension of collapsed features.

    Raises:
        ValueError: if the statistics keep traces only, or the dimension is not between 1 and d.

    >>> statistics = ClassStatistics(2, 3)
    >>> statistics.update(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([0, 1]))
    >>> NECO(statistics).score(torch.tensor([[2.0, 0, 0], [0, 2.0, 0]])).tolist()
    [1.0, 0.0]
    """

    def __init__(self, statistics: ClassStatistics, dimension: int | None = None) -> None:
        chosen = dimension if dimension is not None else min(statistics.num_classes - 1, statistics.feature_dim)
        if not 1 <= chosen <= statistics.feature_dim:
            raise ValueError(f"dimension={chosen} must be between 1 and the feature dimension {statistics.feature_dim}")
        counts = statistics.counts.to(statistics.means)
        centred = (statistics.means - statistics.global_mean) * (counts / counts.sum()).sqrt()[:, None]
        total = statistics.within_covariance + centred.T @ centred
        self.directions: Float[Tensor, "d p"] = torch.linalg.eigh(total).eigenvectors[:, -chosen:].flip(1)

    def score(self, features: Float[Tensor, "B d"], logits: Float[Tensor, "B K"] | None = None) -> Float[Tensor, "B"]:
        """Scores of features, high where they are in distribution; 0 for a zero feature.

        Raises:
            ValueError: if the features or logits have another shape.
        """
        if features.ndim != 2 or features.shape[1] != len(self.directions):
            raise ValueError(f"features have shape {tuple(features.shape)}: they must be B x {len(self.directions)}")
        if logits is not None and (logits.ndim != 2 or len(logits) != len(features)):
            raise ValueError(f"logits have shape {tuple(logits.shape)}: they must be {len(features)} x K")
        exact = features.to(self.directions)
        norms = exact.norm(dim=1)
        share = (exact @ self.directions).norm(dim=1) / torch.where(norms > 0, norms, 1.0)
        return (share if logits is None else share * logits.max(1).values).to(features.dtype)
