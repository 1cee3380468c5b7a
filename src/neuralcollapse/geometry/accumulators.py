"""Sums over what a stream of features has shown, and the moments that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry import storage
from neuralcollapse.geometry.arithmetic import full_precision, times_power_of_two
from neuralcollapse.geometry.moments import Moments


class Accumulators:
    """Counts, means and scatter in float64, in units of a power of two; all that is read from them is a copy."""

    num_classes: int
    feature_dim: int
    within: Literal["full", "traces"]

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

    def _absorb(self) -> None:
        """Bring the accumulators up to date with what is held besides them: here, nothing."""

    @property
    def device(self) -> torch.device:
        """Where the accumulators live."""
        return self._means.device

    @property
    def counts(self) -> Int[Tensor, " K"]:
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
    def global_mean(self) -> Float[Tensor, " d"]:
        """Mean of all samples h_G, (d,)."""
        self._absorb()
        mean = self._counts.double() @ self._means / max(self.total, 1)
        return times_power_of_two(mean, int(self._exponent))

    @property
    def balanced_mean(self) -> Float[Tensor, " d"]:
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
    def within_traces(self) -> Float[Tensor, " K"]:
        """Trace of the covariance of each class over its own samples, (K,)."""
        self._absorb()
        return times_power_of_two(self._trace_sums / self._counts.clamp(min=1), 2 * int(self._exponent))

    @property
    def scatter(self) -> Tensor:
        """Pooled within-class scatter N Σ_W, (d, d); (0, 0) for ``within="traces"``."""
        self._absorb()
        return times_power_of_two(self._scatter, 2 * int(self._exponent)).clone()

    @property
    def trace_sums(self) -> Float[Tensor, " K"]:
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
        with full_precision(self.device):
            return Moments.from_accumulators(self.state(copy=False))

    def state(self, *, copy: bool = True) -> dict[str, Tensor]:
        """Accumulators as tensors by name, from which :meth:`from_state` builds the same statistics.

        Without ``copy`` they are the accumulators themselves, to read and never to write.
        """
        self._absorb()
        held = {name: getattr(self, f"_{name}") for name in storage.SHAPES}
        return {name: tensor.clone() for name, tensor in held.items()} if copy else held
