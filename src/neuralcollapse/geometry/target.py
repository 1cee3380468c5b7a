"""NC2 and NC3 against the geometry that class sizes imply, in place of the simplex ETF."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.arithmetic import in_unit
from neuralcollapse.geometry.moments import Moments


@runtime_checkable
class Target(Protocol):
    """What a network should collapse to, such as ``ufm.target_geometry(...)``."""

    @property
    def weight(self) -> Any:
        """W, K x d for any d."""

    @property
    def class_means(self) -> Any:
        """One mean per class, K x d."""


def geometry_distances(moments: Moments, weight: Float[Tensor, "K d"] | None, target: Target) -> dict[str, Any]:
    """Distances ||A/||A|| - B/||B|||| of WW', of the centred means' Gram matrix and of W H̄ to those of a target.

    They ignore rotations of feature space and the scales of W and of the means. Zero where the network has reached the
    target; NC2, NC2 of the means and NC3 are the same distances to a simplex ETF.

    Raises:
        ValueError: if the target has another number of classes.
        TypeError: if it is no target.
    """
    if not isinstance(target, Target):
        raise TypeError(
            f"target is a {type(target).__name__}: expected what ufm.target_geometry(...) gives, with weight and "
            "class_means"
        )
    present = moments.present
    centred = in_unit(moments.centred_means)[0]
    wanted = torch.as_tensor(target.weight, dtype=centred.dtype, device=centred.device)
    means = torch.as_tensor(target.class_means, dtype=centred.dtype, device=centred.device)
    if len(wanted) != moments.num_classes or len(means) != moments.num_classes:
        raise ValueError(f"target has {len(wanted)} classes, and the features {moments.num_classes}")
    wanted, means = in_unit(wanted[present])[0], in_unit(means[present])[0]
    means = means - means.mean(0)
    found: dict[str, Any] = {"geometry_weights": None, "geometry_duality": None}
    if weight is not None:
        rows = in_unit(weight.to(centred)[present])[0]
        found = {
            "geometry_weights": _distance(rows @ rows.T, wanted @ wanted.T),
            "geometry_duality": _distance(rows @ centred.T, wanted @ means.T),
        }
    return {**found, "geometry_means": _distance(centred @ centred.T, means @ means.T)}


def _distance(ours: Float[Tensor, "P P"], theirs: Float[Tensor, "P P"]) -> float:
    """Between the two scaled to norm one; NaN where one is zero."""
    ours, theirs = ours / ours.abs().max(), theirs / theirs.abs().max()  # so that no square overflows
    return float((ours / ours.norm() - theirs / theirs.norm()).norm())
