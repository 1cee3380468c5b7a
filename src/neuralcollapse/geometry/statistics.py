"""Streaming, mergeable moments per class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_BLOCK_ENTRIES = 1 << 22
"""Entries of the samples gathered before they are centred and their products added to the float64 sums."""


class ClassStatistics:
    r"""Counts, means and within-class scatter of a stream of features, in float64 and one pass.

    Samples are gathered into blocks. Each block is centred on its own class means before any product is
    taken, and joined to what is held by Chan's formula (Chan, Golub and LeVeque 1979), whose correction
    is one more centred row a class. So no sum of squares of raw features is ever formed, and neither a
    large common offset nor deep collapse costs digits. Products run in float32 (float64 for float64
    features), sums in float64. Merging is associative and commutative up to rounding.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, at least 1.
        within: ``"full"`` keeps the pooled d x d within-class scatter, which NC1 needs;
            ``"traces"`` keeps its trace per class only, in O(Kd) memory.
        device: where the accumulators live (they need float64).

    Raises:
        ValueError: naming the argument, its value and the constraint.

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
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: collapse is defined for at least 2 classes")
        if feature_dim < 1:
            raise ValueError(f"feature_dim={feature_dim} must be at least 1")
        if within not in ("full", "traces"):
            raise ValueError(f"within={within!r} is unknown: choose 'full' or 'traces'")
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.within: Literal["full", "traces"] = within
        self._counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._means = torch.zeros(num_classes, feature_dim, dtype=torch.float64, device=device)
        self._trace_sums = torch.zeros(num_classes, dtype=torch.float64, device=device)
        side = feature_dim if within == "full" else 0
        self._scatter = torch.zeros(side, side, dtype=torch.float64, device=device)
        self._rounding = torch.zeros((), dtype=torch.float64, device=device)
        self._block: Tensor | None = None  # samples gathered, then room for a row a class
        self._block_labels = self._counts[:0]
        self._filled = 0

    # ---- what has been gathered ------------------------------------------------------------------

    @property
    def counts(self) -> Int[Tensor, "K"]:
        """Samples seen of each class, (K,)."""
        self._absorb()
        return self._counts

    @property
    def total(self) -> int:
        """Samples seen, N."""
        return int(self.counts.sum())

    @property
    def means(self) -> Float[Tensor, "K d"]:
        """Class means, (K, d); zeros for a class without samples."""
        self._absorb()
        return self._means

    @property
    def global_mean(self) -> Float[Tensor, "d"]:
        """Mean of all samples h_G, (d,)."""
        return self.counts.double() @ self.means / max(self.total, 1)

    @property
    def balanced_mean(self) -> Float[Tensor, "d"]:
        """Mean of the means of the classes seen, (d,): h_G where classes are of equal size."""
        return self.means[self.counts > 0].mean(0)

    @property
    def within_covariance(self) -> Float[Tensor, "d d"]:
        """Σ_W over all N samples, (d, d).

        Raises:
            ValueError: if the statistics were gathered with ``within="traces"``.
        """
        if self.within != "full":
            raise ValueError("within='traces' keeps no covariance: gather with within='full'")
        return self.scatter / max(self.total, 1)

    @property
    def within_traces(self) -> Float[Tensor, "K"]:
        """Trace of the covariance of each class over its own samples, (K,)."""
        return self.trace_sums / self.counts.clamp(min=1)

    @property
    def scatter(self) -> Tensor:
        """Pooled within-class scatter N Σ_W, (d, d); (0, 0) for ``within="traces"``."""
        self._absorb()
        return self._scatter

    @property
    def trace_sums(self) -> Float[Tensor, "K"]:
        """Sums of squared distances to the class mean, (K,)."""
        self._absorb()
        return self._trace_sums

    @property
    def rounding(self) -> float:
        """Relative precision of the coarsest products gathered: some 1e-7 after float32 features, 0 before any."""
        self._absorb()
        return float(self._rounding)

    # ---- gathering -------------------------------------------------------------------------------

    @torch.no_grad()
    def update(self, features: Float[Tensor, "B d"], labels: Int[Tensor, "B"]) -> None:
        """Add a batch of features (any float dtype) and their integer labels in [0, K).

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        check_batch(features, labels, self.num_classes, self.feature_dim)
        dtype = working_dtype(features)
        if self._block is None or self._block.dtype != dtype:
            self._absorb()
            capacity = max(_BLOCK_ENTRIES // self.feature_dim, 4 * self.num_classes, 1024)
            self._block = self._means.new_empty(capacity + self.num_classes, self.feature_dim, dtype=dtype)
            self._block_labels = self._counts.new_empty(capacity)
        while len(features):
            piece = slice(self._filled, min(self._filled + len(features), len(self._block_labels)))
            taken = piece.stop - piece.start
            self._block[piece] = features[:taken]
            self._block_labels[piece] = labels[:taken]
            self._filled, features, labels = piece.stop, features[taken:], labels[taken:]
            if self._filled == len(self._block_labels):
                self._absorb()

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Add what another instance has gathered (Chan's formula); returns self.

        Raises:
            ValueError: if the two differ in classes, feature dimension or ``within``.
        """
        for name in ("num_classes", "feature_dim", "within"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"statistics with {name}={ours!r} cannot merge with {name}={theirs!r}")
        self._absorb()
        state = {name: tensor.to(self._means.device) for name, tensor in other.state().items()}
        corrections = self._join(state["counts"], state["means"], state["trace_sums"])
        self._rounding = torch.maximum(self._rounding, state["rounding"])
        if self.within == "full":
            self._scatter = self._scatter + state["scatter"] + corrections.T @ corrections
        return self

    @torch.no_grad()
    def _absorb(self) -> None:
        """Turn the samples gathered so far into moments."""
        if self._block is None or not self._filled:
            return
        block = self._block[: self._filled + self.num_classes]
        rows, corrections = block[: self._filled], block[self._filled :]
        labels = self._block_labels[: self._filled]
        self._filled = 0
        counts = torch.bincount(labels, minlength=self.num_classes)
        means = centre_classes(rows, labels, counts)
        squares = torch.linalg.vector_norm(rows, dim=1).double().square()
        traces = torch.zeros_like(self._trace_sums).index_add_(0, labels, squares)
        corrections.copy_(self._join(counts, means, traces))
        self._rounding = self._rounding.clamp(min=torch.finfo(block.dtype).eps)
        if self.within == "full":
            self._scatter += block.T @ block

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

    def state(self) -> dict[str, Tensor]:
        """Accumulators as tensors: counts, means, trace_sums, scatter, rounding."""
        return {
            "counts": self.counts,
            "means": self.means,
            "trace_sums": self.trace_sums,
            "scatter": self.scatter,
            "rounding": self._rounding,
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> ClassStatistics:
        """Rebuild from :meth:`state`; the tensors are not copied.

        Raises:
            ValueError: if a tensor is missing or shapes disagree.
        """
        missing = {"counts", "means", "trace_sums", "scatter", "rounding"} - set(state)
        if missing:
            raise ValueError(f"the state lacks {sorted(missing)}")
        num_classes, feature_dim = state["means"].shape
        self = cls(num_classes, feature_dim, within="traces", device=state["means"].device)  # no scatter to throw away
        if state["scatter"].numel():
            self.within = "full"
        expected = {name: tensor.shape for name, tensor in self.state().items()}
        if self.within == "full":
            expected["scatter"] = torch.Size((feature_dim, feature_dim))
        for name, shape in expected.items():
            if state[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(shape)}")
            setattr(self, f"_{name}", state[name].to(getattr(self, f"_{name}").dtype))
        return self

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file."""
        tensors = {name: tensor.contiguous() for name, tensor in self.state().items()}
        save_file(tensors, str(path), metadata={"format": "neuralcollapse.ClassStatistics"})

    @classmethod
    def load(cls, path: str | Path) -> ClassStatistics:
        """Read what :meth:`save` wrote. No code is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a file of class statistics.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                return cls.from_state({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error

    def __repr__(self) -> str:
        return (
            f"ClassStatistics(num_classes={self.num_classes}, feature_dim={self.feature_dim}, "
            f"within={self.within!r}, total={self.total})"
        )


def working_dtype(features: Tensor) -> torch.dtype:
    """Precision of the products: float64 for float64 features, float32 for all narrower ones."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def centre_classes(
    features: Float[Tensor, "B d"], labels: Int[Tensor, "B"], counts: Int[Tensor, "K"]
) -> Float[Tensor, "K d"]:
    """Subtract its class mean from each row, in place; return the means (K, d) in float64.

    The first sample of a class goes first: a float32 sum of what is left errs by some 1e-6 of the
    spread within the class, however large the mean.
    """
    pivots = features[first_samples(labels, counts)]
    _subtract(features, labels, pivots)
    sizes = counts.clamp(min=1).to(features.dtype)[:, None]
    steps = torch.zeros_like(pivots).index_add_(0, labels, features) / sizes
    _subtract(features, labels, steps)
    return (pivots.double() + steps.double()) * (counts > 0)[:, None]


def _subtract(features: Tensor, labels: Tensor, rows: Tensor) -> None:
    """Subtract the row of its class from each feature, in place, in pieces that stay in the cache."""
    for x, y in zip(features.split(256), labels.split(256), strict=True):
        x.sub_(rows.index_select(0, y))


def first_samples(labels: Int[Tensor, "B"], counts: Int[Tensor, "K"]) -> Int[Tensor, "K"]:
    """Index of the first sample of each class; any index for a class that is absent."""
    where = torch.arange(len(labels), device=labels.device)
    first = torch.full_like(counts, len(labels) - 1)
    return first.scatter_reduce_(0, labels, where, "amin")


def check_batch(features: Tensor, labels: Tensor, num_classes: int, feature_dim: int) -> None:
    """Refuse a batch that would give a wrong number.

    Raises:
        ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
        TypeError: if features are not floating point or labels not integers.
    """
    if features.ndim != 2 or features.shape[1] != feature_dim:
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (B, {feature_dim})")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels have shape {tuple(labels.shape)}: expected ({len(features)},), one label a feature")
    if not features.is_floating_point():
        raise TypeError(f"features have dtype {features.dtype}: expected a floating point dtype")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels have dtype {labels.dtype}: expected integers in [0, {num_classes})")
    if not len(labels):
        return
    low, high = (int(bound) for bound in labels.long().aminmax())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range: labels must lie in [0, {num_classes})")
    # A sum is finite only if each part is: one cheap pass decides for almost every batch.
    if not bool(features.sum(dtype=torch.float32).isfinite()) and not bool(features.isfinite().all()):
        bad = int((~features.isfinite()).any(1).sum())
        raise ValueError(f"features hold NaN or infinity in {bad} of {len(features)} samples")
