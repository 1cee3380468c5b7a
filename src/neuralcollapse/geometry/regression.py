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

from neuralcollapse.geometry.arithmetic import in_unit, row_norms, times_power_of_two
from neuralcollapse.geometry.inputs import Rows, as_real, as_tensor
from neuralcollapse.geometry.spectra import stable_rank_of
from neuralcollapse.geometry.tables import text_table
from neuralcollapse.geometry.ways_out import to_matrix

_ROUNDING = 1e-12
"""Distance of Σ^½, of norm one, from a multiple of I under which it is one."""


@dataclass(frozen=True)
class RegressionMetrics:
    """Measures of regression collapse; zero at collapse unless said otherwise. None where there is no last layer."""

    nrc1: float | None
    """Mean share of a unit feature outside the first n principal directions, in [0, 1]. None for a stream of features
    that were read once: their principal directions are known too late. NaN for n = d: it is then 0 in every network."""
    nrc2: float | None
    """Mean share of a unit feature outside the row space of W, in [0, 1]. NaN where W reads all d dimensions."""
    nrc3: float | None
    """Squared distance of WW' to (Σ^½ - sqrt(γ) I), both of norm one, at the best γ, in [0, 2]. NaN for one target:
    both are then 1 in every network."""
    gamma: float | None
    """The γ of NRC3, in units of the targets' variance: N λW λH at the optimum, 0 without weight decay, up to Σ's
    least eigenvalue. NaN where the distance is the same for every γ: Σ is a multiple of I, as it is for one target."""
    alignment: float | None
    """1 - <WW', Σ^½>/(||WW'|| ||Σ^½||), in [0, 1]: NRC3's angle at γ = 0. NaN for one target."""
    stable_rank: float
    """||H||_F²/||H||₂² of the centred features: at most n at collapse."""

    def to_dict(self) -> dict[str, float | None]:
        """All measures by name, in the order of definition."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return text_table(self.to_dict())


@torch.no_grad()
def regression_metrics(
    features: Float[Tensor, "N d"] | Rows,
    targets: Float[Tensor, "N n"] | Rows,
    weight: Float[Tensor, "n d"] | Rows | None = None,
) -> RegressionMetrics:
    r"""NRC1 to NRC3 of the features before a last linear layer that predicts n continuous targets.

    Features are centred over samples and scaled to length one (NRC1, NRC2); targets are centred over samples. Cost: one
    SVD of N x d, and eigenvectors of n x n.

    Args:
        features: N x d, that enter the last layer; N at least 2. A tensor, a NumPy array or lists.
        targets: N x n, real numbers or integers, with n at most d.
        weight: the last layer's weight, n x d; without it, NRC1 and the stable rank alone.

    Raises:
        ValueError: if shapes disagree, an entry is not finite, or features, targets or weight have no variation.
        TypeError: if features or weight are not floating point, or the targets no real numbers.

    Source: Andriopoulos et al. 2024, Section 3. γ in closed form: the objective over the cone spanned by Σ^½ and -I has
    one stationary point.

    >>> targets = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0**0.5, 0.0]])    # WW' = Σ^½ up to scale
    >>> found = regression_metrics(targets @ torch.linalg.pinv(weight).T, targets, weight)
    >>> max(found.nrc1, found.nrc2, found.nrc3) < 1e-12
    True
    """
    features, targets = as_real(features, "features"), _as_targets(targets)
    weight = None if weight is None else as_real(weight, "weight")
    _check(features, targets, weight)
    outputs = targets.shape[1]
    centred, _ = centred_columns(features)
    if not bool(centred.any()):
        raise ValueError("features do not vary: regression collapse is undefined")
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    exact, unit = centred_columns(targets)
    read = row_space(weight)
    return RegressionMetrics(
        nrc1=outside(centred, rows[:outputs]).mean,
        nrc2=None if read is None else outside(centred, read).mean,
        **of_last_layer(weight, exact.T @ exact / len(exact), unit),
        stable_rank=stable_rank_of(singular),
    )


def centred_columns(rows: Float[Tensor, "N d"]) -> tuple[Float[Tensor, "N d"], int]:
    """Rows less their mean, in float64 and units of 2**e, the largest entry in [1, 2); and e.

    A column of one value is exactly zero, which the rounding of its mean would hide.
    """
    scaled, first = in_unit(rows.double())
    centred = (scaled - scaled.mean(0)) * (scaled != scaled[0]).any(0)
    centred, second = in_unit(centred)
    return centred, first + second


def _as_targets(values: Tensor | Rows) -> Tensor:
    tensor = as_tensor(values, "targets")
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return as_real(tensor.double() if whole else tensor, "targets")


def _check(features: Tensor, targets: Tensor, weight: Tensor | None) -> None:
    if features.ndim != 2 or len(features) < 2:
        way = to_matrix(features)
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (N, d) with N at least 2{way}")
    if targets.ndim != 2 or len(targets) != len(features):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}: expected ({len(features)}, n), one row per sample"
        )
    if weight is not None and weight.shape != (targets.shape[1], features.shape[1]):
        raise ValueError(f"weight has shape {tuple(weight.shape)}: expected ({targets.shape[1]}, {features.shape[1]})")
    if targets.shape[1] > features.shape[1]:
        raise ValueError(
            f"{targets.shape[1]} targets need at least as many features, and there are {features.shape[1]}"
        )
    for name, tensor in (("features", features), ("targets", targets), ("weight", weight)):
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} has non-finite entries (NaN or infinity)")


@dataclass(frozen=True)
class Outside:
    """How much of some features lies outside a subspace."""

    total: float
    """Sum over the features of the squared length that a projection leaves, once each has length one."""
    count: int
    """Features that are not zero."""

    @property
    def mean(self) -> float:
        """The share of one feature."""
        return self.total / max(self.count, 1)

    def __add__(self, other: Outside) -> Outside:
        return Outside(self.total + other.total, self.count + other.count)


@torch.no_grad()
def outside(centred: Float[Tensor, "N d"], basis: Float[Tensor, "r d"]) -> Outside:
    """Share of centred features, each scaled to length one, outside an orthonormal basis.

    No cancellation where little is left. NaN for a basis of the whole space, outside of which no feature can be.
    Cost: O(Ndr).
    """
    if len(basis) == basis.shape[1]:
        return Outside(math.nan, len(centred))
    lengths = row_norms(centred)
    units = centred[lengths > 0] / lengths[lengths > 0, None]
    return Outside(float((units - (units @ basis.T) @ basis).square().sum()), len(units))


@torch.no_grad()
def of_last_layer(
    weight: Float[Tensor, "n d"] | None, covariance: Float[Tensor, "n n"], unit: int = 0
) -> dict[str, float | None]:
    """NRC3, its γ and the alignment, from the last layer and the covariance of the targets.

    Args:
        weight: of the last layer; None gives None for all three.
        covariance: of the targets, in units of 2**unit.
        unit: exponent of the targets' unit of length.

    Raises:
        ValueError: if the targets do not vary.
    """
    covariance, more = in_unit(covariance)
    root, norm = _unit_root(covariance)
    if weight is None:
        return dict.fromkeys(("nrc3", "gamma", "alignment"))
    if len(root) == 1:
        return dict.fromkeys(("nrc3", "gamma", "alignment"), math.nan)
    exact, _ = in_unit(weight.detach().to(covariance))
    gram = exact @ exact.T
    gram = gram / gram.norm()
    nrc3, shift = _best_shift(gram, root)
    gamma = float(times_power_of_two(covariance.new_tensor((shift * norm) ** 2), more + 2 * unit))
    spread = float((root - root.trace() / len(root) * torch.eye(len(root)).to(root)).norm())
    gamma = gamma if spread > _ROUNDING else math.nan
    return {"nrc3": nrc3, "gamma": gamma, "alignment": float((gram - root).square().sum()) / 2}


def row_space(weight: Float[Tensor, "n d"] | None) -> Float[Tensor, "r d"] | None:
    """Orthonormal basis, in float64, of the directions that W reads; None without W.

    Raises:
        ValueError: if W is zero.
    """
    if weight is None:
        return None
    _, singular, rows = torch.linalg.svd(in_unit(weight.detach().double())[0], full_matrices=False)
    if not float(singular[0]):
        raise ValueError("weight is zero: it reads no direction of the features")
    return rows[singular > singular[0] * max(weight.shape) * torch.finfo(torch.float64).eps]


def _unit_root(covariance: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "n n"], float]:
    """Σ^½ of norm one, and its norm."""
    values, vectors = torch.linalg.eigh(covariance)
    if not float(values[-1]) > 0:
        raise ValueError("targets do not vary: their covariance is zero")
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    norm = float(root.norm())
    return root / norm, norm


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
        if norm > _ROUNDING:  # Σ a multiple of I leaves nothing at the far end
            best = min(best, (float((a - shifted / norm).square().sum()), shift))
    return best
