"""Neural regression collapse: NRC1 to NRC3 of Andriopoulos et al.

"The prevalence of neural collapse in neural multivariate regression", NeurIPS 2024, arXiv 2409.04180. n is the number
of targets, Σ their covariance.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.spectra import stable_rank


@dataclass(frozen=True)
class RegressionMetrics:
    """Measures of regression collapse; zero at collapse unless said otherwise."""

    nrc1: float
    """Mean share of a unit feature outside the first n principal directions, in [0, 1]."""
    nrc2: float
    """Mean share of a unit feature outside the row space of W, in [0, 1]."""
    nrc3: float
    """Squared distance of WW' to (Σ^½ - sqrt(γ) I), both of norm one, at the best γ, in [0, 4]."""
    gamma: float
    """The γ of NRC3, in units of the targets' variance: 0 without weight decay, up to Σ's least eigenvalue."""
    alignment: float
    """1 - <WW', Σ^½>/(||WW'|| ||Σ^½||), in [0, 2]: NRC3's angle at γ = 0."""
    stable_rank: float
    """||H||_F²/||H||₂² of the centred features: at most n at collapse."""

    def to_dict(self) -> dict[str, float]:
        """All measures by name, in the order of definition."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "\n".join(f"{name:<14}{value:.6g}" for name, value in self.to_dict().items())


@torch.no_grad()
def regression_metrics(
    features: Float[Tensor, "N d"], targets: Float[Tensor, "N n"], weight: Float[Tensor, "n d"]
) -> RegressionMetrics:
    r"""NRC1 to NRC3 of the features before a last linear layer that predicts n continuous targets.

    Features are centred over samples and scaled to length one (NRC1, NRC2); targets are centred over samples. Cost: one
    SVD of N x d, and eigenvectors of n x n.

    Args:
        features: N x d, that enter the last layer; N at least 2.
        targets: N x n, with n at most d.
        weight: the last layer's weight, n x d.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or features, targets or weight have no variation.

    Source: Andriopoulos et al. 2024, Section 3. γ in closed form: the objective over the cone spanned by Σ^½ and -I has
    one stationary point.

    >>> targets = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0**0.5, 0.0]])    # WW' = Σ^½ up to scale
    >>> found = regression_metrics(targets @ torch.linalg.pinv(weight).T, targets, weight)
    >>> max(found.nrc1, found.nrc2, found.nrc3) < 1e-12
    True
    """
    _check(features, targets, weight)
    outputs = targets.shape[1]
    centred = features.detach().double() - features.double().mean(0)
    if not bool(centred.any()):
        raise ValueError("features do not vary: regression collapse is undefined")
    nonzero = centred.norm(dim=1) > 0
    units = centred[nonzero] / centred[nonzero].norm(dim=1, keepdim=True)
    principal = torch.linalg.svd(centred / centred.abs().max(), full_matrices=False).Vh[:outputs]
    gram, root, norm = _unit_roots(weight.detach().double(), targets.detach().double())
    nrc3, shift = _best_shift(gram, root)
    return RegressionMetrics(
        nrc1=_outside(units, principal),
        nrc2=_outside(units, _row_space(weight.detach().double())),
        nrc3=nrc3,
        gamma=(shift * norm) ** 2,
        alignment=float((gram - root).square().sum()) / 2,
        stable_rank=stable_rank(centred),
    )


def _check(features: Tensor, targets: Tensor, weight: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (N, d) with N at least 2")
    if targets.ndim != 2 or len(targets) != len(features):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}: expected ({len(features)}, n), one row per sample"
        )
    if weight.shape != (targets.shape[1], features.shape[1]):
        raise ValueError(f"weight has shape {tuple(weight.shape)}: expected ({targets.shape[1]}, {features.shape[1]})")
    if targets.shape[1] > features.shape[1]:
        raise ValueError(
            f"{targets.shape[1]} targets need at least as many features, and there are {features.shape[1]}"
        )
    for name, tensor in (("features", features), ("targets", targets), ("weight", weight)):
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} has non-finite entries (NaN or infinity)")


def _row_space(weight: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """Orthonormal basis of the directions that W reads."""
    _, singular, rows = torch.linalg.svd(weight, full_matrices=False)
    if not float(singular[0]):
        raise ValueError("weight is zero: it reads no direction of the features")
    return rows[singular > singular[0] * max(weight.shape) * torch.finfo(torch.float64).eps]


def _outside(units: Float[Tensor, "N d"], basis: Float[Tensor, "r d"]) -> float:
    """Mean squared length of what a projection leaves of unit vectors: no cancellation where little is left."""
    return float((units - (units @ basis.T) @ basis).square().sum(1).mean())


def _unit_roots(weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, float]:
    """WW' of norm one, and Σ^½ of norm one with its norm."""
    gram = weight @ weight.T
    centred = targets - targets.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(targets))
    if not float(values[-1]) > 0:
        raise ValueError("targets do not vary: their covariance is zero")
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    norm = float(root.norm())
    return gram / gram.norm(), root / norm, norm


def _best_shift(a: Float[Tensor, "n n"], b: Float[Tensor, "n n"]) -> tuple[float, float]:
    """Min over s = sqrt(γ) in [0, least eigenvalue of B] of ||A - (B - sI)/||B - sI||||²; A and B of norm one.

    Cosines on a line have one stationary point, s = (tr A - <A, B> tr B)/(tr A tr B - n <A, B>). It is the maximum
    or the minimum, so the ends are tried too.
    """
    size = len(a)
    eye = torch.eye(size, dtype=a.dtype, device=a.device)
    product, trace_a, trace_b = float((a * b).sum()), float(a.trace()), float(b.trace())
    highest = max(float(torch.linalg.eigvalsh(b)[0]), 0.0)
    denominator = trace_a * trace_b - size * product
    inner = (trace_a - product * trace_b) / denominator if denominator else 0.0
    best = (math.inf, 0.0)
    for shift in (0.0, min(max(inner, 0.0), highest), highest):
        shifted = b - shift * eye
        norm = float(shifted.norm())
        if norm > 1e-12:  # Σ a multiple of I leaves nothing at the far end
            best = min(best, (float((a - shifted / norm).square().sum()), shift))
    return best
