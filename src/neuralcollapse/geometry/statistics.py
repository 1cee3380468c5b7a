"""Streaming, mergeable moments per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_FLUSH_ROWS = 1024
"""Centred rows gathered before one product adds them to the float64 scatter."""


class ClassStatistics:
    r"""Counts, means and within-class scatter of a stream of features, in float64 and one pass.

    Each batch is centred on its own class means before any product is taken, and joined to what is
    held by Chan's formula (Chan, Golub and LeVeque 1979), whose correction is one more centred row a
    class. So no sum of squares of raw features is ever formed, and neither a large common offset nor
    deep collapse costs digits. Products run in float32 (float64 for float64 features), sums in float64.
    Merging is associative and commutative up to rounding.

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
        self._pending: list[Tensor] = []
        self._pending_rows = 0

    # ---- what has been gathered ------------------------------------------------------------------

    @property
    def counts(self) -> Int[Tensor, "K"]:
        """Samples seen of each class, (K,)."""
        return self._counts

    @property
    def total(self) -> int:
        """Samples seen, N."""
        return int(self._counts.sum())

    @property
    def means(self) -> Float[Tensor, "K d"]:
        """Class means, (K, d); zeros for a class without samples."""
        return self._means

    @property
    def global_mean(self) -> Float[Tensor, "d"]:
        """Mean of all samples h_G, (d,)."""
        return self._counts.double() @ self._means / max(self.total, 1)

    @property
    def balanced_mean(self) -> Float[Tensor, "d"]:
        """Mean of the means of the classes seen, (d,): h_G where classes are of equal size."""
        return self._means[self._counts > 0].mean(0)

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
        return self._trace_sums / self._counts.clamp(min=1)

    @property
    def scatter(self) -> Tensor:
        """Pooled within-class scatter N Σ_W, (d, d); (0, 0) for ``within="traces"``."""
        if self._pending:
            rows = torch.cat(self._pending)
            self._scatter += rows.T @ rows
            self._pending, self._pending_rows = [], 0
        return self._scatter

    # ---- gathering -------------------------------------------------------------------------------

    @torch.no_grad()
    def update(self, features: Float[Tensor, "B d"], labels: Int[Tensor, "B"]) -> None:
        """Add a batch of features (any float dtype) and their integer labels in [0, K).

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        check_batch(features, labels, self.num_classes, self.feature_dim)
        if not len(labels):
            return
        device = self._means.device
        features, labels = features.to(device), labels.to(device)
        counts = torch.bincount(labels, minlength=self.num_classes)
        exact = features.double()
        means = class_means(exact, labels, counts)
        centred = (exact - means[labels]).to(working_dtype(features))
        squares = centred.square().sum(1).double()
        traces = torch.zeros_like(self._trace_sums).index_add_(0, labels, squares)
        rows = centred if self.within == "full" else centred[:0]
        self._join(counts, means, traces, rows)

    def merge(self, other: ClassStatistics) -> Self:
        """Add what another instance has gathered (Chan's formula); returns self.

        Raises:
            ValueError: if the two differ in classes, feature dimension or ``within``.
        """
        for name in ("num_classes", "feature_dim", "within"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"statistics with {name}={ours!r} cannot merge with {name}={theirs!r}")
        device = self._means.device
        self._scatter = self.scatter + other.scatter.to(device)
        rows = self._means[:0]
        self._join(
            other._counts.to(device), other._means.to(device), other._trace_sums.to(device), rows
        )
        return self

    def _join(self, counts: Tensor, means: Tensor, traces: Tensor, rows: Tensor) -> None:
        """Chan's formula: the pooled scatter grows by ``rows`` and a correction row a class."""
        both = self._counts + counts
        delta = means - self._means
        share = counts / both.clamp(min=1).double()
        corrections = (self._counts.double() * share).sqrt()[:, None] * delta
        self._trace_sums = self._trace_sums + traces + corrections.square().sum(1)
        self._means = self._means + share[:, None] * delta
        self._counts = both
        if self.within == "full":
            seen = corrections[(counts > 0) & (both > counts)]
            self._add_rows([rows, seen.to(rows.dtype)])

    def _add_rows(self, parts: Sequence[Tensor]) -> None:
        if self._pending and parts[0].dtype != self._pending[0].dtype:
            _ = self.scatter
        self._pending.extend(part for part in parts if len(part))
        self._pending_rows += sum(len(part) for part in parts)
        if self._pending_rows >= _FLUSH_ROWS:
            _ = self.scatter

    # ---- files and copies ------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Accumulators as tensors: counts, means, trace_sums, scatter."""
        return {
            "counts": self._counts,
            "means": self._means,
            "trace_sums": self._trace_sums,
            "scatter": self.scatter,
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Rebuild from :meth:`state`; the tensors are not copied.

        Raises:
            ValueError: if a tensor is missing or shapes disagree.
        """
        missing = {"counts", "means", "trace_sums", "scatter"} - set(state)
        if missing:
            raise ValueError(f"the state lacks {sorted(missing)}")
        num_classes, feature_dim = state["means"].shape
        within: Literal["full", "traces"] = "full" if state["scatter"].numel() else "traces"
        self = cls(num_classes, feature_dim, within=within, device=state["means"].device)
        for name, tensor in self.state().items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
            setattr(self, f"_{name}", state[name].to(tensor.dtype))
        return self

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file."""
        tensors = {name: tensor.contiguous() for name, tensor in self.state().items()}
        save_file(tensors, str(path), metadata={"format": "neuralcollapse.ClassStatistics"})

    @classmethod
    def load(cls, path: str | Path) -> Self:
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


def class_means(
    features: Float[Tensor, "B d"], labels: Int[Tensor, "B"], counts: Int[Tensor, "K"]
) -> Float[Tensor, "K d"]:
    """Mean of each class in float64; zeros for a class that is absent."""
    one_hot = torch.nn.functional.one_hot(labels.long(), len(counts)).T.double()
    return one_hot @ features.double() / counts.clamp(min=1)[:, None]


def check_batch(features: Tensor, labels: Tensor, num_classes: int, feature_dim: int) -> None:
    """Refuse a batch that would give a wrong number.

    Raises:
        ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
        TypeError: if features are not floating point or labels not integers.
    """
    if features.ndim != 2 or features.shape[1] != feature_dim:
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (B, {feature_dim})")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}: expected ({len(features)},), one label a feature"
        )
    if not features.is_floating_point():
        raise TypeError(f"features have dtype {features.dtype}: expected a floating point dtype")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels have dtype {labels.dtype}: expected integers in [0, {num_classes})")
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range: labels must lie in [0, {num_classes})")
    # A sum is finite only if each part is: one cheap pass decides for almost every batch.
    if not bool(features.sum(dtype=torch.float32).isfinite()) and not bool(features.isfinite().all()):
        bad = int((~features.isfinite()).any(1).sum())
        raise ValueError(f"features hold NaN or infinity in {bad} of {len(features)} samples")
