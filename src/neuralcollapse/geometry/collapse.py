"""The published measures of neural collapse, as functions of moments and a classifier.

"Zhu et al." is arXiv 2105.02375, whose equations (7) to (10) define NC1 to NC4. "Papyan et al." is Papyan,
Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import exponent_of, full_precision, row_norms, times_power_of_two
from neuralcollapse.geometry.etf import frame_distance
from neuralcollapse.geometry.inputs import Rows, as_real, check_classifier
from neuralcollapse.geometry.metrics import CollapseMetrics, CollapseWarning
from neuralcollapse.geometry.moments import Moments
from neuralcollapse.geometry.pairs import cosine_distance, cosine_spread, pair_measures, product_norm
from neuralcollapse.geometry.statistics import ClassStatistics
from neuralcollapse.geometry.target import Target, geometry_distances

_RESOLVED = 0.01
"""Share of NC1 that rounding of the streamed scatter may reach before a warning says so."""

_EPS = torch.finfo(torch.float64).eps


def collapse_metrics(
    moments: Moments | ClassStatistics,
    weight: Float[Tensor, "K d"] | Rows | None = None,
    bias: Float[Tensor, " K"] | Rows | None = None,
    *,
    allow_missing: bool = False,
    target: Target | None = None,
) -> CollapseMetrics:
    """Measures of neural collapse from class moments and, where given, the last layer (W, b).

    With unequal classes Σ_W weighs samples and Σ_B weighs classes equally, as the paper does; ``nc1_balanced``
    weighs classes equally in both.

    Args:
        moments: of the features that enter the classifier, or the statistics that hold them.
        weight: classifier W, K x d.
        bias: classifier bias b, K; NC4 takes it as zero if a weight is given without it.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.
        target: what these class sizes should collapse to, such as ``ufm.target_geometry(...)``: adds
            ``geometry_weights``, ``geometry_means`` and ``geometry_duality``.

    Raises:
        ValueError: if a class has no samples (unless allowed), fewer than two classes have any,
            shapes disagree, or the classifier has non-finite entries.
        TypeError: if the moments or the classifier are of another kind.

    Warns:
        CollapseWarning: for a class of one sample (its within-class variance counts as zero), where the class means
            span fewer directions than they could, where means coincide (NC1 and its kin are then infinite, or
            NaN without variance), and where rounding of a stream of float32 features decides NC1.

    Source: Papyan et al. 2020; Zhu et al. 2021, equations (7) to (10).

    >>> statistics = ClassStatistics(num_classes=2, feature_dim=1)
    >>> statistics.update(torch.tensor([[1.0], [3.0], [-1.0], [-3.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(collapse_metrics(statistics).nc1, 6)    # within 1, between 4: 1/2 of 1/4
    0.125
    """
    if isinstance(moments, ClassStatistics):
        moments = moments.moments()
    elif not isinstance(moments, Moments):
        raise TypeError(f"moments is a {type(moments).__name__}: expected Moments or ClassStatistics")
    weight, bias = check_classifier(weight, bias, moments.num_classes, moments.feature_dim)
    with full_precision(moments.means.device):
        _check_present(moments.counts, allow_missing)
        found = _measured(moments, weight, bias)
        return found if target is None else dataclasses.replace(found, **geometry_distances(moments, weight, target))


def measure_features(
    features: Float[Tensor, "N d"] | Rows,
    labels: Int[Tensor, " N"] | Rows,
    weight: Float[Tensor, "K d"] | Rows | None = None,
    bias: Float[Tensor, " K"] | Rows | None = None,
    *,
    num_classes: int | None = None,
    allow_missing: bool = False,
    target: Target | None = None,
) -> CollapseMetrics:
    """Measures of neural collapse of features in memory: O(NdK) time, never a d x d matrix.

    Args:
        features: N x d, any float dtype; a tensor, a NumPy array or lists.
        labels: N integers in [0, K).
        weight: classifier W, K x d.
        bias: classifier bias, K.
        num_classes: K; by default the classifier's, or else the largest label plus one.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.
        target: what these class sizes should collapse to, such as ``ufm.target_geometry(...)``: adds
            ``geometry_weights``, ``geometry_means`` and ``geometry_duality``.

    Raises:
        ValueError: as :func:`collapse_metrics`, and for labels or features no measure is defined for.
        TypeError: if features are not floating point or labels not integers.

    Warns:
        CollapseWarning: as :func:`collapse_metrics`.

    >>> features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> round(measure_features(features, torch.tensor([0, 0, 1, 1])).nc1_quotient, 6)
    0.01
    """
    features = as_real(features, "features")
    if features.ndim == 2:
        weight, bias = check_classifier(weight, bias, num_classes, features.shape[1])
        num_classes = len(weight) if weight is not None else num_classes
    moments = Moments.from_features(features, labels, num_classes=num_classes)
    return collapse_metrics(moments, weight, bias, allow_missing=allow_missing, target=target)


def _check_present(counts: Int[Tensor, " K"], allow_missing: bool) -> None:
    empty = (counts == 0).nonzero().flatten()
    present = (counts > 0).nonzero().flatten()
    if not len(present):
        raise ValueError("no samples were seen: call update() with some first")
    if len(present) < 2:
        raise ValueError(f"only class {int(present[0])} has samples: collapse needs at least 2 classes")
    if len(empty):
        message = f"{len(empty)} of {len(counts)} classes have no samples: {_named(empty)}"
        if empty.tolist() == [0] and len(counts) > 2:
            message += " (where labels begin with 1, subtract 1)"
        if not allow_missing:
            raise ValueError(f"{message}. Pass allow_missing=True to measure the others")
        _warn(f"{message}; only the others are measured")
    single = (counts == 1).nonzero().flatten()
    if len(single):
        _warn(f"classes with one sample have no within-class variance to measure: {_named(single)}")


def _named(classes: Int[Tensor, " P"]) -> str:
    return ", ".join(map(str, classes[:20].tolist())) + (", ..." if len(classes) > 20 else "")


def _warn(message: str, depth: int = 0) -> None:
    warnings.warn(message, CollapseWarning, stacklevel=4 + depth)


def _measured(moments: Moments, weight: Tensor | None, bias: Tensor | None) -> CollapseMetrics:
    """All measures of the classes present; everything float64."""
    present = moments.present
    counts, traces = moments.counts[present], moments.within_traces[present]
    means = moments.means if len(present) == moments.num_classes else moments.means[present]
    tolerance = mean_errors(means, traces, counts)
    centred = _certain(moments.centred_means if moments.rank else torch.zeros_like(means), tolerance)
    pairs = pair_measures(means, centred, traces, tolerance)
    _warn_of_means(moments, pairs.coincident)
    between = float(centred.square().sum()) / len(centred)
    within = float(counts.double() @ traces) / moments.total
    head = _of_classifier(moments, centred, present, weight, bias)
    return CollapseMetrics(
        nc1=_nc1(moments, moments.within, within, warn=True),
        nc1_balanced=_nc1(moments, moments.within_balanced, within),
        nc2_means=frame_distance(centred, centred),
        cdnv=pairs.cdnv,
        nc1_quotient=_quotient(within, between),
        equinorm_means=variation(row_norms(centred)),
        equiangularity_means=cosine_spread(centred),
        max_equiangularity_means=pairs.cosine_distance,
        **head,
    )


def _warn_of_means(moments: Moments, coincident: int) -> None:
    """Say so where class means have fewer directions than they could, or are one point."""
    found = []
    if moments.rank < moments.possible_rank:
        found.append(
            f"the class means span only {moments.rank} of {moments.possible_rank} directions, to the precision of the "
            "features"
        )
    if coincident:
        found.append(f"{coincident} pairs of class means coincide, so cdnv is not finite")
    if found:
        _warn("; ".join(found), depth=1)


def _of_classifier(
    moments: Moments,
    centred: Float[Tensor, "P d"],
    present: Int[Tensor, " P"],
    weight: Tensor | None,
    bias: Tensor | None,
) -> dict[str, float | None]:
    """The measures that need the classifier; all None without it."""
    names = (
        "nc2", "nc3", "nc4", "nc4_relative", "equinorm_weights", "equiangularity_weights",
        "max_equiangularity_weights", "self_duality", "bias_spread",
    )  # fmt: skip
    if weight is None:
        return dict.fromkeys(names)
    weight = weight.to(centred) if len(present) == len(weight) else weight.to(centred)[present]
    unit = exponent_of(float(weight.abs().max()))
    weight = times_power_of_two(weight, -unit)
    unit += math.frexp(moments.scale)[1] - 1  # of the products W h
    offset, common, spread = weight @ moments.global_mean, unit, None
    if bias is not None:
        bias = bias.to(centred)[present]
        largest = float(bias.abs().max())
        common = max(unit, exponent_of(largest)) if largest else unit
        offset = times_power_of_two(offset, unit - common) + times_power_of_two(bias, -common)
        spread = float((bias / (largest or 1.0)).std(correction=0)) * largest
    shift = row_norms(offset[None])
    logits = times_power_of_two(shift.new_tensor(product_norm(weight, centred)), unit - common)
    return {
        "nc2": frame_distance(weight, weight),
        "nc3": frame_distance(weight, centred),
        "nc4": float(times_power_of_two(shift, common)),
        "nc4_relative": _quotient(float(shift), float(logits) / math.sqrt(len(centred))),
        "equinorm_weights": variation(row_norms(weight)),
        "equiangularity_weights": cosine_spread(weight),
        "max_equiangularity_weights": cosine_distance(weight),
        "self_duality": _self_duality(weight, centred),
        "bias_spread": spread,
    }


def mean_errors(
    means: Float[Tensor, "P d"], traces: Float[Tensor, " P"], counts: Int[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """Rounding of class means that were summed in float64: a sum of n terms errs by some sqrt(n) roundings."""
    return 4 * _EPS * (row_norms(means) + traces.sqrt()) * (1 + counts.sqrt() / 4)


def _certain(centred: Float[Tensor, "P d"], tolerance: Float[Tensor, " P"]) -> Float[Tensor, "P d"]:
    """Centred means with zero in place of those that are rounding only: they have no direction."""
    void = (centred != 0).any(1) & (row_norms(centred) <= tolerance + tolerance.mean())
    return centred * ~void[:, None] if bool(void.any()) else centred


def _self_duality(weight: Float[Tensor, "P d"], centred: Float[Tensor, "P d"]) -> float:
    """Squared distance of the two matrices scaled to norm one, some rows at a time."""
    norms = weight.norm(), centred.norm()
    return sum(
        float((w / norms[0] - c / norms[1]).square().sum())
        for w, c in zip(weight.split(4096), centred.split(4096), strict=True)
    )


def _nc1(moments: Moments, within: Tensor | None, trace: float, warn: bool = False) -> float | None:
    """tr(Σ_W Σ_B†)/K: Σ_B†/K has the squares of the inverse singular values. No direction left is no collapse."""
    if within is None:
        return None
    if not moments.rank:
        return math.inf if trace > 0 else math.nan
    weights = moments.singular_values.reciprocal().square()
    value, error = float(within.diagonal() @ weights), float(moments.within_error @ weights)
    if warn and error > _RESOLVED * value:
        _warn(
            f"NC1 is lost in rounding where it is below {error / _RESOLVED:.0e}: within-class variation is far "
            "larger across the class means than along them. measure_features, or features in float64, resolve it",
            depth=1,
        )
    return value


def _quotient(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.inf if numerator > 0 else math.nan


def variation(norms: Float[Tensor, " P"]) -> float:
    """Coefficient of variation of lengths, at any scale: equinorm_means and equinorm_weights."""
    scaled = norms / norms.max()
    return _quotient(float(scaled.std(correction=0)), float(scaled.mean()))
