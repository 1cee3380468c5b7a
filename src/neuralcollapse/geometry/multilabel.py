"""Multi-label neural collapse: one point per set of labels, and sets that are the sum of their tags.

Li, Wang, Li and Qu, "Neural collapse in multi-label learning with pick-all-label loss", ICML 2024, arXiv 2310.15903.
The multiplicity of a sample is the number of its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from neuralcollapse.geometry.angles import angles_between
from neuralcollapse.geometry.arithmetic import in_unit, row_norms, times_power_of_two
from neuralcollapse.geometry.collapse import measure_features
from neuralcollapse.geometry.inputs import Rows, as_real, as_tensor
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
    resolution: float = torch.finfo(torch.float64).eps
    """Machine epsilon of the coarsest features seen."""


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
    collapse. The set of all labels is left out, because its tags' centred means sum to zero, and so is any other set
    whose mean or sum has no direction to its precision. None where nothing is left."""
    angles: dict[int, float]
    """That angle for each multiplicity from 2, averaged over the sets met; without the sets left out."""
    scales: dict[int, float]
    """Length of a set's mean over that of the sum of its tags' means, averaged: a_m/a_1 in the paper's theorem. Without
    the sets left out."""

    def to_dict(self) -> dict[str, float | None]:
        """The measures that are one number, by name, in the order of definition."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, dict)}

    def __str__(self) -> str:
        return text_table(self.to_dict())


@torch.no_grad()
def label_set_means(features: Float[Tensor, "N d"] | Rows, labels: Shaped[Tensor, "N K"] | Rows) -> LabelSetMeans:
    """Mean feature of each set of labels, in float64.

    Args:
        features: N x d; a tensor, a NumPy array or lists.
        labels: N x K, zeros and ones (any dtype): sample i carries label k.

    Raises:
        ValueError: if shapes disagree, a label is neither 0 nor 1, a sample has none, or a feature is not finite.
        TypeError: if features are not floating point, or labels no real numbers.

    >>> found = label_set_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[1, 0], [1, 0], [1, 1]]))
    >>> found.means.flatten().tolist(), found.counts.tolist()
    ([2.0, 5.0], [2, 1])
    """
    features, hot = _checked(features, labels)
    sets, which, counts = torch.unique(hot, dim=0, return_inverse=True, return_counts=True)
    scaled, unit = in_unit(features.double())
    means = scaled.new_zeros(len(sets), scaled.shape[1]).index_add_(0, which, scaled) / counts[:, None]
    return LabelSetMeans(sets, times_power_of_two(means, unit), counts, torch.finfo(features.dtype).eps)


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
    scaled, unit = in_unit(torch.cat([part.means for part in parts]))
    total = counts.new_zeros(len(sets)).index_add_(0, which, counts)
    sums = scaled.new_zeros(len(sets), scaled.shape[1]).index_add_(0, which, scaled * counts[:, None])
    means = times_power_of_two(sums / total[:, None], unit)
    return LabelSetMeans(sets, means, total, max(part.resolution for part in parts))


@torch.no_grad()
def multilabel_metrics(
    features: Float[Tensor, "N d"] | Rows,
    labels: Shaped[Tensor, "N K"] | Rows,
    weight: Float[Tensor, "K d"] | Rows | None = None,
    bias: Float[Tensor, " K"] | Rows | None = None,
    *,
    allow_missing: bool = False,
) -> MultilabelMetrics:
    r"""Measures of multi-label collapse.

    .. math:: \bar h_S \propto \sum_{k \in S} \bar h_{\{k\}}

    At collapse the samples of one label form a simplex ETF, as with single labels, and the mean of a set of labels is
    a positive multiple of the sum of its tags' means. Means are centred on the mean over tags. The sum over all labels
    is then zero and has no direction, so that the set of all labels is left out, as is any other such set. Cost: one
    pass over the features, and the measures of the samples with one label.

    Args:
        features: N x d, that enter the classifier; a tensor, a NumPy array or lists.
        labels: N x K, zeros and ones; every class needs at least one sample that carries it alone.
        weight: classifier, K x d.
        bias: classifier bias, K.
        allow_missing: leave out the classes that no sample carries alone, and the sets that hold one, with a warning.

    Raises:
        ValueError: as :func:`label_set_means`; if no sample carries some class alone (unless allowed); if the
            classifier does not fit.
        TypeError: as :func:`label_set_means`.

    Warns:
        CollapseWarning: as :func:`neuralcollapse.collapse_metrics`.

    Source: Li et al. 2024, Theorem 1 and Section 4.

    >>> from neuralcollapse import simplex_etf
    >>> labels = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]]).repeat(2, 1)
    >>> features = labels.float() @ simplex_etf(3, 4)
    >>> multilabel_metrics(features, labels).tag_angle < 0.1
    True
    """
    features, hot = _checked(features, labels)
    groups = label_set_means(features, hot)
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
    angles, scales, mean = ({}, {}, None) if groups is None else _tag_wise(groups)
    return MultilabelMetrics(found.nc1, found.nc2, found.nc2_means, found.nc3, mean, angles, scales)


def _tag_wise(groups: LabelSetMeans) -> tuple[dict[int, float], dict[int, float], float | None]:
    """Mean angle and ratio of lengths between set means and sums of tag means, by multiplicity; and the mean angle."""
    sizes = groups.sets.sum(1)
    one = sizes == 1
    alone = groups.sets[one].any(0)
    several = ~one & ~(groups.sets & ~alone).any(1) & (sizes < alone.sum())  # the centred tags sum to zero
    if not bool(several.any()):
        return {}, {}, None
    scaled, _ = in_unit(groups.means)
    errors = _errors(scaled, groups.counts, groups.resolution)
    tags = scaled.new_zeros(groups.sets.shape[1], scaled.shape[1])
    tags[groups.sets[one].int().argmax(1)] = scaled[one]
    centre, worst = tags[alone].mean(0), float(errors[one].max())
    means, sums = scaled[several] - centre, groups.sets[several].double() @ (tags - centre)
    lengths, reached = row_norms(means), row_norms(sums)
    directed = reached > worst * sizes[several]
    apart = directed & (lengths > errors[several] + worst)
    angles, ratios, sizes = angles_between(means[apart], sums[apart]), lengths / reached, sizes[several]
    return (
        {m: float(angles[sizes[apart] == m].mean()) for m in sorted(set(sizes[apart].tolist()))},
        {m: float(ratios[directed & (sizes == m)].mean()) for m in sorted(set(sizes[directed].tolist()))},
        float(angles.mean()) if len(angles) else None,
    )


def _errors(means: Float[Tensor, "S d"], counts: Shaped[Tensor, " S"], resolution: float) -> Float[Tensor, " S"]:
    """Rounding of set means: of the features, and of a sum of n terms in float64, some sqrt(n) roundings."""
    roots = counts.double().sqrt()
    return row_norms(means) * torch.maximum(resolution / roots, torch.finfo(torch.float64).eps * (4 + roots))


def _checked(features: Any, labels: Any) -> tuple[Float[Tensor, "N d"], Shaped[Tensor, "N K"]]:
    """Features as a dense tensor, and labels as booleans on their device; or what is wrong."""
    features, labels = as_real(features, "features"), as_tensor(labels, "labels")
    if labels.is_complex() or (labels.is_floating_point() and labels.element_size() == 1):
        raise TypeError(f"labels have dtype {labels.dtype}: expected zeros and ones, as booleans, integers or floats")
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
    return features, hot
