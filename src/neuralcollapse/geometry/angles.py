"""Angles between vectors, and by how much class means turn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.arithmetic import in_unit, row_norms, times_power_of_two
from neuralcollapse.geometry.moments import Moments


def angles_between(a: Float[Tensor, "S d"], b: Float[Tensor, "S d"]) -> Float[Tensor, " S"]:
    """Angles between rows in degrees, exact near 0 and 180 too (Kahan); NaN where a row is zero.

    >>> [round(angle) for angle in angles_between(torch.eye(2), torch.tensor([[1.0, 1.0], [0.0, -3.0]])).tolist()]
    [45, 180]
    """
    a, b = (vectors / row_norms(vectors)[:, None] for vectors in (a, b))
    return 2 * torch.rad2deg(torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)))


@torch.no_grad()
def class_mean_angles(before: Moments, after: Moments) -> Float[Tensor, " P"]:
    """Angle in degrees by which each class mean turns, seen from the mean of the class means before.

    In [0, 180]; 0 is the ideal, of features that an attack does not turn. Cost: O(Kd).

    Args:
        before: of the clean features, for example.
        after: of the same classes.

    Returns:
        One angle in [0, 180] for each class that has samples in both; NaN where a mean lies in the centre.

    Raises:
        ValueError: if classes or feature dimensions differ.

    Source: Su, Zhang, Tsilivis and Kempe 2024, arXiv 2311.07444, who measure how far attacks move features from the
    vertices of the simplex.

    >>> clean = Moments.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
    >>> turned = Moments.from_features(torch.tensor([[0.0, 2.0], [-3.0, 0.0]]), torch.tensor([0, 1]))
    >>> class_mean_angles(clean, turned).tolist()
    [90.0, 0.0]
    """
    if before.means.shape != after.means.shape:
        raise ValueError(
            f"before has class means of shape {tuple(before.means.shape)}, and after {tuple(after.means.shape)}: "
            "they must be of the same classes and features"
        )
    both = (before.counts > 0) & (after.counts > 0)
    first, second = (math.frexp(moments.scale)[1] - 1 for moments in (before, after))
    unit = max(first, second)  # of both: what vanishes in it is nothing beside the other
    centred = before.means - before.means[before.present].mean(0)
    centre = times_power_of_two(before.means[before.present].mean(0), first - unit)
    moved = times_power_of_two(after.means[both].to(centre), second - unit)
    return angles_between(in_unit(centred[both])[0], in_unit(moved - centre)[0])
