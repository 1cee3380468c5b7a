"""Streaming, mergeable moments per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry import storage
from neuralcollapse.geometry.accumulators import Accumulators
from neuralcollapse.geometry.arithmetic import exponent_of, float64_device, full_precision, times_power_of_two
from neuralcollapse.geometry.block import SampleBlock, block_dtype
from neuralcollapse.geometry.inputs import Rows, as_labels, as_real, check_batch, check_sizes


class ClassStatistics(Accumulators):
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
        super()._adopt(state)
        self._block: SampleBlock | None = None  # samples that are not in the accumulators yet

    # ---- gathering -------------------------------------------------------------------------------

    def update(self, features: Float[Tensor, "B d"] | Rows, labels: Int[Tensor, " B"] | Rows) -> None:
        """Add a batch of features (any dtype from float16 to float64) and their integer labels in [0, K).

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        if self.device.type == "meta":
            raise ValueError("these statistics lie on the meta device, which holds no numbers: pass another as device=")
        features, labels = as_real(features, "features"), as_labels(labels)
        largest = check_batch(features, labels, self.num_classes, self.feature_dim)
        if not len(features):
            return
        dtype = block_dtype(features.dtype, largest)
        if self._block is None or not self._block.takes(dtype):
            self._absorb()
            with full_precision(self.device):
                self._block = SampleBlock(self.num_classes, self.feature_dim, dtype, self.device)
        self._block.note(torch.finfo(features.dtype).eps, largest)
        while len(features):
            taken = self._block.take(features, labels)
            features, labels = features[taken:], labels[taken:]
            if self._block.full:
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
            if corrections is not None:
                scatter = times_power_of_two(state["scatter"], -2 * step)
                self._scatter = self._scatter + scatter + corrections.T @ corrections
        return self

    def _absorb(self) -> None:
        """Turn the samples gathered so far into moments."""
        block = self._block
        if block is None or not block.filled:
            return
        with full_precision(self.device):
            self._resolution = self._resolution.clamp(min=block.resolution)
            self._largest = self._largest.clamp(min=block.largest)
            corrections = self._join(*block.centre(self._rescale()))
            self._rounding = self._rounding.clamp(min=torch.finfo(block.rows.dtype).eps)
            if corrections is not None:
                self._scatter = self._scatter + block.scatter(corrections)
            block.filled = 0

    def _rescale(self) -> int:
        """Express the accumulators in the unit that fits the largest feature seen; returns its exponent."""
        exponent, held = exponent_of(float(self._largest)), int(self._exponent)
        if exponent != held:
            self._means = times_power_of_two(self._means, held - exponent)
            self._trace_sums = times_power_of_two(self._trace_sums, 2 * (held - exponent))
            self._scatter = times_power_of_two(self._scatter, 2 * (held - exponent))
            self._exponent = torch.full_like(self._exponent, exponent)
        return exponent

    def _join(self, counts: Tensor, means: Tensor, traces: Tensor) -> Tensor | None:
        """Chan's formula; returns the rows (K, d) whose scatter the pooled scatter still has to gain, if there is one.

        With many classes a K x d matrix is large: no more of them are made than are needed.
        """
        both = self._counts + counts
        delta = means - self._means
        share = counts / both.clamp(min=1).double()
        weights = self._counts.double() * share
        self._trace_sums = self._trace_sums + traces + weights * torch.linalg.vector_norm(delta, dim=1).square()
        corrections = weights.sqrt()[:, None] * delta if self.within == "full" else None
        self._means = delta.mul_(share[:, None]).add_(self._means)
        self._counts = both
        return corrections

    # ---- files and copies ------------------------------------------------------------------------

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
        """A copy on another device, or on the host if that device has no float64.

        Raises:
            ValueError: for the meta device, which holds no numbers.
        """
        if torch.device(device).type == "meta":
            raise ValueError("the meta device holds no numbers: statistics cannot move there")
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


def total_covariance(statistics: ClassStatistics) -> tuple[Float[Tensor, "d d"], int]:
    """Covariance of all features seen in units of 4**e, and e: as they are held, so that no square overflows.

    Args:
        statistics: with ``within="full"``.
    """
    state = statistics.state(copy=False)
    counts, means = state["counts"].to(state["means"]), state["means"]
    shares = counts / counts.sum()
    centred = (means - shares @ means) * shares.sqrt()[:, None]
    return state["scatter"] / counts.sum() + centred.T @ centred, int(state["exponent"])
