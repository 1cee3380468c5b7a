"""Decisions of the network against those of the nearest class centre."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import full_precision, times_power_of_two
from neuralcollapse.geometry.inputs import Rows, as_labels, as_real, check_batch
from neuralcollapse.geometry.moments import Moments
from neuralcollapse.geometry.statistics import ClassStatistics

_CHUNK_BYTES = 8 << 20


def ncc_mismatch(
    features: Float[Tensor, "N d"] | Rows,
    predictions: Int[Tensor, " N"] | Rows,
    moments: Moments | ClassStatistics,
) -> float:
    r"""Share of samples whose prediction is not the nearest class centre.

    .. math:: \tfrac1N \sum_i [\hat y_i \ne \arg\min_k \|h_i - \mu_k\|]

    In [0, 1]; 0 at collapse. Source: Papyan, Han and Donoho 2020, Figure 7 (their NC4). Cost: O(NKd).

    Args:
        features: N x d, the features behind the predictions.
        predictions: N class indices, the network's decisions.
        moments: hold the class means; a class without samples is never the nearest.

    Returns:
        A share in [0, 1]; NaN for no samples.

    Raises:
        ValueError: if shapes disagree, a prediction is out of range, or a feature is not finite.
        TypeError: if features are not floating point or predictions not integers.
    """
    moments = moments if isinstance(moments, Moments) else moments.moments()
    features, predictions = as_real(features, "features"), as_labels(predictions, "predictions")
    check_batch(features, predictions, moments.num_classes, moments.feature_dim)
    if not len(features):
        return math.nan
    home = moments.means.device
    exponent = math.frexp(moments.scale)[1] - 1
    with full_precision(home):
        centre = moments.means[moments.present].mean(0)
        means = moments.means - centre  # a common shift changes no distance, but keeps the digits
        absent = torch.where(moments.counts > 0, 0.0, math.inf).to(means)
        half_squares = means.square().sum(1) / 2 + absent
        wrong = 0
        rows = max(1, _CHUNK_BYTES // (8 * max(features.shape[1], moments.num_classes)))
        for x, y in zip(features.split(rows), predictions.split(rows), strict=True):
            exact = times_power_of_two(x.to(means), -exponent) - centre
            nearest = _nearest(exact, means, half_squares)
            wrong += int((nearest != y.to(nearest)).sum())
    return wrong / len(features)


def _nearest(features: Tensor, means: Tensor, half_squares: Tensor) -> Tensor:
    """Index of the nearest mean of each row; ``half_squares`` are half the means' squared norms, inf to leave one out.

    One matrix product decides most rows. Its rounding is as large as the means are, though, and two means may be much
    nearer to each other than that: the means within it are compared by their own differences from the row.
    """
    scores = half_squares - features @ means.T
    nearest = scores.argmin(1)
    longest = means.norm(dim=1).amax()
    rounding = torch.finfo(means.dtype).eps * (means.shape[1] + 4) * longest * (features.norm(dim=1) + longest)
    close = scores <= (scores.amin(1) + rounding)[:, None]
    doubtful = (close.sum(1) > 1).nonzero()[:, 0]
    if len(doubtful):
        distances = torch.cdist(features[doubtful], means, compute_mode="donot_use_mm_for_euclid_dist")
        nearest[doubtful] = distances.masked_fill_(~close[doubtful], math.inf).argmin(1)
    return nearest
