"""Moments: the frozen value that every measure of neural collapse is computed from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import (
    SAFE,
    exponent_of,
    float64_device,
    full_precision,
    row_norms,
    times_power_of_two,
)
from neuralcollapse.geometry.inputs import Rows, as_labels, as_real, check_batch, check_sizes, label_range

_CHUNK_BYTES = 8 << 20
"""Features are walked through in pieces that stay in the processor's cache."""

_NEGLIGIBLE = 1e-9
"""Share of NC1 that rounding of the projected features may reach before they are projected again in float64."""

_UNDERFLOW = 2.0**-50
"""Spread of a class below which float32 squares lose digits: it is measured again in float64."""

_MOST_INFERRED = 10_000_000
"""Largest number of classes that labels alone may imply where it exceeds the number of samples."""


@dataclass(frozen=True, eq=False)
class Moments:
    r"""Class moments of features: all that the measures need to know of them.

    Two builders give the same value: :meth:`from_features`, exact and in two passes over features in memory,
    and :meth:`neuralcollapse.ClassStatistics.moments`, in one pass over a stream. All tensors are float64 (counts
    are int64). Lengths are in units of ``scale``, a power of two that is 1 for features of ordinary size, so that
    squares neither overflow nor vanish; means and traces of a class without samples are zero.

    >>> features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> moments = Moments.from_features(features, torch.tensor([0, 0, 1, 1]))
    >>> moments.total, moments.rank, moments.means.tolist()
    (4, 1, [[1.0, 0.0], [-1.0, 0.0]])
    """

    counts: Int[Tensor, "K"]
    """Samples of each class."""
    means: Float[Tensor, "K d"]
    """Class means."""
    within_traces: Float[Tensor, "K"]
    """Trace of the covariance of each class over its own samples."""
    directions: Float[Tensor, "r d"]
    """Orthonormal between-class directions: right singular vectors of the centred means of the classes present."""
    singular_values: Float[Tensor, "r"]
    """Their singular values, largest first. Directions that are only rounding are left out."""
    within: Float[Tensor, "r r"] | None
    """Σ_W over all samples, projected on the directions. None where only traces were gathered."""
    within_balanced: Float[Tensor, "r r"] | None
    """Mean over classes of their covariances, projected likewise. None where no such sum was kept."""
    within_error: Float[Tensor, "r"]
    """Size of the rounding in the diagonal of ``within``; zero for the exact builder."""
    resolution: float
    """Machine epsilon of the coarsest features seen."""
    largest: float
    """Largest absolute entry of the features, in units of ``scale``."""
    scale: float
    """Unit of length, a power of two."""

    @property
    def total(self) -> int:
        """Samples, N."""
        return int(self.counts.sum())

    @property
    def num_classes(self) -> int:
        """K, with the classes that have no samples."""
        return len(self.counts)

    @property
    def feature_dim(self) -> int:
        """Width of the features, d."""
        return self.means.shape[1]

    @property
    def present(self) -> Int[Tensor, "P"]:
        """Indices of the classes that have samples."""
        return (self.counts > 0).nonzero().flatten()

    @property
    def global_mean(self) -> Float[Tensor, "d"]:
        """Mean of all samples h_G."""
        return self.counts.double() @ self.means / max(self.total, 1)

    @property
    def centred_means(self) -> Float[Tensor, "P d"]:
        """Means of the classes present, less the mean of these means: H̄."""
        return centred(self.means[self.present])

    @property
    def rank(self) -> int:
        """Between-class directions that exist, r."""
        return len(self.singular_values)

    @property
    def possible_rank(self) -> int:
        """Between-class directions that classes in general position have: min(P - 1, d)."""
        return max(min(int((self.counts > 0).sum()) - 1, self.feature_dim), 0)

    @classmethod
    def from_features(
        cls,
        features: Float[Tensor, "N d"] | Rows,
        labels: Int[Tensor, "N"] | Rows,
        *,
        num_classes: int | None = None,
    ) -> Moments:
        """Exact moments of features in memory, in two passes: O(NdK) time, never a d x d matrix.

        Args:
            features: N x d, any float dtype from float16 to float64; a tensor, an array or lists.
            labels: N integers in [0, K).
            num_classes: K; the largest label plus one if not given.

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        features, labels = as_real(features, "features"), as_labels(labels)
        if features.ndim != 2 or not features.numel():
            raise ValueError(f"features have shape {tuple(features.shape)}: expected (N, d), both at least 1")
        if num_classes is None:
            num_classes = inferred_classes(labels, len(features))
        num_classes, dim = check_sizes(num_classes, features.shape[1])
        largest = check_batch(features, labels, num_classes, dim)
        home = float64_device(features.device)
        with full_precision(home):
            return _two_passes(features.to(home), labels.to(home, torch.int64), num_classes, largest)


def inferred_classes(labels: Int[Tensor, "N"], samples: int) -> int:
    """K from the labels alone: the largest plus one, at least 2.

    Raises:
        ValueError: if that is absurd for so few samples.
    """
    if not labels.numel():
        return 2
    largest = label_range(labels)[1]
    if largest >= max(samples, _MOST_INFERRED):
        raise ValueError(
            f"label {largest} implies {largest + 1} classes, and there are {samples} samples: number the classes from "
            "0, or pass num_classes="
        )
    return max(largest + 1, 2)


def centred(means: Float[Tensor, "P d"]) -> Float[Tensor, "P d"]:
    """Means less their own mean."""
    return means - means.mean(0) if len(means) else means


def between_directions(
    means: Float[Tensor, "P d"], resolution: float, largest: float, smallest_class: int
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r"]]:
    """Right singular vectors and values of the centred means, less those that rounding of the features explains.

    The means of n samples that are rounded to a relative precision ε err by some ε max|x| / sqrt(n) an entry, and a
    P x d matrix of such errors has a norm of about sqrt(P) + sqrt(d) entries.
    """
    centre = centred(means)
    rank = min(len(centre) - 1, centre.shape[1])
    if rank < 1:
        return centre.new_zeros(0, centre.shape[1]), centre.new_zeros(0)
    if len(centre) > centre.shape[1]:
        centre = torch.linalg.qr(centre, mode="r").R  # the same right singular vectors, from a d x d matrix
    _, singular, rows = torch.linalg.svd(centre, full_matrices=False)
    rounding = max(resolution / math.sqrt(smallest_class), torch.finfo(torch.float64).eps)
    floor = rounding * largest * (math.sqrt(len(means)) + math.sqrt(means.shape[1]))
    kept = singular[:rank] > floor
    return rows[:rank][kept], singular[:rank][kept]


def _two_passes(features: Float[Tensor, "N d"], labels: Int[Tensor, "N"], num_classes: int, largest: float) -> Moments:
    exponent = exponent_of(largest)
    counts = torch.bincount(labels, minlength=num_classes)
    present = counts > 0
    resolution, largest = torch.finfo(features.dtype).eps, largest / 2.0**exponent
    means = _class_means(features, labels, counts, exponent)
    directions, singular = between_directions(means[present], resolution, largest, int(counts[present].min()))
    ordinary = 2.0 ** -SAFE[torch.float32] < largest < 2.0 ** SAFE[torch.float32]
    precision = torch.float32 if features.dtype != torch.float64 and ordinary else torch.float64
    found = _second_moments(features, labels, counts, means, directions, exponent, precision)
    if precision == torch.float32 and _rounded(*found, counts, singular):
        found = _second_moments(features, labels, counts, means, directions, exponent, torch.float64)
    squares, pooled, balanced = found
    return Moments(
        counts=counts,
        means=means,
        within_traces=squares / counts.clamp(min=1),
        directions=directions,
        singular_values=singular,
        within=pooled / len(features),
        within_balanced=balanced / int(present.sum()),
        within_error=torch.zeros_like(singular),
        resolution=resolution,
        largest=largest,
        scale=2.0**exponent,
    )


def _rounded(squares: Tensor, pooled: Tensor, balanced: Tensor, counts: Tensor, singular: Float[Tensor, "r"]) -> bool:
    """Whether float32 was too narrow: some class is tighter than its squares, or the projection errs too much."""
    if bool(((counts > 1) & (squares < counts * _UNDERFLOW**2)).any()):
        return True
    # A projection errs by some rounding of the whole feature, which may be much longer than its shadow.
    weights = singular.reciprocal().square()
    error = torch.finfo(torch.float32).eps ** 2 * weights.sum()
    return any(
        bool(error * total > _NEGLIGIBLE * (matrix.diagonal() @ weights))
        for total, matrix in ((squares.sum(), pooled), ((squares / counts.clamp(min=1)).sum(), balanced))
    )


def _class_means(
    features: Float[Tensor, "N d"], labels: Int[Tensor, "N"], counts: Int[Tensor, "K"], exponent: int
) -> Float[Tensor, "K d"]:
    """Class means in units of 2**exponent, summed in float64; zeros for a class without samples."""
    sums = torch.zeros(len(counts), features.shape[1], dtype=torch.float64, device=features.device)
    if features.dtype == torch.float64:  # the first of its class goes first, so that sums are no longer than spreads
        pivots = times_power_of_two(features[first_samples(labels, counts)], -exponent)
    else:
        pivots = sums  # sums of narrower numbers are exact to far below their own rounding
    for x, y in _chunks(features, labels, torch.float64):
        exact = times_power_of_two(x.double(), -exponent)
        sums.index_add_(0, y, exact - pivots[y] if pivots is not sums else exact)
    means = sums / counts.clamp(min=1)[:, None]
    return means if pivots is sums else (means + pivots) * (counts > 0)[:, None]


def _second_moments(
    features: Float[Tensor, "N d"],
    labels: Int[Tensor, "N"],
    counts: Int[Tensor, "K"],
    means: Float[Tensor, "K d"],
    directions: Float[Tensor, "r d"],
    exponent: int,
    precision: torch.dtype,
) -> tuple[Float[Tensor, "K"], Float[Tensor, "r r"], Float[Tensor, "r r"]]:
    """Sums of squares about the mean per class, and scatter along the directions: pooled, and balanced."""
    pivots, columns = means.to(precision), directions.T.to(precision)
    squares = torch.zeros(len(counts), dtype=torch.float64, device=features.device)
    pooled = torch.zeros(len(directions), len(directions), dtype=torch.float64, device=features.device)
    balanced = torch.zeros_like(pooled)
    shares = counts.clamp(min=1).double().reciprocal()
    equal = bool((counts[counts > 0] == counts.max()).all())
    roots = shares.sqrt().to(precision)
    buffer = None
    for x, y in _chunks(features, labels, precision):
        buffer = pivots.new_empty(x.shape) if buffer is None else buffer[: len(x)]
        shifted = torch.index_select(pivots, 0, y, out=buffer)
        torch.sub(times_power_of_two(x.to(precision), -exponent), shifted, out=shifted)
        norms = row_norms(shifted) if precision == torch.float64 else torch.linalg.vector_norm(shifted, dim=1).double()
        squares.index_add_(0, y, norms.square())
        projected = shifted @ columns
        pooled += projected.T @ projected
        if not equal:
            projected *= roots[y][:, None]
            balanced += projected.T @ projected
    # What rounding the pivots left over: the moments about the means are smaller by n |mean - pivot|^2.
    left_over = (means - pivots.double()) * (counts > 0)[:, None]
    squares = (squares - counts * left_over.square().sum(1)).clamp(min=0)
    shadows = left_over @ directions.T
    pooled = pooled - (counts[:, None] * shadows).T @ shadows
    balanced = pooled / counts.max() if equal else balanced - (shares * counts)[:, None].mul(shadows).T @ shadows
    for matrix in (pooled, balanced):
        matrix.diagonal().clamp_(min=0)
    return squares, pooled, balanced


def _chunks(
    features: Float[Tensor, "N d"], labels: Int[Tensor, "N"], precision: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and labels piece by piece, each of a size that stays in the cache in the given precision."""
    rows = max(1, _CHUNK_BYTES // (precision.itemsize * features.shape[1]))
    yield from zip(features.split(rows), labels.split(rows), strict=True)


def first_samples(labels: Int[Tensor, "B"], counts: Int[Tensor, "K"]) -> Int[Tensor, "K"]:
    """Index of the first sample of each class; any index for a class that is absent."""
    where = torch.arange(len(labels), device=labels.device)
    first = torch.full_like(counts, len(labels) - 1)
    return first.scatter_reduce_(0, labels, where, "amin")
