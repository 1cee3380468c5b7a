"""Moments: the frozen value that every measure of neural collapse is computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.arithmetic import float64_device, full_precision, times_power_of_two
from neuralcollapse.geometry.inputs import Rows, as_labels, as_real, check_batch, check_sizes, label_range
from neuralcollapse.geometry.ways_out import to_matrix

_PIECE_BYTES = 1 << 20
"""Features that are widened to float64 at once: they stay in the processor's nearest cache."""

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

    counts: Int[Tensor, " K"]
    """Samples of each class."""
    means: Float[Tensor, "K d"]
    """Class means."""
    within_traces: Float[Tensor, " K"]
    """Trace of the covariance of each class over its own samples."""
    directions: Float[Tensor, "r d"]
    """Orthonormal between-class directions: right singular vectors of the centred means of the classes present."""
    singular_values: Float[Tensor, " r"]
    """Their singular values, largest first. Directions that are only rounding are left out."""
    within: Float[Tensor, "r r"] | None
    """Σ_W over all samples, projected on the directions. None where only traces were gathered."""
    within_balanced: Float[Tensor, "r r"] | None
    """Mean over classes of their covariances, projected in the same way. None if no such sum was kept."""
    within_error: Float[Tensor, " r"]
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
    def present(self) -> Int[Tensor, " P"]:
        """Indices of the classes that have samples."""
        return (self.counts > 0).nonzero().flatten()

    @property
    def global_mean(self) -> Float[Tensor, " d"]:
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
        labels: Int[Tensor, " N"] | Rows,
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
            way = to_matrix(features)
            raise ValueError(f"features have shape {tuple(features.shape)}: expected (N, d), both at least 1{way}")
        if num_classes is None:
            num_classes = inferred_classes(labels, len(features))
        num_classes, dim = check_sizes(num_classes, features.shape[1])
        largest = check_batch(features, labels, num_classes, dim)
        from neuralcollapse.geometry.two_passes import two_passes

        home = float64_device(features.device)
        with full_precision(home):
            return two_passes(features.to(home), labels.to(home, torch.int64), num_classes, largest)

    @classmethod
    def from_accumulators(cls, state: Mapping[str, Tensor]) -> Moments:
        """Moments of the accumulators that :class:`neuralcollapse.ClassStatistics` holds; no NC1 from traces alone."""
        counts, means, scatter = state["counts"], state["means"], state["scatter"]
        present, total = counts > 0, max(int(counts.sum()), 1)
        unit = 2.0 ** int(state["exponent"])
        resolution, largest = float(state["resolution"]), float(state["largest"]) / unit
        smallest = int(counts[present].min()) if bool(present.any()) else 1
        # Where only traces were gathered, each coordinate may have all of the spread.
        spread = scatter.diagonal() if scatter.numel() else state["trace_sums"].sum()
        directions, singular = between_directions(means[present], resolution, largest, smallest, lambda: spread / total)
        within, error = None, torch.zeros_like(singular)
        if scatter.numel():
            within = directions @ (scatter / total) @ directions.T
            within = (within + within.T) / 2
            within.diagonal().clamp_(min=0)
            # An entry (i, j) of the scatter errs by some rounding of the product of the deviations i and j.
            error = state["rounding"] * (directions.square() @ (scatter.diagonal() / total))
        equal = bool((counts[present] == counts.max()).all())
        return cls(
            counts=counts.clone(),
            means=means.clone(),
            within_traces=state["trace_sums"] / counts.clamp(min=1),
            directions=directions,
            singular_values=singular,
            within=within,
            within_balanced=within if equal else None,
            within_error=error,
            resolution=resolution,
            largest=largest,
            scale=unit,
        )


def inferred_classes(labels: Int[Tensor, " N"], samples: int) -> int:
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
    means: Float[Tensor, "P d"],
    resolution: float,
    largest: float,
    smallest_class: int,
    variances: Callable[[], Float[Tensor, "*d"]],
) -> tuple[Float[Tensor, "r d"], Float[Tensor, " r"]]:
    """Right singular vectors and values of the centred means, less those that rounding of the features explains.

    The means of n samples that are rounded to a relative precision ε err by some ε max|x| / sqrt(n) an entry, and a
    P x d matrix of such errors has a norm of about sqrt(P) + sqrt(d) entries. Rounding is relative to each entry: a
    direction that avoids the large coordinates has less of it, but for that of our own arithmetic in float64.

    Args:
        means: of the classes that have samples.
        resolution: machine epsilon of the features.
        largest: absolute entry of the features.
        smallest_class: samples of the smallest class.
        variances: gives the pooled variance of each coordinate within classes, or one number that none exceeds. It
            is asked only where a direction is in doubt.
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
    rows, singular = rows[:rank], singular[:rank]
    kept = singular > floor
    if not bool(kept.all()):
        squares = means.square().amax(0) + variances()
        if bool(squares.any()):
            share = torch.linalg.vector_norm(rows * (squares / squares.max()).sqrt(), dim=1)
            kept = singular > floor * share.clamp(min=torch.finfo(torch.float64).eps / rounding)
    return rows[kept], singular[kept]


def first_samples(labels: Int[Tensor, " B"], counts: Int[Tensor, " K"]) -> Int[Tensor, " K"]:
    """Index of the first sample of each class; any index for a class that is absent."""
    where = torch.arange(len(labels), device=labels.device)
    first = torch.full_like(counts, len(labels) - 1)
    return first.scatter_reduce_(0, labels, where, "amin")


def class_sums(
    features: Float[Tensor, "B d"],
    labels: Int[Tensor, " B"],
    num_classes: int,
    exponent: int = 0,
    pivots: Float[Tensor, "K d"] | None = None,
) -> Float[Tensor, "K d"]:
    """Sums per class in float64 and units of 2**exponent, of the features or of what they exceed the pivots by.

    Sums of numbers narrower than float64 need no pivot: they are exact to far below the rounding of the numbers.
    """
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    rows = max(1, _PIECE_BYTES // (8 * features.shape[1]))
    buffer = sums.new_empty(min(rows, len(features)), features.shape[1])
    for x, y in zip(features.split(rows), labels.split(rows), strict=True):
        exact = buffer[: len(x)].copy_(x)
        if exponent:
            exact.copy_(times_power_of_two(exact, -exponent))
        sums.index_add_(0, y, exact if pivots is None else exact.sub_(pivots.index_select(0, y)))
    return sums
