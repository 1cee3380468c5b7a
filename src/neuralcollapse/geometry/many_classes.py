"""Collapse when the classes outnumber the features: K > d.

No simplex ETF of K classes fits into fewer than K - 1 dimensions. Jiang et al. ("Generalized neural collapse for a
large number of classes", ICML 2024, arXiv 2310.05351) show what takes its place: classifier rows of the largest
one-vs-rest margin (GNC2), features that collapse onto them (GNC1) and agree with them (GNC3). Wu and Papyan
("Linguistic collapse", NeurIPS 2024, arXiv 2405.17767) relax both to uniformity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import nnls
from torch import Tensor

from neuralcollapse.geometry.collapse import measure_features

_BLOCK = 1024
"""Rows of a K x K product held at once."""

_EXACT_ROWS = 4096
"""Up to this K, pairs are computed in float64 whatever comes in: it costs nothing there."""


@dataclass(frozen=True)
class OneVsRestMargin:
    """Distance of each row to the convex hull of all others, with a proof of how exact it is."""

    distances: Float[Tensor, " K"]
    """dist(w_k, conv{w_j : j != k}), reached by a point of the hull."""
    gaps: Float[Tensor, " K"]
    """Duality gap: the true distance is smaller by at most this much."""

    @property
    def margin(self) -> float:
        """The smallest distance: GNC2 of Jiang et al., larger is better."""
        return float(self.distances.min())

    @property
    def gap(self) -> float:
        """The largest duality gap."""
        return float(self.gaps.max())

    def __float__(self) -> float:
        return self.margin

    def __str__(self) -> str:
        return f"one-vs-rest margin {self.margin:.9g} (duality gap {self.gap:.1g})"


@torch.no_grad()
def one_vs_rest_margin(weight: Float[Tensor, "K d"], *, normalize: bool = True) -> OneVsRestMargin:
    r"""How far each row is from the convex hull of all others (GNC2).

    .. math:: \rho = \min_k \mathrm{dist}(w_k, \mathrm{conv}\{w_j : j \ne k\})

    Each class is a quadratic program over the simplex. It is solved by active sets (Lawson and Hanson's NNLS: the
    nearest point of a hull to the origin minimises ||P a||² + (1'a - 1)² over a >= 0, up to scale), over the nearest
    rows first and any that violate optimality afterwards. The separating hyperplane is the dual certificate.
    The largest values are K/(K-1) for K <= d+1, 1 for d+1 < K <= 2d, 1 - cos(2π/K) for d = 2; see
    ``ufm.softmax_code``. Cost: about 2 ms per class at K = 1,000, d = 64.

    Args:
        weight: K x d, K at least 2. Arithmetic is float64.
        normalize: scale each row to length one first, as the definition asks; otherwise rows are taken as they are.

    Raises:
        ValueError: if there are fewer than two rows, a row is not finite, or a row to be normalised is zero.

    Source: Jiang et al. 2024, Definition 3.1.

    >>> corners = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    >>> round(float(one_vs_rest_margin(corners)), 12)
    1.0
    """
    rows = _rows(weight, "weight", normalize).cpu().numpy()
    pairs = [_distance_to_hull(rows, k) for k in range(len(rows))]
    distances, gaps = (
        torch.tensor(column, dtype=torch.float64, device=weight.device) for column in zip(*pairs, strict=True)
    )
    return OneVsRestMargin(distances, gaps)


def _distance_to_hull(rows: np.ndarray, k: int) -> tuple[float, float]:
    """Distance of row k to the hull of the others, and the duality gap."""
    own = rows[k]
    gram = rows @ own
    near = np.square(rows).sum(1) - 2 * gram
    near[k] = np.inf
    candidates = np.argsort(near)[: min(len(rows) - 1, max(128, 2 * rows.shape[1]))]
    for _ in range(len(rows)):
        shifted = rows[candidates] - own
        system = np.vstack([shifted.T, np.ones(len(candidates))])
        target = np.zeros(len(system))
        target[-1] = 1
        shares = nnls(system, target, maxiter=50 * len(candidates) + 1000)[0]
        shares /= shares.sum()
        normal = -(shares @ shifted)  # from the hull's nearest point to w_k
        distance = float(np.linalg.norm(normal))
        projections = rows @ normal
        projections[k] = -np.inf
        # Every other row lies behind the plane through the nearest point, or joins the candidates.
        support = float(own @ normal - projections.max())
        outside = np.setdiff1d(np.flatnonzero(projections > own @ normal - distance**2 + 1e-14), candidates)
        if not len(outside):
            break
        candidates = np.concatenate([candidates[shares > 0], outside])
    proved = max(support / distance, 0.0) if distance > 0 else 0.0
    return distance, max(distance - proved, 0.0)


@torch.no_grad()
def gnc1(features: Float[Tensor, "N d"], labels: Int[Tensor, " N"]) -> float:
    """GNC1: NC1 of the features scaled to length one; zero at collapse.

    Source: Jiang et al. 2024, Section 3. Cost and errors as :func:`measure_features`; a zero feature is an error.

    >>> round(gnc1(torch.tensor([[1.0, 0.1], [10.0, 1.0], [-1.0, 0.1], [-5.0, 0.5]]), torch.tensor([0, 0, 1, 1])), 6)
    0.0
    """
    found = measure_features(_rows(features, "features", True).to(features.dtype), labels).nc1
    assert found is not None
    return found


@torch.no_grad()
def gnc3(weight: Float[Tensor, "K d"], class_means: Float[Tensor, "K d"]) -> float:
    """GNC3: 1 - mean cos(w_k, h̄_k), in [0, 2]; zero where each class mean points along its row of W.

    The means are those of the features as they enter the classifier, not centred: with K > d there is no simplex
    whose centre would matter. Source: Jiang et al. 2024, Section 3.

    Raises:
        ValueError: if the shapes differ, or a row is zero or not finite.

    >>> gnc3(torch.eye(3), 2 * torch.eye(3))
    0.0
    """
    _check_pair(weight, class_means)
    first, second = _rows(weight, "weight", True), _rows(class_means, "class_means", True)
    return float((first - second).square().sum(1).mean()) / 2  # 1 - cos, without the cancellation


@torch.no_grad()
def unc3(weight: Float[Tensor, "K d"], class_means: Float[Tensor, "K d"], *, normalize: bool = False) -> float:
    """UNC3, uniform duality: the variance over classes of <w_k, h̄_k>; zero where all classes agree equally.

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
    _check_pair(weight, class_means)
    products = (_rows(weight, "weight", normalize) * _rows(class_means, "class_means", normalize)).sum(1)
    return float(products.var(correction=0))


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
def hyperspherical_uniformity(vectors: Float[Tensor, "K d"], kernel: str | float = "log") -> Uniformity:
    r"""How evenly directions cover the sphere: mean over pairs of a kernel of their distance.

    ``"log"`` is :math:`\log(1/\|u_i - u_j\|)`, a number s > 0 the Riesz kernel :math:`\|u_i - u_j\|^{-s}`, u_i the
    vectors scaled to length one. Among K <= d+1 vectors the simplex ETF has the smallest energy: -½ log(2K/(K-1)), and
    (2K/(K-1))^(-s/2). Two equal directions make it infinite. Cost: half a K x K product and a logarithm per pair.

    Raises:
        ValueError: if there are fewer than two vectors, one is zero or not finite, or the kernel is unknown.

    Source: Liu et al., "Generalizing and decoupling neural collapse via hyperspherical uniformity gap", ICLR 2023;
    Wu and Papyan 2024 (their GNC2).

    >>> round(float(hyperspherical_uniformity(torch.tensor([[1.0, 0], [-1.0, 0]]))), 6)    # -log 2
    -0.693147
    """
    power = 0.0 if kernel == "log" else _riesz_power(kernel)
    units = _rows(vectors, "vectors", True)
    if len(units) > _EXACT_ROWS and vectors.dtype != torch.float64:
        units = units.float()
    first = second = 0.0
    for start in range(0, len(units), _BLOCK):
        block = units[start : start + _BLOCK]
        squares = (2 - 2 * block @ units[start:].T).clamp_(min=0)
        own = squares[:, : len(block)]
        own.copy_(torch.cdist(block, block, compute_mode="donot_use_mm_for_euclid_dist").square())
        values = squares.log_().mul_(-0.5) if power == 0 else squares.pow_(-power / 2)
        above = torch.ones_like(values[:, : len(block)], dtype=torch.bool).triu(1)
        inside, beyond = values[:, : len(block)][above], values[:, len(block) :]
        for part in (inside, beyond):
            first += float(part.sum(dtype=torch.float64))
            second += float(part.square().sum(dtype=torch.float64))
    pairs = len(units) * (len(units) - 1) / 2
    energy = first / pairs
    spread = math.sqrt(max(second / pairs - energy**2, 0.0)) if math.isfinite(energy) else math.nan
    return Uniformity(energy, spread / abs(energy) if energy else math.nan)


def _riesz_power(kernel: str | float) -> float:
    if isinstance(kernel, str) or not (kernel > 0 and math.isfinite(kernel)):
        raise ValueError(f"kernel={kernel!r} is unknown: choose 'log', or a positive number s for the Riesz kernel")
    return float(kernel)


def _check_pair(weight: Tensor, class_means: Tensor) -> None:
    if weight.shape != class_means.shape:
        raise ValueError(
            f"class_means has shape {tuple(class_means.shape)}: it must be that of weight, {tuple(weight.shape)}"
        )


def _rows(vectors: Tensor, name: str, normalize: bool) -> Float[Tensor, "K d"]:
    """The rows in float64, of length one where asked; or what is wrong with them."""
    if vectors.ndim != 2 or len(vectors) < 2 or not vectors.shape[1]:
        raise ValueError(f"{name} has shape {tuple(vectors.shape)}: expected (K, d) with K at least 2")
    rows = vectors.detach().double()
    if not bool(rows.isfinite().all()):
        raise ValueError(f"{name} has non-finite entries (NaN or infinity)")
    if not normalize:
        return rows
    largest = rows.abs().amax(1, keepdim=True)
    zero = (largest[:, 0] == 0).nonzero().flatten().tolist()
    if zero:
        raise ValueError(f"{name} has a zero row ({zero[0]}): it has no direction to normalise")
    rows = rows / largest  # first, so that no square overflows or vanishes
    return rows / rows.norm(dim=1, keepdim=True)
