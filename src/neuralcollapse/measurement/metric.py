"""Neural collapse as a torchmetrics.Metric: accumulates per rank, merges at compute."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from neuralcollapse.geometry import ClassStatistics, collapse_metrics
from neuralcollapse.geometry.storage import SHAPES

_STATES = tuple(SHAPES)


class NeuralCollapse(Metric):
    """Measures of neural collapse over a stream of features, synchronised over ranks.

    A thin state around :class:`neuralcollapse.ClassStatistics`: ranks keep their own moments, which are
    merged by Chan's formula when computed, so two processes give the answer of one.

    Args:
        num_classes: K, at least 2.
        feature_dim: d, the width of the features that enter the classifier.

    >>> metric = NeuralCollapse(2, 1)
    >>> metric.update(torch.tensor([[0.9], [1.1], [-1.0], [-1.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(float(metric.compute()["nc1_quotient"]), 6)
    0.005
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    def __init__(self, num_classes: int, feature_dim: int, **kwargs: object) -> None:
        # The classifier given to compute() may differ from call to call: nothing is cached.
        super().__init__(compute_with_cache=False, **kwargs)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        for name, tensor in ClassStatistics(num_classes, feature_dim).state().items():
            self.add_state(name, default=tensor, dist_reduce_fx=None)

    def update(self, features: Float[Tensor, "B d"], labels: Int[Tensor, "B"]) -> None:
        """Add a batch.

        Raises:
            ValueError: if shapes disagree, a label is out of range, or a feature is not finite.
            TypeError: if features are not floating point or labels not integers.
        """
        statistics = self.statistics
        statistics.update(features, labels)
        for name, tensor in statistics.state().items():
            setattr(self, name, tensor)

    def compute(
        self, weight: Float[Tensor, "K d"] | None = None, bias: Float[Tensor, "K"] | None = None
    ) -> dict[str, Tensor]:
        """Measures by name, as scalars; those that need a classifier only where one is given.

        Raises:
            ValueError: as :func:`neuralcollapse.collapse_metrics`.
        """
        metrics = collapse_metrics(self.statistics, weight, bias)
        return {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in metrics.to_dict().items()
            if value is not None
        }

    @property
    def statistics(self) -> ClassStatistics:
        """What has been gathered; over all ranks while synchronised."""
        states = {name: getattr(self, name) for name in _STATES}
        if states["means"].ndim == 2:
            return ClassStatistics.from_state(states)
        merged = ClassStatistics(self.num_classes, self.feature_dim, device=states["means"].device)
        for rank in range(len(states["means"])):
            merged.merge(ClassStatistics.from_state({name: states[name][rank] for name in _STATES}))
        return merged

    def set_dtype(self, dst_type: str | torch.dtype) -> NeuralCollapse:
        """Accumulators stay in float64, whatever precision the model takes."""
        return self
