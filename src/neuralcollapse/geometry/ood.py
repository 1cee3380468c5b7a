"""Out-of-distribution scores from the geometry of collapse: NECO and NCI. High means in distribution."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.arithmetic import in_unit, row_norms, times_power_of_two
from neuralcollapse.geometry.inputs import Rows, as_real, check_classifier
from neuralcollapse.geometry.statistics import ClassStatistics, total_covariance
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
        dimension: number of principal directions, below d: all d would score every feature 1. If not given, one less
            than the number of classes with samples, the dimension of collapsed features.
        standardize: standardise each coordinate first, as the authors' code does. A coordinate that does not vary is
            only centred.

    Raises:
        ValueError: if the statistics keep traces only, have seen no samples or features that do not vary, or the
            dimension is not between 1 and d - 1.
        TypeError: if the statistics are none, such as a report that has them.

    >>> statistics = ClassStatistics(2, 3)
    >>> statistics.update(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([0, 1]))
    >>> NECO(statistics).score(torch.tensor([[2.0, 0, 0], [0, 2.0, 0]])).tolist()
    [1.0, 0.0]
    """

    def __init__(self, statistics: ClassStatistics, dimension: int | None = None, *, standardize: bool = False) -> None:
        _check_statistics(statistics)
        if statistics.within != "full":
            raise ValueError("within='traces' keeps no covariance: gather with within='full'")
        _check_seen(statistics)
        chosen = _directions(statistics, dimension)
        total, unit = total_covariance(statistics)
        if not bool(total.any()):
            raise ValueError("the features that the statistics have seen do not vary: they have no principal direction")
        self.shift = torch.zeros_like(statistics.global_mean)
        self.scale = torch.ones_like(self.shift)
        if standardize:
            deviation = total.diagonal().clamp(min=0).sqrt()
            self.shift = statistics.global_mean
            self.scale = torch.where(deviation > 0, times_power_of_two(deviation, unit), 1.0)
            deviation = torch.where(deviation > 0, deviation, 1.0)
            total = total / deviation / deviation[:, None]
        self.directions: Float[Tensor, "d p"] = torch.linalg.eigh(total).eigenvectors[:, -chosen:].flip(1)

    @torch.no_grad()
    def score(
        self, features: Float[Tensor, "B d"] | Rows, logits: Float[Tensor, "B K"] | Rows | None = None
    ) -> Float[Tensor, " B"]:
        """Scores of features, high where they are in distribution; 0 for a zero feature.

        Args:
            features: B x d, that enter the classifier; a tensor, a NumPy array or lists.
            logits: the model's own.

        Raises:
            ValueError: if the features or logits have another shape.
            TypeError: if they are not floating point.
        """
        features, logits = _checked(features, logits, len(self.directions))
        # Halves, because the difference of two numbers may be no number.
        exact = (features.to(self.directions) / 2 - self.shift / 2) / self.scale
        share = (_units(exact) @ self.directions).norm(dim=1)
        return (share if logits is None else share * logits.to(share).amax(1)).to(_answered(features))


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
        ValueError: if shapes disagree, no sample was seen, the classifier is not finite, or alpha is negative.
        TypeError: if the classifier is not floating point.

    >>> statistics = ClassStatistics(2, 2)
    >>> statistics.update(torch.tensor([[1.0, 0], [-1.0, 0]]), torch.tensor([0, 1]))
    >>> NCI(statistics, torch.tensor([[1.0, 0], [-1.0, 0]])).score(torch.tensor([[-3.0, 0], [0, 2.0]])).tolist()
    [1.0, 0.0]
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        weight: Float[Tensor, "K d"] | Rows,
        bias: Float[Tensor, " K"] | Rows | None = None,
        *,
        alpha: float = 0.0,
    ) -> None:
        _check_statistics(statistics)
        kept = check_classifier(as_real(weight, "weight"), bias, statistics.num_classes, statistics.feature_dim)
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha={alpha} must be zero or positive, and finite")
        _check_seen(statistics)
        self.alpha = alpha
        self.mean = statistics.global_mean
        # Copies: the caller may go on training the classifier.
        self.weight, self.bias = (
            self.mean.new_zeros(statistics.num_classes) if part is None else part.to(self.mean, copy=True)
            for part in kept
        )

    @torch.no_grad()
    def score(
        self, features: Float[Tensor, "B d"] | Rows, logits: Float[Tensor, "B K"] | Rows | None = None
    ) -> Float[Tensor, " B"]:
        """Scores of features, high where they are in distribution.

        Args:
            features: B x d, that enter the classifier; a tensor, a NumPy array or lists.
            logits: the model's own, which decide the class; from the weight and bias if not given.

        Raises:
            ValueError: if the features or logits have another shape.
            TypeError: if they are not floating point.
        """
        features, logits = _checked(features, logits, self.weight.shape[1])
        exact = features.to(self.mean)
        chosen = (self._logits(exact) if logits is None else logits).argmax(1).to(self.mean.device)
        weight, unit = in_unit(self.weight)
        along = times_power_of_two((_units(exact / 2 - self.mean / 2) * weight[chosen]).sum(1), unit)
        return (along + self.alpha * exact.abs().sum(1) if self.alpha else along).to(_answered(features))

    def _logits(self, exact: Float[Tensor, "B d"]) -> Float[Tensor, "B K"]:
        """W h + b, each row in a unit of its own in which neither term overflows: enough to know the largest."""
        weight, first = in_unit(self.weight)
        bias, second = in_unit(self.bias)
        rows = torch.frexp(exact.abs().amax(1, keepdim=True))[1].to(exact)
        half = (rows / 2).floor()  # 2**-rows itself may be no number
        scaled = torch.ldexp(torch.ldexp(exact, -half), half - rows)
        products, offset = rows + first, second if bool(bias.any()) else -math.inf
        unit = products.clamp(min=offset)
        return torch.ldexp(scaled @ weight.T, products - unit) + torch.ldexp(bias, offset - unit)


def _directions(statistics: ClassStatistics, dimension: int | None) -> int:
    """How many principal directions NECO takes."""
    present, width = int((statistics.counts > 0).sum()), statistics.feature_dim
    chosen = present - 1 if dimension is None else dimension
    if isinstance(chosen, bool) or not hasattr(chosen, "__index__"):
        raise TypeError(f"dimension={dimension!r} is a {type(dimension).__name__}: give a whole number of directions")
    chosen = operator.index(chosen)
    if 1 <= chosen < width:
        return chosen
    if dimension is not None:
        reason = f": in all {width} dimensions of the features every score is 1" if chosen >= width else ""
        raise ValueError(f"dimension={dimension} must be between 1 and {width - 1}{reason}")
    if present < 2:
        raise ValueError("dimension=None takes one direction less than classes with samples, of which there is 1")
    raise ValueError(
        f"dimension=None takes {chosen} directions for {present} classes with samples, which fill all {width} "
        "dimensions of the features, so that every score would be 1: choose a smaller dimension"
    )


def _check_statistics(statistics: ClassStatistics) -> None:
    if not isinstance(statistics, ClassStatistics):
        way = "its .statistics" if hasattr(statistics, "statistics") else "ClassStatistics of the training features"
        raise TypeError(f"statistics is a {type(statistics).__name__}: pass {way}")


def _check_seen(statistics: ClassStatistics) -> None:
    if not statistics.total:
        raise ValueError("the statistics have seen no samples: update them with the training features first")


def _units(rows: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
    """Rows of length one, at any scale; zero where they are zero."""
    norms = row_norms(rows)
    return rows / torch.where(norms == 0, 1.0, norms)[:, None]


def _answered(features: Tensor) -> torch.dtype:
    """Of the scores: that of the features, and not less than float32: half precision does not hold an L1 norm."""
    return torch.promote_types(features.dtype, torch.float32)


def _checked(features: Any, logits: Any, feature_dim: int) -> tuple[Tensor, Tensor | None]:
    """Features and logits as dense tensors of the right shapes."""
    features = as_real(features, "features")
    logits = None if logits is None else as_real(logits, "logits")
    if features.ndim != 2 or features.shape[1] != feature_dim:
        raise ValueError(
            f"features have shape {tuple(features.shape)}: expected (B, {feature_dim}){to_matrix(features)}"
        )
    if logits is not None and (logits.ndim != 2 or len(logits) != len(features)):
        raise ValueError(f"logits have shape {tuple(logits.shape)}: expected ({len(features)}, K)")
    return features, logits
