"""Out-of-distribution scores from the geometry of collapse: NECO and NCI. High means in distribution."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.statistics import ClassStatistics
from neuralcollapse.geometry.ways_out import to_matrix


class NECO:
    r"""Share of a feature's norm that lies in the subspace of the training features.

    :math:`\|P h\| / \|h\|`, in [0, 1], with P the first principal directions of the training features; multiplied by
    the largest logit where logits are given, as the authors do. Collapsed training features span K - 1 directions, and
    features of other data tend to be orthogonal to them (their NC5): high means in distribution. Cost: O(d³) once, O(d)
    per direction and feature. Source: Ammar, Belkhir, Popescu, Manzanera, Franchi, "NECO: NEural Collapse Based
    Out-of-distribution detection", ICLR 2024, arXiv 2310.06823.

    The paper's formula projects the features as they are. The authors' code first standardises each coordinate to mean
    zero and variance one over the training features (``standardize=True``). That is another score: it ignores the
    global mean, and weighs coordinates of small variance as much as large ones. Neither is better throughout.

    Args:
        statistics: of the training features, with ``within="full"``; for example ``measure(...).statistics``.
        dimension: number of principal directions; K - 1 if not given, the dimension of collapsed features.
        standardize: standardise each coordinate first, as the authors' code does. A coordinate that does not vary is
            only centred.

    Raises:
        ValueError: if the statistics keep traces only, or the dimension is not between 1 and d.
        TypeError: if the statistics are none, such as a report that has them.

    >>> statistics = ClassStatistics(2, 3)
    >>> statistics.update(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([0, 1]))
    >>> NECO(statistics).score(torch.tensor([[2.0, 0, 0], [0, 2.0, 0]])).tolist()
    [1.0, 0.0]
    """

    def __init__(self, statistics: ClassStatistics, dimension: int | None = None, *, standardize: bool = False) -> None:
        _check_statistics(statistics)
        chosen = dimension if dimension is not None else min(statistics.num_classes - 1, statistics.feature_dim)
        if not 1 <= chosen <= statistics.feature_dim:
            raise ValueError(f"dimension={chosen} must be between 1 and the feature dimension {statistics.feature_dim}")
        counts = statistics.counts.to(statistics.means)
        centred = (statistics.means - statistics.global_mean) * (counts / counts.sum()).sqrt()[:, None]
        total = statistics.within_covariance + centred.T @ centred
        self.shift = torch.zeros_like(statistics.global_mean)
        self.scale = torch.ones_like(self.shift)
        if standardize:
            deviation = total.diagonal().clamp(min=0).sqrt()
            self.shift = statistics.global_mean.clone()
            self.scale = torch.where(deviation > 0, deviation, 1.0)
            total = total / self.scale / self.scale[:, None]
        self.directions: Float[Tensor, "d p"] = torch.linalg.eigh(total).eigenvectors[:, -chosen:].flip(1)

    @torch.no_grad()
    def score(self, features: Float[Tensor, "B d"], logits: Float[Tensor, "B K"] | None = None) -> Float[Tensor, " B"]:
        """Scores of features, high where they are in distribution; 0 for a zero feature.

        Raises:
            ValueError: if the features or logits have another shape.
        """
        _check_shapes(features, logits, len(self.directions))
        exact = (features.to(self.directions) - self.shift) / self.scale
        norms = exact.norm(dim=1)
        share = (exact @ self.directions).norm(dim=1) / torch.where(norms > 0, norms, 1.0)
        return (share if logits is None else share * logits.to(share).amax(1)).to(features.dtype)


class NCI:
    r"""How close a centred feature points to the weight of the class that it is assigned to.

    :math:`\langle w_c, h - h_G\rangle / \|h - h_G\| + \alpha \|h\|_1`, with c the predicted class and h_G the mean of
    the training features. At collapse, centred training features point along their weights (NC3), and lie far from the
    origin, where those of other data do not. Source: Liu and Qin, "Detecting out-of-distribution through the lens of
    neural collapse", CVPR 2025, arXiv 2311.01479, equations (6) and (7). Not bounded; cost O(Kd) per feature.

    Args:
        statistics: of the training features, ``within="full"`` or ``"traces"``.
        weight: classifier, K x d.
        bias: classifier bias, K; needed only for features that come without logits.
        alpha: weight of the L1 norm, zero or positive. The authors choose it per model, on held-out data; 0 leaves the
            norm out.

    Raises:
        ValueError: if shapes disagree, no sample was seen, the weight is not finite, or alpha is negative.

    >>> statistics = ClassStatistics(2, 2)
    >>> statistics.update(torch.tensor([[1.0, 0], [-1.0, 0]]), torch.tensor([0, 1]))
    >>> NCI(statistics, torch.tensor([[1.0, 0], [-1.0, 0]])).score(torch.tensor([[-3.0, 0], [0, 2.0]])).tolist()
    [1.0, 0.0]
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        weight: Float[Tensor, "K d"],
        bias: Float[Tensor, " K"] | None = None,
        *,
        alpha: float = 0.0,
    ) -> None:
        _check_statistics(statistics)
        expected = (statistics.num_classes, statistics.feature_dim)
        if tuple(weight.shape) != expected:
            raise ValueError(f"weight has shape {tuple(weight.shape)}: expected {expected}")
        if bias is not None and tuple(bias.shape) != expected[:1]:
            raise ValueError(f"bias has shape {tuple(bias.shape)}: expected {expected[:1]}")
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha={alpha} must be zero or positive, and finite")
        if not statistics.total:
            raise ValueError("the statistics have seen no samples: update them with the training features first")
        if not bool(weight.isfinite().all()):
            raise ValueError("weight has non-finite entries (NaN or infinity)")
        self.alpha = alpha
        self.mean = statistics.global_mean
        self.weight = weight.detach().to(self.mean)
        self.bias = torch.zeros_like(self.weight[:, 0]) if bias is None else bias.detach().to(self.mean)

    @torch.no_grad()
    def score(self, features: Float[Tensor, "B d"], logits: Float[Tensor, "B K"] | None = None) -> Float[Tensor, " B"]:
        """Scores of features, high where they are in distribution.

        Args:
            features: B x d, that enter the classifier.
            logits: the model's own, which decide the class; from the weight and bias if not given.

        Raises:
            ValueError: if the features or logits have another shape.
        """
        _check_shapes(features, logits, self.weight.shape[1])
        exact = features.to(self.mean)
        chosen = (exact @ self.weight.T + self.bias if logits is None else logits.to(self.mean)).argmax(1)
        centred = exact - self.mean
        norms = centred.norm(dim=1)
        along = (centred * self.weight[chosen]).sum(1) / torch.where(norms > 0, norms, 1.0)
        return (along + self.alpha * exact.abs().sum(1)).to(features.dtype)


def _check_statistics(statistics: ClassStatistics) -> None:
    if not isinstance(statistics, ClassStatistics):
        way = "its .statistics" if hasattr(statistics, "statistics") else "ClassStatistics of the training features"
        raise TypeError(f"statistics is a {type(statistics).__name__}: pass {way}")


def _check_shapes(features: Tensor, logits: Tensor | None, feature_dim: int) -> None:
    if features.ndim != 2 or features.shape[1] != feature_dim:
        raise ValueError(
            f"features have shape {tuple(features.shape)}: expected (B, {feature_dim}){to_matrix(features)}"
        )
    if logits is not None and (logits.ndim != 2 or len(logits) != len(features)):
        raise ValueError(f"logits have shape {tuple(logits.shape)}: expected ({len(features)}, K)")
