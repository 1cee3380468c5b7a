"""Multi-label neural collapse: one point per set of labels, and sets that are the sum of their tags.

Li, Wang, Li and Qu, "Neural collapse in multi-label learning with pick-all-label loss", ICML 2024, arXiv 2310.15903.
The multiplicity of a sample is the number of its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from neuralcollapse.geometry.angles import angles_between
from neuralcollapse.geometry.collapse import measure_features
from neuralcollapse.geometry.metrics import CollapseMetrics
from neuralcollapse.geometry.tables import text_table
from neuralcollapse.geometry.ways_out import to_matrix


@dataclass(frozen=True)
class LabelSetMeans:
    """Mean features of the samples that carry exactly the same labels."""

    sets: Shaped[Tensor, "S K"]
    """One row per set of labels met, multi-hot, as booleans."""
    means: Float[Tensor, "S d"]
    counts: Shaped[Tensor, " S"]


@dataclass(frozen=True)
class MultilabelMetrics:
    """Measures of multi-label collapse; zero at collapse unless said otherwise."""

    nc1: float | None
    """NC1 of the samples with one label."""
    nc2: float | None
    """NC2 of the classifier; None without one."""
    nc2_means: float
    """NC2 of the means of the samples with one label."""
    nc3: float | None
    """NC3 between the classifier and those means; None without one."""
    tag_angle: float | None
    """Tag-wise average: mean angle, in degrees from [0, 180], between a set's mean and the sum of its tags' means, 0 at
    collapse. None where no sample has several labels."""
    angles: dict[int, float]
    """That angle for each multiplicity from 2, averaged over the sets met."""
    scales: dict[int, float]
    """Length of a set's mean over that of the sum of its tags' means, averaged: a_m/a_1 in the paper's theorem."""

    def to_dict(self) -> dict[str, float | None]:
        """The measures that are one number, by name, in the order of definition."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, dict)}

    def __str__(self) -> str:
        return text_table(self.to_dict())


@torch.no_grad()
def label_set_means(features: Float[Tensor, "N d"], labels: Shaped[Tensor, "N K"]) -> LabelSetMeans:
    """Mean feature of each set of labels, in float64.

    Args:
        features: N x d.
        labels: N x K, zeros and ones (any dtype): sample i carries label k.

    Raises:
        ValueError: if shapes disagree, a label is neither 0 nor 1, a sample has none, or a feature is not finite.

    >>> found = label_set_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[1, 0], [1, 0], [1, 1]]))
    >>> found.means.flatten().tolist(), found.counts.tolist()
    ([2.0, 5.0], [2, 1])
    """
    sets, which, counts = torch.unique(_check(features, labels), dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(sets), features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, which, features.detach().double())
    return LabelSetMeans(sets, sums / counts[:, None], counts)


@torch.no_grad()
def merge_label_sets(parts: Sequence[LabelSetMeans]) -> LabelSetMeans:
    """Mean features of each set of labels over several batches, from those of each batch.

    Cost: a sort of the sets, and one weighted sum of their means.

    Args:
        parts: at least one, all of the same K and d.

    >>> once = label_set_means(torch.tensor([[1.0]]), torch.tensor([[1, 0]]))
    >>> twice = label_set_means(torch.tensor([[2.0], [6.0]]), torch.tensor([[1, 0], [0, 1]]))
    >>> merge_label_sets([once, twice]).means.flatten().tolist()
    [6.0, 1.5]
    """
    rows = torch.cat([part.sets for part in parts])
    sets, which = torch.unique(rows, dim=0, return_inverse=True)
    counts = torch.cat([part.counts for part in parts])
    sums = torch.cat([part.means for part in parts]) * counts[:, None]
    total = counts.new_zeros(len(sets)).index_add_(0, which, counts)
    means = sums.new_zeros(len(sets), sums.shape[1]).index_add_(0, which, sums) / total[:, None]
    return LabelSetMeans(sets, means, total)


@torch.no_grad()
def multilabel_metrics(
    features: Float[Tensor, "N d"],
    labels: Shaped[Tensor, "N K"],
    weight: Float[Tensor, "K d"] | None = None,
    bias: Float[Tensor, " K"] | None = None,
    *,
    allow_missing: bool = False,
) -> MultilabelMetrics:
    r"""Measures of multi-label collapse.

    .. math:: \bar h_S \propto \sum_{k \in S} \bar h_{\{k\}}

    At collapse the samples of one label form a simplex ETF, as with single labels, and the mean of a set of labels is
    a positive multiple of the sum of its tags' means. Means are centred on the mean over tags. Cost: one pass over the
    features, and the measures of the samples with one label.

    Args:
        features: N x d, that enter the classifier.
        labels: N x K, zeros and ones; every class needs at least one sample that carries it alone.
        weight: classifier, K x d.
        bias: classifier bias, K.
        allow_missing: leave out the classes that no sample carries alone, and the sets that hold one, with a warning.

    Raises:
        ValueError: as :func:`label_set_means`; if no sample carries some class alone (unless allowed); if the
            classifier does not fit.

    Warns:
        CollapseWarning: as :func:`neuralcollapse.collapse_metrics`.

    Source: Li et al. 2024, Theorem 1 and Section 4.

    >>> from neuralcollapse import simplex_etf
    >>> labels = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]]).repeat(2, 1)
    >>> features = labels.float() @ simplex_etf(3, 4)
    >>> multilabel_metrics(features, labels).tag_angle < 0.1
    True
    """
    hot = _check(features, labels)
    groups = label_set_means(features, labels)
    single = hot.sum(1) == 1
    check_tags(hot[single].any(0), allow_missing)
    found = measure_features(
        features[single],
        hot[single].int().argmax(1),
        weight,
        bias,
        num_classes=hot.shape[1],
        allow_missing=allow_missing,
    )
    return with_tags(found, groups)


def check_tags(alone: Shaped[Tensor, " K"], allow_missing: bool = False) -> None:
    """Refuse data in which some class, or every class but one, is never carried alone.

    Args:
        alone: whether a sample carries the class alone.
        allow_missing: two such classes are enough.

    Raises:
        ValueError: naming the classes.
    """
    absent = (~alone).nonzero().flatten().tolist()
    if int(alone.sum()) < 2 or (absent and not allow_missing):
        named = ", ".join(map(str, absent[:20])) + (", ..." if len(absent) > 20 else "")
        way = "pass allow_missing=True to measure the others" if int(alone.sum()) > 1 else "at least two are needed"
        raise ValueError(
            f"no sample carries class {named} alone: multi-label collapse compares sets with the means of single "
            f"labels; {way}"
        )


def with_tags(found: CollapseMetrics, groups: LabelSetMeans | None) -> MultilabelMetrics:
    """The measures of the samples with one label, and what the sets of labels add where they are known."""
    angles, scales, counts = ({}, {}, {}) if groups is None else _tag_wise(groups)
    mean = None if not angles else sum(angles[m] * counts[m] for m in angles) / sum(counts.values())
    return MultilabelMetrics(found.nc1, found.nc2, found.nc2_means, found.nc3, mean, angles, scales)


def _tag_wise(groups: LabelSetMeans) -> tuple[dict[int, float], dict[int, float], dict[int, int]]:
    """Mean angle and ratio of lengths between set means and sums of tag means, and the sets, by multiplicity."""
    sizes = groups.sets.sum(1)
    one = sizes == 1
    tags = torch.zeros(groups.sets.shape[1], groups.means.shape[1], dtype=torch.float64, device=groups.means.device)
    tags[groups.sets[one].int().argmax(1)] = groups.means[one]
    alone = groups.sets[one].any(0)
    centre = tags[alone].mean(0)
    known = ~(groups.sets & ~alone).any(1)
    angles, scales, counts = {}, {}, {}
    for m in sorted(set(sizes[known].tolist()) - {1}):
        chosen = known & (sizes == m)
        means, sums = groups.means[chosen] - centre, groups.sets[chosen].double() @ (tags - centre)
        angles[m], counts[m] = float(angles_between(means, sums).mean()), int(chosen.sum())
        scales[m] = float((means.norm(dim=1) / sums.norm(dim=1)).mean())
    return angles, scales, counts


def _check(features: Tensor, labels: Tensor) -> Shaped[Tensor, "N K"]:
    """Labels as booleans on the features' device, or what is wrong."""
    if features.ndim != 2 or not features.numel():
        way = to_matrix(features)
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (N, d), both at least 1{way}")
    if labels.ndim != 2 or len(labels) != len(features):
        raise ValueError(f"labels have shape {tuple(labels.shape)}: expected ({len(features)}, K), zeros and ones")
    if not bool(features.isfinite().all()):
        raise ValueError("features hold NaN or infinity")
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("labels must be 0 or 1: column k says whether a sample carries label k")
    hot = labels.to(features.device).bool()
    if not bool(hot.any(1).all()):
        bare = int((~hot.any(1)).sum())
        raise ValueError(f"{bare} of {len(hot)} samples carry no label: leave them out")
    return hot
