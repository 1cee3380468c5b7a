"""Streaming, mergeable moments per class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry import storage
from neuralcollapse.geometry.arithmetic import (
    SAFE,
    exponent_of,
    float64_device,
    full_precision,
    row_norms,
    times_power_of_two,
)
from neuralcollapse.geometry.inputs import Rows, as_labels, as_real, check_batch, check_sizes
from neuralcollapse.geometry.moments import Moments, between_directions, first_samples

_BLOCK_ENTRIES = 1 << 22
"""Entries of the samples gathered before they are centred and their products added to the float64 sums."""

_PIECE = 256
"""Rows that are centred at once, so that they stay in the cache."""


class ClassStatistics:
    r"""Counts, means and within-class scatter of a stream of features, in float64 and one pass.

    Samples are gathered into blocks. Each block is centred on its own class means before any product is
    taken, and joined to what is held by Chan's formula (Chan, Golub and LeVeque 1979), whose correction
    is one more centred row per class. So no sum of squares of raw features is ever formed, and neither a
    large common offset nor deep collapse costs digits. Products run in float32 (float64 for float64
    features), sums in float64, in units of a power of two. Merging is associative and commutative up to rounding.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, at least 1.
        within: ``"full"`` keeps the pooled d x d within-class scatter, which NC1 needs;
            ``"traces"`` keeps its trace per class only, in O(Kd) memory.
        device: where the accumulators live; the host, where the device has no float64.

    Raises:
        ValueError: naming the argument, its value and the constraint.
        TypeError: if a size is no integer.

    >>> statistics = ClassStatistics(2, 1)
    >>> statistics.update(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
    >>> statistics.means.flatten().tolist(), statistics.within_traces.tolist()
    ([1.0, 5.0], [1.0, 0.0])
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        within: Literal["full", "traces"] = "full",
        device: torch.device | str | None = None,
    ) -> None:
        num_classes, feature_dim = check_sizes(num_classes, feature_dim)
        if within not in ("full", "traces"):
            raise ValueError(f"within={within!r} is unknown: choose 'full' or 'traces'")
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.within: Literal["full", "traces"] = within
        self._adopt(storage.empty_state(num_classes, feature_dim, within, float64_device(device)))

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        """Hold these accumulators and nothing else. They are replaced when they change, never written to."""
        self._counts = state["counts"]
        self._means = state["means"]
        self._trace_sums = state["trace_sums"]
        self._scatter = state["scatter"]
        self._rounding = state["rounding"]
        self._resolution = state["resolution"]
        self._largest = state["largest"]
        self._exponent = state["exponent"]
        self._block: Tensor | None = None  # samples gathered, then room for one row per class
        self._block_labels = self._counts[:0]
        self._filled = 0

    # ---- what has been gathered ------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the accumulators live."""
        return self._means.device

    @property
    def counts(self) -> Int[Tensor, "K"]:
        """Samples seen of each class, (K,)."""
        self._absorb()
        return self._counts.clone()

    @property
    def total(self) -> int:
        """Samples seen, N."""
        self._absorb()
        return int(self._counts.sum())

    @property
    def means(self) -> Float[Tensor, "K d"]:
        """Class means, (K, d); zeros for a class without samples."""
        self._absorb()
        return times_power_of_two(self._means, int(self._exponent)).clone()

    @property
    def global_mean(self) -> Float[Tensor, "d"]:
        """Mean of all samples h_G, (d,)."""
        self._absorb()
        mean = self._counts.double() @ self._means / max(self.total, 1)
        return times_power_of_two(mean, int(self._exponent))

    @property
    def balanced_mean(self) -> Float[Tensor, "d"]:
        """Mean of the means of the classes seen, (d,): h_G where classes are of equal size."""
        self._absorb()
        return times_power_of_two(self._means[self._counts > 0].mean(0), int(self._exponent))

    @property
    def within_covariance(self) -> Float[Tensor, "d d"]:
        """Σ_W over all N samples, (d, d).

        Raises:
            ValueError: if the statistics were gathered with ``within="traces"``.
        """
        if self.within != "full":
            raise ValueError("within='traces' keeps no covariance: gather with within='full'")
        self._absorb()
        return times_power_of_two(self._scatter / max(self.total, 1), 2 * int(self._exponent))

    @property
    def within_traces(self) -> Float[Tensor, "K"]:
        """Trace of the covariance of each class over its own samples, (K,)."""
        self._absorb()
        return times_power_of_two(self._trace_sums / self._counts.clamp(min=1), 2 * int(self._exponent))

    @property
    def scatter(self) -> Tensor:
        """Pooled within-class scatter N Σ_W, (d, d); (0, 0) for ``within="traces"``."""
        self._absorb()
        return times_power_of_two(self._scatter, 2 * int(self._exponent)).clone()

    @property
    def trace_sums(self) -> Float[Tensor, "K"]:
        """Sums of squared distances to the class mean, (K,)."""
        self._absorb()
        return times_power_of_two(self._trace_sums, 2 * int(self._exponent)).clone()

    @property
    def rounding(self) -> float:
        """Relative precision of the coarsest products gathered: some 1e-7 after float32 features, 0 before any."""
        self._absorb()
        return float(self._rounding)

    def moments(self) -> Moments:
        """What the measures are computed from; NC1 included only where ``within="full"``."""
        self._absorb()
        with full_precision(self.device):
            present = self._counts > 0
            unit = 2.0 ** int(self._exponent)
            resolution, largest = float(self._resolution), float(self._largest) / unit
            smallest = int(self._counts[present].min()) if bool(present.any()) else 1
            directions, singular = between_directions(self._means[present], resolution, largest, smallest)
            total = max(self.total, 1)
            within, error = None, torch.zeros_like(singular)
            if self.within == "full":
                within = directions @ (self._scatter / total) @ directions.T
                within = (within + within.T) / 2
                # An entry (i, j) of the scatter errs by some rounding of the product of the deviations i and j.
                error = self._rounding * (directions.square() @ (self._scatter.diagonal() / total))
                within.diagonal().clamp_(min=0)
            equal = bool((self._counts[present] == self._counts.max()).all())
            return Moments(
                counts=self._counts.clone(),
                means=self._means.clone(),
                within_traces=self._trace_sums / self._counts.clamp(min=1),
                directions=directions,
                singular_values=singular,
                within=within,
                within_balanced=within if equal else None,
                within_error=error,
                resolution=resolution,
                largest=largest,
                scale=unit,
            )

    # ---- gathering -------------------------------------------------------------------------------

    def update(self, features: Float[Tensor, "B d"] | Rows, labels: Int[Tensor, "B"] | Rows) -> None:
        """Add a batch of features (any dtype from float16 to float64) and their integer labels in [0, K).

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        features, labels = as_real(features, "features"), as_labels(labels)
        largest = check_batch(features, labels, self.num_classes, self.feature_dim)
        if not len(features):
            return
        with full_precision(self.device):
            self._resolution = self._resolution.clamp(min=torch.finfo(features.dtype).eps)
            self._largest = self._largest.clamp(min=largest)
            self._gather(features, labels, _block_dtype(features.dtype, largest))

    def _gather(self, features: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        wide_enough = self._filled > 0 and dtype == torch.float32  # a float64 block that is open takes these too
        if self._block is None or (self._block.dtype != dtype and not wide_enough):
            self._absorb()
            capacity = max(_BLOCK_ENTRIES // self.feature_dim, 4 * self.num_classes, 1024)
            self._block = self._means.new_empty(capacity + self.num_classes, self.feature_dim, dtype=dtype)
            self._block_labels = self._counts.new_empty(capacity)
        while len(features):
            block, held = self._block, self._block_labels
            assert block is not None
            piece = slice(self._filled, min(self._filled + len(features), len(held)))
            taken = piece.stop - piece.start
            block[piece] = features[:taken]
            held[piece] = labels[:taken]
            self._filled, features, labels = piece.stop, features[taken:], labels[taken:]
            if self._filled == len(held):
                self._absorb()

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Add what another instance has gathered (Chan's formula); returns self. The other stays as it is.

        Raises:
            ValueError: if the two differ in classes, feature dimension or ``within``.
            TypeError: if the other is no ClassStatistics.
        """
        if not isinstance(other, ClassStatistics):
            raise TypeError(f"statistics merge with ClassStatistics, not with a {type(other).__name__}")
        for name in ("num_classes", "feature_dim", "within"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"statistics with {name}={ours!r} cannot merge with {name}={theirs!r}")
        self._absorb()
        other._absorb()
        with full_precision(self.device):
            state = {name: tensor.to(self.device) for name, tensor in other.state(copy=False).items()}
            self._resolution = torch.maximum(self._resolution, state["resolution"])
            self._largest = torch.maximum(self._largest, state["largest"])
            self._rounding = torch.maximum(self._rounding, state["rounding"])
            step = self._rescale() - int(state["exponent"])  # from the other's unit to ours
            corrections = self._join(
                state["counts"],
                times_power_of_two(state["means"], -step),
                times_power_of_two(state["trace_sums"], -2 * step),
            )
            if self.within == "full":
                scatter = times_power_of_two(state["scatter"], -2 * step)
                self._scatter = self._scatter + scatter + corrections.T @ corrections
        return self

    def _absorb(self) -> None:
        """Turn the samples gathered so far into moments."""
        if self._block is None or not self._filled:
            return
        with full_precision(self.device):
            block = self._block[: self._filled + self.num_classes]
            rows, corrections = block[: self._filled], block[self._filled :]
            labels = self._block_labels[: self._filled]
            self._filled = 0
            exponent = self._rescale()
            if exponent:
                rows.copy_(times_power_of_two(rows, -exponent))
            counts = torch.bincount(labels, minlength=self.num_classes)
            means = centre_classes(rows, labels, counts)
            norms = row_norms(rows)
            traces = torch.zeros_like(self._trace_sums).index_add_(0, labels, norms.square())
            joint = self._join(counts, means, traces)
            self._rounding = self._rounding.clamp(min=torch.finfo(block.dtype).eps)
            if self.within == "full":
                corrections.copy_(joint)
                longest = max(float(norms.max()), float(joint.abs().max()))
                self._scatter = self._scatter + _gram(block, longest)

    def _rescale(self) -> int:
        """Express the accumulators in the unit that fits the largest feature seen; returns its exponent."""
        exponent, held = exponent_of(float(self._largest)), int(self._exponent)
        if exponent != held:
            self._means = times_power_of_two(self._means, held - exponent)
            self._trace_sums = times_power_of_two(self._trace_sums, 2 * (held - exponent))
            self._scatter = times_power_of_two(self._scatter, 2 * (held - exponent))
            self._exponent = torch.full_like(self._exponent, exponent)
        return exponent

    def _join(self, counts: Tensor, means: Tensor, traces: Tensor) -> Tensor:
        """Chan's formula; returns the rows (K, d) whose scatter the pooled scatter still has to gain."""
        both = self._counts + counts
        delta = means - self._means
        share = counts / both.clamp(min=1).double()
        corrections = (self._counts.double() * share).sqrt()[:, None] * delta
        self._trace_sums = self._trace_sums + traces + corrections.square().sum(1)
        self._means = self._means + share[:, None] * delta
        self._counts = both
        return corrections

    # ---- files and copies ------------------------------------------------------------------------

    def state(self, *, copy: bool = True) -> dict[str, Tensor]:
        """Accumulators as tensors by name, from which :meth:`from_state` builds the same statistics.

        Without ``copy`` they are the accumulators themselves, to read and never to write.
        """
        self._absorb()
        held = {name: getattr(self, f"_{name}") for name in storage.SHAPES}
        return {name: tensor.clone() for name, tensor in held.items()} if copy else held

    def state_dict(self) -> dict[str, Tensor]:
        """The same as :meth:`state`, under the name that PyTorch's checkpoints use."""
        return self.state()

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Replace what has been gathered by a copy of a saved state.

        Raises:
            ValueError: if the state is of other sizes, or no state of class statistics.
        """
        storage.check_state(state_dict)
        found = storage.sizes(state_dict)
        if found != (self.num_classes, self.feature_dim, self.within):
            raise ValueError(
                "the state has num_classes={}, feature_dim={}, within={!r}, ".format(*found)
                + f"and these statistics {self.num_classes}, {self.feature_dim}, {self.within!r}"
            )
        self._adopt(storage.copied(state_dict, self.device))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ClassStatistics:
        """Rebuild from :meth:`state`. The tensors are copied.

        Raises:
            ValueError: if a tensor is missing, shapes disagree, or the numbers are no statistics.
        """
        storage.check_state(state)
        return cls.around(storage.copied(state, float64_device(state["means"].device)))

    @classmethod
    def around(cls, state: Mapping[str, Tensor]) -> ClassStatistics:
        """Statistics that hold these very tensors, unchecked and without a copy; updates replace them."""
        self = cls.__new__(cls)
        self.num_classes, self.feature_dim, self.within = storage.sizes(state)
        self._adopt(state)
        return self

    def to(self, device: torch.device | str) -> ClassStatistics:
        """A copy on another device, or on the host where that device has no float64."""
        return self.around(storage.copied(self.state(copy=False), float64_device(device)))

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file. An interrupted write leaves the file that was there."""
        storage.save_state(self.state(copy=False), path)

    @classmethod
    def load(cls, path: str | Path) -> ClassStatistics:
        """Read what :meth:`save` wrote. No code is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a file of class statistics.
        """
        return cls.from_state(storage.load_state(path))

    def __repr__(self) -> str:
        return (
            f"ClassStatistics(num_classes={self.num_classes}, feature_dim={self.feature_dim}, "
            f"within={self.within!r}, total={self.total})"
        )


def _block_dtype(dtype: torch.dtype, largest: float) -> torch.dtype:
    """Precision of the products: float32 for float32 and narrower features of ordinary size, else float64."""
    low, high = 2.0 ** -SAFE[torch.float32], 2.0 ** SAFE[torch.float32]
    return torch.float32 if dtype != torch.float64 and (low < largest < high or largest == 0) else torch.float64


def _gram(rows: Float[Tensor, "B d"], longest: float) -> Float[Tensor, "d d"]:
    """``rows.T @ rows`` in float64, from products in the precision of the rows; tiny rows are scaled first."""
    exponent = 0
    if 0 < longest < 2.0 ** (-SAFE[rows.dtype] // 2):
        exponent = math.frexp(longest)[1]
        rows = times_power_of_two(rows, -exponent)
    return times_power_of_two((rows.T @ rows).double(), 2 * exponent)


def centre_classes(
    rows: Float[Tensor, "B d"], labels: Int[Tensor, "B"], counts: Int[Tensor, "K"]
) -> Float[Tensor, "K d"]:
    """Subtract its class mean from each row, in place; return the means (K, d) in float64.

    The means are summed in float64. Float32 rows lose the rounded mean first and what rounding left of it then.
    """
    pivots = rows[first_samples(labels, counts)].double()
    sums = torch.zeros_like(pivots)
    for x, y in zip(rows.split(_PIECE), labels.split(_PIECE), strict=True):
        sums.index_add_(0, y, x.double() - pivots.index_select(0, y) if rows.dtype == torch.float64 else x.double())
    means = sums / counts.clamp(min=1)[:, None]
    if rows.dtype == torch.float64:
        means = means + pivots
    means = means * (counts > 0)[:, None]
    rounded = means.to(rows.dtype)
    _subtract(rows, labels, rounded)
    if rows.dtype != torch.float64:
        _subtract(rows, labels, (means - rounded.double()).to(rows.dtype))
    return means


def _subtract(rows: Tensor, labels: Tensor, per_class: Tensor) -> None:
    """Subtract the row of its class from each row, in place, in pieces that stay in the cache."""
    for x, y in zip(rows.split(_PIECE), labels.split(_PIECE), strict=True):
        x.sub_(per_class.index_select(0, y))
