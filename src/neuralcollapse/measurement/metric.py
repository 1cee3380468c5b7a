"""Neural collapse as a torchmetrics.Metric: accumulates per rank, merges at compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.plot import plot_single_or_multi_val

from neuralcollapse.geometry import ClassStatistics, collapse_metrics
from neuralcollapse.geometry.arithmetic import float64_device
from neuralcollapse.geometry.inputs import Rows, check_classifier
from neuralcollapse.geometry.storage import SHAPES
from neuralcollapse.measurement.weights import affine


class _Borrowed:
    """The classifier that a metric reads: the model's to move, to save and to copy, and no part of the metric.

    A copy of the metric reads the same layer, as torchmetrics clones and tracks metrics by ``deepcopy``. Where a whole
    model is copied with its metric, the copied metric reads the copied layer.
    """

    def __init__(self, *parts: Any, copied: Mapping[int, Any] | None = None) -> None:
        self._parts = parts
        self._copied = copied

    def __deepcopy__(self, memo: dict[int, Any]) -> _Borrowed:
        parts = self.parts()
        if all(part is None or id(part) in memo for part in parts):
            return _Borrowed(*(memo.get(id(part)) for part in parts))
        return _Borrowed(*parts, copied=memo)  # the layer may be copied later than the metric, or not at all

    def __getstate__(self) -> dict[str, Any]:
        self.parts()
        return vars(self)

    def parts(self) -> tuple[Any, ...]:
        """The layer and the bias, or the weight and the bias."""
        if self._copied is not None:
            self._parts = tuple(self._copied.get(id(part), part) for part in self._parts)
            self._copied = None
        return self._parts


class NeuralCollapse(Metric):
    """Measures of neural collapse over a stream of features, synchronised over ranks.

    A thin state around :class:`neuralcollapse.ClassStatistics`: ranks keep their own moments, which are
    merged by Chan's formula when computed, so two processes give the answer of one. It keeps torchmetrics'
    contract: ``metric(x, y)`` gives the measures of the batch, and half precision leaves the accumulators in float64.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, the width of the features that enter the classifier.
        classifier: the last layer, whose weight and bias are read when computing; or its weight alone.
        bias: the classifier's bias, where ``classifier`` is a weight.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.

    Raises:
        ValueError: if K < 2, d < 1, or the classifier does not fit them.
        TypeError: if the classifier has no weight.

    >>> metric = NeuralCollapse(2, 1)
    >>> metric.update(torch.tensor([[0.9], [1.1], [-1.0], [-1.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(float(metric.compute()["nc1_quotient"]), 6)
    0.005
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    plot_lower_bound = 0.0
    counts: Tensor
    means: Tensor
    _update_count: int

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        *,
        classifier: nn.Module | Float[Tensor, "K d"] | None = None,
        bias: Float[Tensor, " K"] | None = None,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        # The classifier changes as it is trained, and may differ from call to call: nothing is cached.
        super().__init__(**{"compute_with_cache": False, **kwargs})
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.allow_missing = allow_missing
        self._classifier = _Borrowed(classifier, bias)
        for name, tensor in ClassStatistics(num_classes, feature_dim).state().items():
            self.add_state(name, default=tensor, dist_reduce_fx=None)
        check_classifier(*self._affine(), num_classes, feature_dim)

    def update(self, features: Float[Tensor, "B d"] | Rows, labels: Int[Tensor, " B"] | Rows) -> None:
        """Add a batch.

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        self._classifier.parts()  # a copy lets go of what it was copied with
        statistics = self._gathered()
        statistics.update(features, labels)
        self._hold(statistics)

    def compute(
        self,
        weight: nn.Module | Float[Tensor, "K d"] | Rows | None = None,
        bias: Float[Tensor, " K"] | Rows | None = None,
        *,
        allow_missing: bool | None = None,
    ) -> dict[str, Tensor]:
        """Measures by name, as scalars; those that need a classifier only where one is given, here or at construction.

        Args:
            weight: the classifier's, (K, d), or the layer itself.
            bias: the classifier's, where ``weight`` is no layer.
            allow_missing: as at construction, which decides where this is not given.

        Raises:
            ValueError: as :func:`neuralcollapse.collapse_metrics`.
        """
        head = self._affine() if weight is None and bias is None else _affine(weight, bias)
        allowed = self.allow_missing if allow_missing is None else allow_missing
        metrics = collapse_metrics(self._gathered(), *head, allow_missing=allowed)
        device = self.means.device
        return {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in metrics.to_dict().items()
            if value is not None
        }

    @property
    def statistics(self) -> ClassStatistics:
        """A copy of what has been gathered; over all ranks while synchronised."""
        return ClassStatistics.from_state(self._gathered().state())

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one or several results of :meth:`compute` with matplotlib, as every torchmetrics metric does.

        Args:
            val: a result, or a sequence of results as they were logged; by default what ``compute`` gives now.
            ax: matplotlib axes to draw into.

        Returns:
            The figure and its axes.
        """
        val = self.compute() if val is None else val
        if isinstance(val, Sequence):  # measures that some of the results lack have no curve
            shared = set.intersection(*(set(result) for result in val))
            val = [{name: value for name, value in result.items() if name in shared} for result in val]
        return plot_single_or_multi_val(
            val, ax=ax, higher_is_better=self.higher_is_better, name=type(self).__name__, lower_bound=0.0
        )

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the samples of another such metric, or of its state; the other stays as it is.

        Raises:
            ValueError: if the other is of another kind or size, or its state is damaged.
        """
        super().merge_state(incoming_state)
        self._count_as_updated()

    def set_dtype(self, dst_type: str | torch.dtype) -> NeuralCollapse:
        """Accumulators stay in float64, whatever precision the model takes."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> NeuralCollapse:
        """Follow the model to its device, and never to another precision."""

        def moved(tensor: Tensor) -> Tensor:
            target = fn(torch.zeros(1, dtype=torch.float32, device=tensor.device)).device
            return tensor.to(float64_device(target))

        self._classifier.parts()
        super()._apply(moved, exclude_state)
        return self

    def _affine(self) -> tuple[Any, Any]:
        """Weight and bias of the classifier as they are now; None where there is none."""
        return _affine(*self._classifier.parts())

    def _gathered(self) -> ClassStatistics:
        """Statistics around the states themselves, which are never written to; stacked ones of ranks are merged."""
        states = {name: getattr(self, name) for name in SHAPES}
        if states["means"].ndim == 2:
            return ClassStatistics.around(states)
        merged = ClassStatistics(self.num_classes, self.feature_dim, device=states["means"].device)
        for rank in range(len(states["means"])):
            merged.merge(ClassStatistics.around({name: states[name][rank] for name in SHAPES}))
        return merged

    def _hold(self, statistics: ClassStatistics) -> None:
        for name, tensor in statistics.state(copy=False).items():
            setattr(self, name, tensor)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._count_as_updated()

    def _count_as_updated(self) -> None:
        """Samples that came in without ``update`` are samples: torchmetrics need not warn that there are none."""
        if bool((self.counts > 0).any()):
            self._update_count = max(self._update_count, 1)
            self._computed = None

    def _reduce_states(self, incoming_state: Mapping[str, Any]) -> None:
        """Merge another metric's states by Chan's formula: torchmetrics' ``forward`` and ``merge_state``."""
        other = ClassStatistics.from_state(incoming_state)
        self._hold(other.merge(self._gathered()))


def _affine(classifier: Any, bias: Any) -> tuple[Any, Any]:
    """Weight and bias of a classifier that is a layer, or a weight."""
    if isinstance(classifier, str):
        raise TypeError(f"classifier={classifier!r} is a str: pass the layer itself, such as model.fc, or its weight")
    if not isinstance(classifier, nn.Module):
        return classifier, bias
    try:
        weight, own = affine(classifier)
    except AttributeError:
        raise TypeError(
            f"classifier={type(classifier).__name__} is no linear layer: pass the last linear layer, or its weight"
        ) from None
    return weight, own if bias is None else bias
