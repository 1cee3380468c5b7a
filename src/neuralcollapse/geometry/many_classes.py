"""Collapse when the classes outnumber the features: K > d.

No simplex ETF of K classes fits into fewer than K - 1 dimensions. Jiang et al. ("Generalized neural collapse for a
large number of classes", ICML 2024, arXiv 2310.05351) show what takes its place: classifier rows of the largest
one-vs-rest margin (GNC2, in :mod:`.margin`), features that collapse onto them (GNC1) and agree with them (GNC3). Wu
and Papyan ("Linguistic collapse", NeurIPS 2024, arXiv 2405.17767) relax both to uniformity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import in_unit, times_power_of_two
from neuralcollapse.geometry.collapse import measure_features
from neuralcollapse.geometry.inputs import Rows, as_real, as_rows
from neuralcollapse.geometry.pairs import kernel_moments

_ROWS = 4096
"""Rows of K x d matrices that are multiplied at once."""


@torch.no_grad()
def gnc1(features: Float[Tensor, "N d"] | Rows, labels: Int[Tensor, " N"] | Rows) -> float:
    r"""GNC1: NC1 of the features scaled to length one.

    .. math:: \tfrac1K \mathrm{tr}(\Sigma_W \Sigma_B^\dagger) \text{ of } h_i / \|h_i\|

    In [0, ∞); 0 at collapse. Source: Jiang et al. 2024, Section 3. Cost: O(NdK).

    Raises:
        ValueError: if a feature is zero, or as :func:`measure_features`.
        TypeError: as :func:`measure_features`.

    >>> round(gnc1(torch.tensor([[1.0, 0.1], [10.0, 1.0], [-1.0, 0.1], [-5.0, 0.5]]), torch.tensor([0, 0, 1, 1])), 6)
    0.0
    """
    features = as_real(features, "features")
    found = measure_features(as_rows(features, "features", True).to(features.dtype), labels).nc1
    assert found is not None
    return found


@torch.no_grad()
def gnc3(weight: Float[Tensor, "K d"] | Rows, class_means: Float[Tensor, "K d"] | Rows) -> float:
    """GNC3: 1 - mean cos(w_k, h̄_k), in [0, 2]; 0 at collapse, where each class mean points along its row of W.

    The means are those of the features as they enter the classifier, not centred: with K > d there is no simplex
    whose centre would matter. Source: Jiang et al. 2024, Section 3. Cost: O(Kd).

    Raises:
        ValueError: if the shapes differ, or a row is zero or not finite.

    >>> gnc3(torch.eye(3), 2 * torch.eye(3))
    0.0
    """
    first, second = _pair(weight, class_means, True)
    pieces = zip(first.split(_ROWS), second.split(_ROWS), strict=True)
    return sum(float((a - b).square().sum()) for a, b in pieces) / len(first) / 2  # 1 - cos, without cancellation


@torch.no_grad()
def unc3(
    weight: Float[Tensor, "K d"] | Rows, class_means: Float[Tensor, "K d"] | Rows, *, normalize: bool = False
) -> float:
    """UNC3, uniform duality: the variance over classes of <w_k, h̄_k>.

    In [0, ∞), of cosines in [0, 1]; 0 at collapse, where all classes agree equally. Cost: O(Kd).

    Args:
        weight: classifier, K x d.
        class_means: K x d; centre them first for the paper's <w_k, h̄_k - h̄>.
        normalize: scale all rows to length one first: the variance of the cosines.

    Raises:
        ValueError: if the shapes differ, or a row is not finite (or zero, where it is normalised).

    Source: Wu and Papyan 2024, Section 3.

    >>> unc3(torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    1.0
    """
    (first, one), (second, other) = (in_unit(rows) for rows in _pair(weight, class_means, normalize))
    pieces = zip(first.split(_ROWS), second.split(_ROWS), strict=True)
    products = torch.cat([(a * b).sum(1) for a, b in pieces])
    return float(times_power_of_two(products.var(correction=0), 2 * (one + other)))


@dataclass(frozen=True)
class Uniformity:
    """Mean kernel over all pairs of directions, and how much it varies."""

    energy: float
    """Mean of the kernel over ordered pairs: smaller is more uniform."""
    variation: float
    """Standard deviation of the kernel over pairs, over abs(energy): zero for a simplex ETF."""

    def __float__(self) -> float:
        return self.energy


@torch.no_grad()
def hyperspherical_uniformity(vectors: Float[Tensor, "K d"] | Rows, kernel: str | float = "log") -> Uniformity:
    r"""How evenly directions cover the sphere: mean over pairs of a kernel of their distance.

    ``"log"`` is :math:`\log(1/\|u_i - u_j\|)`, a number s > 0 the Riesz kernel :math:`\|u_i - u_j\|^{-s}`, u_i the
    vectors scaled to length one. The least value, reached at collapse, is that of the most even directions: among K <=
    d+1 vectors the simplex ETF, in [-½ log(2K/(K-1)), ∞) and (2K/(K-1))^(-s/2). Two equal directions make it infinite.
    Cost: half a K x K product and a logarithm per pair.

    Raises:
        ValueError: if there are fewer than two vectors, one is zero or not finite, or the kernel is unknown.

    Source: Liu et al., "Generalizing and decoupling neural collapse via hyperspherical uniformity gap", ICLR 2023;
    Wu and Papyan 2024 (their GNC2).

    >>> round(float(hyperspherical_uniformity(torch.tensor([[1.0, 0], [-1.0, 0]]))), 6)    # -log 2
    -0.693147
    """
    power = 0.0 if kernel == "log" else _riesz_power(kernel)
    found = kernel_moments(as_rows(vectors, "vectors", True), power)
    return Uniformity(found.mean, found.spread / abs(found.mean) if found.mean else math.nan)


def _riesz_power(kernel: str | float) -> float:
    if isinstance(kernel, str) or not (kernel > 0 and math.isfinite(kernel)):
        raise ValueError(f"kernel={kernel!r} is unknown: choose 'log', or a positive number s for the Riesz kernel")
    return float(kernel)


def _pair(weight: Any, class_means: Any, normalize: bool) -> tuple[Float[Tensor, "K d"], Float[Tensor, "K d"]]:
    """Both as rows in float64, of one shape."""
    weight, class_means = as_real(weight, "weight"), as_real(class_means, "class_means")
    if weight.shape != class_means.shape:
        raise ValueError(
            f"class_means has shape {tuple(class_means.shape)}: it must be that of weight, {tuple(weight.shape)}"
        )
    return as_rows(weight, "weight", normalize), as_rows(class_means, "class_means", normalize)
