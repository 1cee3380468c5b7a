"""Features of a pass: held on the host while they fit, and streamed into class statistics from then on."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralcollapse.geometry import ClassStatistics
from neuralcollapse.geometry.arithmetic import float64_device
from neuralcollapse.geometry.inputs import check_batch, label_range
from neuralcollapse.geometry.moments import Moments, inferred_classes
from neuralcollapse.measurement.ranks import Ranks


class Budget:
    """Bytes that may still be held; shared by those who hold."""

    def __init__(self, left: int) -> None:
        self.left = left


class Gathered:
    """The features of one layer.

    Args:
        budget: how much may be held.
        num_classes: K; None to take it from the labels at the end.
        scatter: bytes that d x d sums may take; None for as many as they need. Without room for it, a layer keeps
            traces alone, from which NC1 does not follow.
    """

    def __init__(self, budget: Budget, num_classes: int | None = None, scatter: Budget | None = None) -> None:
        self._scatter = scatter
        self.budget = budget
        self.num_classes = num_classes
        self.width: int | None = None
        self.largest_label = -1
        self.samples = 0
        self.statistics: ClassStatistics | None = None
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._bytes = 0

    @property
    def held(self) -> bool:
        """Whether all features seen are at hand."""
        return self.statistics is None

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take a batch.

        Raises:
            ValueError: if a label is out of range, a feature is not finite, or the width changes.
        """
        self.width = features.shape[1] if self.width is None else self.width
        classes = self.num_classes if self.num_classes is not None else 1 << 62
        check_batch(features, labels, classes, self.width)
        self.largest_label = max(self.largest_label, label_range(labels)[1])
        self.samples += len(labels)
        if self.statistics is None and features.nbytes <= self.budget.left:
            self._parts.append((features.cpu(), labels.cpu()))
            self.budget.left -= features.nbytes
            self._bytes += features.nbytes
            return
        self._stream(features.device)
        self._update(features, labels)

    def tensors(self) -> tuple[Tensor, Tensor] | None:
        """Features and labels on the host; None where they were too many, or there were none."""
        if not self._parts:
            return None
        if len(self._parts) > 1:
            features, labels = (torch.cat(column) for column in zip(*self._parts, strict=True))
            self._parts = [(features, labels)]
        return self._parts[0]

    def moments(self, ranks: Ranks, width: int, num_classes: int) -> tuple[Moments, ClassStatistics | None]:
        """Moments over all ranks: exact from what is held, or from merged statistics, which are returned too."""
        held = self.tensors()
        if ranks.alone and held is not None:
            return Moments.from_features(*held, num_classes=num_classes), None
        self.num_classes, self.width = num_classes, width
        self._stream(torch.device("cpu") if held is None else held[0].device)
        assert self.statistics is not None
        merged = ranks.merge(self._widened(self.statistics, num_classes))
        return merged.moments(), merged

    def _stream(self, device: torch.device) -> None:
        """Go over from holding to streaming; what is held stays readable through :meth:`tensors`' last answer."""
        if self.statistics is not None:
            return
        classes = self.num_classes if self.num_classes is not None else classes_of(self.largest_label, self.samples)
        width = int(self.width or 1)
        full = self._scatter is None or 8 * width**2 <= self._scatter.left
        if full and self._scatter is not None:
            self._scatter.left -= 8 * width**2
        self.statistics = ClassStatistics(
            classes, width, within="full" if full else "traces", device=float64_device(device)
        )
        for features, labels in self._parts:
            self.statistics.update(features, labels)
        self._parts = []
        self.budget.left += self._bytes
        self._bytes = 0

    def _update(self, features: Tensor, labels: Tensor) -> None:
        assert self.statistics is not None
        if self.largest_label >= self.statistics.num_classes:
            self.statistics = self._widened(self.statistics, classes_of(self.largest_label, self.samples))
        self.statistics.update(features, labels)

    def _widened(self, statistics: ClassStatistics, num_classes: int) -> ClassStatistics:
        """The same statistics with room for more classes."""
        more = num_classes - statistics.num_classes
        if more <= 0:
            return statistics
        state = dict(statistics.state())
        for name, tensor in state.items():
            if tensor.ndim and len(tensor) == statistics.num_classes and name in ("counts", "means", "trace_sums"):
                state[name] = torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])
        return ClassStatistics.from_state(state)


def classes_of(largest_label: int, samples: int) -> int:
    """K from the largest label alone, at least 2.

    Raises:
        ValueError: if that is absurd for so few samples.
    """
    return inferred_classes(torch.tensor([max(largest_label, 0)], device="cpu"), samples)
