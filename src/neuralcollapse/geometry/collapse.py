"""The published measures of neural collapse, as functions of class statistics and a classifier.

"Zhu et al." is arXiv 2105.02375, whose equations (7) to (10) define NC1 to NC4. "Papyan et al." is Papyan,
Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.etf import frame_distance, product_rows
from neuralcollapse.geometry.statistics import ClassStatistics, check_batch, first_samples, working_dtype

_CHUNK_BYTES = 8 << 20
"""Features are walked through in pieces that stay in the processor's cache."""

_RESOLVED = 0.01
"""Share of NC1 that rounding of the streamed scatter may reach before a warning says so."""

_NEGLIGIBLE = 1e-9
"""Share of NC1 that rounding of the projected features may reach before they are projected again in float64."""


class CollapseWarning(UserWarning):
    """A measure is undefined, or defined only by convention, for the input it was given."""


@dataclass(frozen=True)
class CollapseMetrics:
    """Measures of neural collapse. ``None`` where the input needed was not given; zero at collapse."""

    nc1: float | None
    """Within-class variability tr(Σ_W Σ_B†)/K. Zhu et al., equation (7). None for ``within="traces"``."""
    nc2: float | None
    """Distance of the classifier's Gram matrix to a simplex ETF's. Zhu et al., equation (8)."""
    nc3: float | None
    """Distance of W H̄ to a simplex ETF's Gram matrix: self-duality. Zhu et al., equation (9)."""
    nc4: float | None
    """Bias collapse, the norm of b + W h_G. Zhu et al., equation (10)."""
    nc4_relative: float | None
    """NC4 over the root mean square norm of the columns of W H̄: bias collapse in units of the network's logits."""
    nc2_means: float
    """Equation (8) applied to the centred class means in place of the classifier."""
    cdnv: float
    """Class-distance normalised variance, mean over pairs. Galanti, György and Hutter 2022."""
    nc1_quotient: float
    """tr(Σ_W)/tr(Σ_B). Tirer, Huang and Niles-Weed 2023."""
    equinorm_means: float
    """Coefficient of variation of the norms of the centred class means. Papyan et al., Figure 2."""
    equinorm_weights: float | None
    """Coefficient of variation of the norms of the classifier's rows. Papyan et al., Figure 2."""
    equiangularity_means: float
    """Standard deviation of the cosines between centred class means. Papyan et al., Figure 3."""
    equiangularity_weights: float | None
    """Standard deviation of the cosines between the classifier's rows. Papyan et al., Figure 3."""
    max_equiangularity_means: float
    """Mean of abs(cosine + 1/(K-1)) between centred class means. Papyan et al., Figure 4."""
    max_equiangularity_weights: float | None
    """Mean of abs(cosine + 1/(K-1)) between the classifier's rows. Papyan et al., Figure 4."""
    self_duality: float | None
    """Squared distance of the normalised classifier and class means. Papyan et al., Figure 5."""
    bias_spread: float | None
    """Standard deviation of the bias's entries: equal at the optimum. Zhu et al., Theorem 3.1."""

    def to_dict(self) -> dict[str, float | None]:
        """All measures by name, in the order of definition."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{name:<27}{value:.6g}" for name, value in self.to_dict().items() if value is not None]
        return "\n".join(lines)


@torch.no_grad()
def collapse_metrics(
    statistics: ClassStatistics,
    weight: Float[Tensor, "K d"] | None = None,
    bias: Float[Tensor, "K"] | None = None,
    *,
    allow_missing: bool = False,
    samples: tuple[Float[Tensor, "N d"], Int[Tensor, "N"]] | None = None,
) -> CollapseMetrics:
    """Measures of neural collapse from class statistics and, where given, the last layer (W, b).

    With unequal classes Σ_W weighs samples and Σ_B weighs classes equally, as the paper does.

    Args:
        statistics: of the features that enter the classifier.
        weight: classifier W, K x d.
        bias: classifier bias b, K; taken as zero if a weight is given without it.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.
        samples: all features and labels behind the statistics, where they are at hand: they settle an NC1 that
            rounding of the streamed products would decide.

    Raises:
        ValueError: if a class has no samples (unless allowed), fewer than two classes have any,
            shapes disagree, the classifier has non-finite entries, or the samples are not all.

    Warns:
        CollapseWarning: for a class of one sample (its within-class variance counts as zero), and where
            class means coincide: with no between-class variance left NC1 and its kin are infinite, or
            NaN if all features are equal. Where within-class variation across the class means is so much larger
            than along them that rounding decides NC1, and no samples are given.
    """
    weight, bias = _check_classifier(weight, bias, statistics.num_classes, statistics.feature_dim)
    present = _present_classes(statistics.counts, allow_missing)
    means = statistics.means[present]
    centred = means - means.mean(0)
    if weight is not None and bias is not None:
        weight, bias = weight.to(means)[present], bias.to(means)[present]
    nc1 = None
    if statistics.within == "full":
        directions = _between_directions(centred, means)
        within = statistics.within_covariance
        along = float(((within @ directions) * directions).sum())
        # An entry (i, j) of the scatter errs by some rounding of the product of the deviations i and j.
        error = statistics.rounding * float((directions.square().T @ within.diagonal()).sum())
        lost = error > _RESOLVED * along and error > 0
        if lost and samples is not None:
            along = _along(*samples, statistics, present)
        elif lost:
            warnings.warn(
                f"NC1 is lost in rounding where it is below {error / _RESOLVED:.0e}: within-class variation is far "
                "larger across the class means than along them. measure_features, or features in float64, resolve it",
                CollapseWarning,
                stacklevel=3,
            )
        nc1 = _nc1(max(along, 0.0), directions, float(within.trace()))
    return _assemble(
        nc1, statistics.counts[present], statistics.within_traces[present], centred,
        statistics.global_mean, weight, bias,
    )  # fmt: skip


@torch.no_grad()
def measure_features(
    features: Float[Tensor, "N d"],
    labels: Int[Tensor, "N"],
    weight: Float[Tensor, "K d"] | None = None,
    bias: Float[Tensor, "K"] | None = None,
    *,
    num_classes: int | None = None,
    allow_missing: bool = False,
) -> CollapseMetrics:
    """Measures of neural collapse of features in memory: O(NdK) time, never a d x d matrix.

    Args:
        features: N x d, any float dtype.
        labels: N integers in [0, K).
        weight: classifier W, K x d.
        bias: classifier bias, K.
        num_classes: K; by default the classifier's, or else the largest label plus one.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.

    Raises:
        ValueError: as :func:`collapse_metrics`, and for labels or features no measure is defined for.
        TypeError: if features are not floating point or labels not integers.

    Warns:
        CollapseWarning: as :func:`collapse_metrics`.

    >>> features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> round(measure_features(features, torch.tensor([0, 0, 1, 1])).nc1_quotient, 6)
    0.01
    """
    if features.ndim != 2 or not features.numel():
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (N, d), both at least 1")
    if num_classes is None:
        num_classes = len(weight) if weight is not None else max(int(labels.long().max()) + 1, 2)
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: collapse is defined for at least 2 classes")
    weight, bias = _check_classifier(weight, bias, num_classes, features.shape[1])
    check_batch(features, labels, num_classes, features.shape[1])
    labels = labels.to(features.device, torch.int64)
    counts = torch.bincount(labels, minlength=num_classes)
    present = _present_classes(counts, allow_missing)

    precision = working_dtype(features)
    means, directions, squares, along = _moments(features, labels, counts, present, precision)
    total = int(counts.sum())
    # A projection errs by some rounding of the whole feature: where that is much longer, repeat in float64.
    error = (torch.finfo(precision).eps * directions.norm()).square() * squares.sum()
    if precision != torch.float64 and error > _NEGLIGIBLE * along:
        means, directions, squares, along = _moments(features, labels, counts, present, torch.float64)
    nc1 = _nc1(max(along, 0.0) / total, directions, float(squares.sum()) / total)
    centred = means[present] - means[present].mean(0)
    global_mean = counts.double() @ means / total
    if weight is not None and bias is not None:
        weight, bias = weight.to(means)[present], bias.to(means)[present]
    traces = squares[present] / counts[present]
    return _assemble(nc1, counts[present], traces, centred, global_mean, weight, bias)


def _along(features: Tensor, labels: Tensor, statistics: ClassStatistics, present: Tensor) -> float:
    """Within-class moment along the between-class directions, from the samples themselves, in float64."""
    if len(features) != statistics.total:
        raise ValueError(f"samples hold {len(features)} features, and the statistics {statistics.total}: give all")
    home = features.device
    counts, present = statistics.counts.to(home), present.to(home)
    return _moments(features, labels.to(home, torch.int64), counts, present, torch.float64)[-1] / len(features)


def _moments(
    features: Float[Tensor, "N d"],
    labels: Int[Tensor, "N"],
    counts: Int[Tensor, "K"],
    present: Int[Tensor, "P"],
    precision: torch.dtype,
) -> tuple[Float[Tensor, "K d"], Float[Tensor, "d r"], Float[Tensor, "K"], float]:
    """Class means, between-class directions, and the scatter within classes: of each class, and along these."""
    # First pass: the class means, from features shifted by the first of their class: float32 sums are small.
    pivots = features[first_samples(labels, counts)].to(precision)
    sums = torch.zeros(pivots.shape, dtype=torch.float64, device=features.device)
    for shifted, y in _shifted_chunks(features, labels, pivots):
        sums += torch.zeros_like(pivots).index_add_(0, y, shifted)
    means = (pivots.double() + sums / counts.clamp(min=1)[:, None]) * (counts > 0)[:, None]

    # Second pass: the moments about the rounded means, total and along the between-class directions.
    directions = _between_directions(means[present] - means[present].mean(0), means[present])
    pivots, scaled = means.to(precision), directions.to(precision)
    squares = torch.zeros(len(counts), dtype=torch.float64, device=features.device)
    along = 0.0
    for shifted, y in _shifted_chunks(features, labels, pivots):
        squares.index_add_(0, y, torch.linalg.vector_norm(shifted, dim=1).double().square())
        along += float((shifted @ scaled).square().sum(dtype=torch.float64))
    # What rounding the pivots left over: the moments about the means are smaller by n |mean - pivot|^2.
    left_over = means - pivots.double()
    squares = (squares - counts * left_over.square().sum(1)).clamp(min=0)
    along -= float((counts * (left_over @ directions).square().sum(1)).sum())
    return means, directions, squares, along


def _shifted_chunks(
    features: Float[Tensor, "N d"], labels: Int[Tensor, "N"], pivots: Float[Tensor, "K d"]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features less the pivot of their class, piece by piece, in one buffer that each piece overwrites."""
    rows = max(1, _CHUNK_BYTES // (pivots.element_size() * features.shape[1]))
    buffer = pivots.new_empty(min(rows, len(features)), features.shape[1])
    for x, y in zip(features.split(rows), labels.split(rows), strict=True):
        shifted = torch.index_select(pivots, 0, y, out=buffer[: len(x)])
        yield torch.sub(x.to(pivots.dtype), shifted, out=shifted), y


@torch.no_grad()
def ncc_mismatch(
    features: Float[Tensor, "N d"],
    predictions: Int[Tensor, "N"],
    statistics: ClassStatistics,
) -> float:
    """Share of samples whose prediction is not the nearest class centre. Papyan et al., Figure 7.

    Args:
        features: N x d, the features behind the predictions.
        predictions: N class indices, the network's decisions.
        statistics: holds the class means; a class without samples is never the nearest.

    Returns:
        A share in [0, 1]; NaN for no samples.
    """
    if not len(features):
        return math.nan
    centre = statistics.balanced_mean
    means = statistics.means - centre  # a common shift changes no distance, but keeps the digits
    absent = torch.where(statistics.counts > 0, 0.0, math.inf).to(means)
    half_squares = means.square().sum(1) / 2 + absent
    wrong = 0
    rows = max(1, _CHUNK_BYTES // (8 * features.shape[1]))
    for x, y in zip(features.split(rows), predictions.split(rows), strict=True):
        nearest = (half_squares - (x.to(means) - centre) @ means.T).argmin(1)
        wrong += int((nearest != y.to(nearest)).sum())
    return wrong / len(features)


def _check_classifier(
    weight: Tensor | None, bias: Tensor | None, num_classes: int, feature_dim: int
) -> tuple[Tensor | None, Tensor | None]:
    if weight is None:
        if bias is not None:
            raise ValueError("bias was given without weight: NC4 needs both")
        return None, None
    if weight.shape != (num_classes, feature_dim):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}: expected ({num_classes}, {feature_dim}), one row a class"
        )
    bias = torch.zeros(num_classes, dtype=weight.dtype, device=weight.device) if bias is None else bias
    if bias.shape != (num_classes,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}: expected ({num_classes},)")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has non-finite entries (NaN or infinity)")
    return weight.detach(), bias.detach()


def _present_classes(counts: Int[Tensor, "K"], allow_missing: bool) -> Tensor:
    empty = (counts == 0).nonzero().flatten().tolist()
    if len(empty) == len(counts):
        raise ValueError("no samples were seen: the loader or the feature file is empty")
    present = (counts > 0).nonzero().flatten()
    if len(present) < 2:
        raise ValueError(f"only class {present.tolist()[0]} has samples: collapse needs at least 2 classes")
    if empty:
        named = ", ".join(map(str, empty[:20])) + (", ..." if len(empty) > 20 else "")
        message = f"{len(empty)} of {len(counts)} classes have no samples: {named}"
        if not allow_missing:
            raise ValueError(f"{message}. Pass allow_missing=True to measure the others")
        warnings.warn(f"{message}; only the others are measured", CollapseWarning, stacklevel=3)
    single = (counts == 1).nonzero().flatten().tolist()
    if single:
        named = ", ".join(map(str, single[:20])) + (", ..." if len(single) > 20 else "")
        warnings.warn(
            f"classes with one sample have no within-class variance to measure: {named}",
            CollapseWarning,
            stacklevel=3,
        )
    return present


def _between_directions(centred: Float[Tensor, "K d"], means: Float[Tensor, "K d"]) -> Float[Tensor, "d r"]:
    """Columns u_i/s_i of the SVD of the centred means: Σ_B†/K is their outer product, of rank <= K-1.

    Directions in which the means differ by no more than float64 rounding are left out.
    """
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    rank = min(len(centred) - 1, centred.shape[1])
    singular, rows = singular[:rank], rows[:rank]
    largest = torch.linalg.vector_norm(means, dim=1).max()
    floor = max(centred.shape) * torch.finfo(torch.float64).eps * largest
    kept = singular > floor
    if not bool(kept.all()):
        warnings.warn(
            f"the class means span only {int(kept.sum())} of {rank} directions: some coincide",
            CollapseWarning,
            stacklevel=3,
        )
    return (rows[kept] / singular[kept, None]).T


def _nc1(along: float, directions: Tensor, trace: float) -> float:
    """NC1 from the within-class moment along the scaled directions; no direction left is no collapse."""
    if directions.shape[1]:
        return along
    return math.inf if trace > 0 else math.nan


def _assemble(
    nc1: float | None,
    counts: Tensor,
    traces: Tensor,
    centred: Tensor,
    global_mean: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> CollapseMetrics:
    """All measures from moments of the classes present; everything float64."""
    between = float(centred.square().sum()) / len(centred)
    nc4 = None if weight is None or bias is None else float((bias + weight @ global_mean).norm())
    scale = None if weight is None else float((weight @ centred.T).norm()) / math.sqrt(len(centred))
    within = float(counts.double() @ traces) / int(counts.sum())
    equiangularity_means, max_means = _equiangularity(centred)
    equiangularity_weights = max_weights = None
    if weight is not None:
        equiangularity_weights, max_weights = _equiangularity(weight)
    return CollapseMetrics(
        nc1=nc1,
        nc2=None if weight is None else frame_distance(weight, weight),
        nc3=None if weight is None else frame_distance(weight, centred),
        nc4=nc4,
        nc4_relative=None if nc4 is None or scale is None else _quotient(nc4, scale),
        nc2_means=frame_distance(centred, centred),
        cdnv=_cdnv(centred, traces),
        nc1_quotient=_quotient(within, between),
        equinorm_means=_variation(centred.norm(dim=1)),
        equinorm_weights=None if weight is None else _variation(weight.norm(dim=1)),
        equiangularity_means=equiangularity_means,
        equiangularity_weights=equiangularity_weights,
        max_equiangularity_means=max_means,
        max_equiangularity_weights=max_weights,
        self_duality=(
            None if weight is None else float((weight / weight.norm() - centred / centred.norm()).square().sum())
        ),
        bias_spread=None if bias is None else float(bias.std(correction=0)),
    )


def _quotient(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.inf if numerator > 0 else math.nan


def _variation(norms: Tensor) -> float:
    return _quotient(float(norms.std(correction=0)), float(norms.mean()))


def _equiangularity(vectors: Float[Tensor, "K d"]) -> tuple[float, float]:
    """Standard deviation of the pairwise cosines, and their mean distance to -1/(K-1)."""
    num_classes = len(vectors)
    units = vectors / vectors.norm(dim=1, keepdim=True)
    pairs = num_classes * (num_classes - 1)
    first = second = absolute = 0.0
    for start, block in product_rows(units, units):
        deviation = block + 1 / (num_classes - 1)  # small at collapse, so its moments keep their digits
        deviation.diagonal(start).zero_()
        first += float(deviation.sum())
        second += float(deviation.square().sum())
        absolute += float(deviation.abs().sum())
    variance = second / pairs - (first / pairs) ** 2
    return math.sqrt(max(variance, 0.0)) if variance == variance else math.nan, absolute / pairs


def _cdnv(centred: Float[Tensor, "K d"], traces: Float[Tensor, "K"]) -> float:
    """Mean over ordered pairs of (v_i + v_j) / (2 |m_i - m_j|^2)."""
    squares = centred.square().sum(1)
    total = 0.0
    for start, block in product_rows(centred, centred):
        rows = slice(start, start + len(block))
        distances = (squares[rows, None] + squares - 2 * block).clamp(min=0)
        ratio = (traces[rows, None] + traces) / (2 * distances)
        ratio.diagonal(start).zero_()
        total += float(ratio.sum())
    return total / (len(centred) * (len(centred) - 1))
