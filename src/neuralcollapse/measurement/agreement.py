"""Is the layer that was found the classifier? Its outputs are compared with what the model returns."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralcollapse.geometry.collapse import CollapseWarning
from neuralcollapse.measurement.outputs import logits_in, main_output


class Agreement:
    """Compares the logits of a layer with the outputs of its model, batch by batch.

    A model may change its logits before it returns them (softmax, a temperature), but not which is largest, nor
    how many there are.

    Args:
        layer: the layer's dotted name.
        named: whether the user named it. Then nothing is refused.
    """

    def __init__(self, layer: str, named: bool) -> None:
        self.layer = layer
        self.named = named
        self.samples = 0
        self.others = 0
        """Samples for which the model decides otherwise."""
        self.widths: tuple[int, int] | None = None
        """How many numbers the layer gives and the model returns per sample, where they differ."""

    def add(self, logits: Float[Tensor, "B K"], returned: Any) -> None:
        """Take a batch.

        Raises:
            ValueError: if the model returns another number of logits than the layer gives, and nobody named the layer.
        """
        samples, own = logits.shape
        found = logits_in(returned, samples, own)
        if not found:
            self._compare_width(own, main_output(returned), samples)
            return
        chosen = logits.argmax(1)
        self.samples += samples
        self.others += min(decided_otherwise(other.to(logits.device), chosen) for other in found)

    def _compare_width(self, own: int, output: Tensor | None, samples: int) -> None:
        if output is None or not output.is_floating_point() or output.ndim != 2 or len(output) != samples:
            return
        if output.shape[1] in (1, own):  # one number: the probability of the second of two classes
            return
        returned = output.shape[1]
        self.widths = own, returned
        if not self.named:
            raise ValueError(
                f"layer {self.layer!r} gives {own} numbers per sample and the model returns {returned}, so it does "
                f"not look like the classifier: name the classifier with classifier= (also {self.layer!r}, to insist). "
                "If the classifier is not a layer, pass its features and weight to measure_features"
            )

    def warn(self) -> None:
        """Say after the last batch what did not fit."""
        if self.widths is not None:
            own, returned = self.widths
            warnings.warn(
                f"classifier={self.layer!r} gives {own} numbers per sample, but the model returns {returned}: the "
                "measures are those of this layer",
                CollapseWarning,
                stacklevel=2,
            )
        elif self.others and not self.named:
            warnings.warn(
                f"layer {self.layer!r} is measured as the classifier, but the model decides otherwise in {self.others} "
                f"of {self.samples} samples: if another layer is the classifier, name it with classifier= (or this "
                "one, to silence this)",
                CollapseWarning,
                stacklevel=2,
            )


def decided_otherwise(output: Float[Tensor, "B K"], chosen: Int[Tensor, " B"]) -> int:
    """Rows in which another entry than the chosen one is largest, by more than rounding."""
    top = output.max(1).values
    slack = 16 * torch.finfo(output.dtype).eps * output.abs().max(1).values
    return int((output.gather(1, chosen[:, None])[:, 0] < top - slack).sum())


def reordered(output: Float[Tensor, "B K"], returned: list[Tensor]) -> Int[Tensor, " B"] | None:
    """The order in which a model returned the rows of a layer that saw its samples in another order.

    Sequences are sorted by length, tokens are routed to experts: labels then belong to what the model returned.
    """
    if len(output) < 2 or any(close(output, other) for other in returned):
        return None
    for other in returned:
        ids = torch.unique(torch.cat([output, other.to(output)]).detach(), dim=0, return_inverse=True)[1]
        first, second = ids[: len(output)].sort(stable=True), ids[len(output) :].sort(stable=True)
        if torch.equal(first.values, second.values):
            order = torch.empty_like(first.indices)
            order[second.indices] = first.indices
            return order
    return None


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal up to rounding."""
    tolerance = 16 * max(torch.finfo(one.dtype).eps, torch.finfo(other.dtype).eps)
    one, other = one.detach(), other.detach()
    exact = one.double() if one.device.type != "mps" else one.float()
    largest = exact.abs().nan_to_num().max() if exact.numel() else 0.0
    return torch.allclose(exact, other.to(exact.dtype), rtol=tolerance, atol=tolerance * max(float(largest), 1e-30))
