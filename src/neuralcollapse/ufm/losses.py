r"""The losses of the unconstrained feature model, as small objects that combine with everything else in it.

Each loss maps logits z (one column per sample) and targets y (one-hot columns) to a number per sample, and knows its
gradient, its Hessian applied to a direction, and, where it is convex, its conjugate
:math:`\ell^*(p) = \sup_z \langle p, z\rangle - \ell(z)`, from which certificates come. Small losses keep their relative
precision: nothing is computed as 1 minus a number near 1.
"""

from __future__ import annotations

from neuralcollapse.ufm.entrywise import BinaryCrossEntropy, MeanSquaredError
from neuralcollapse.ufm.loss import Loss
from neuralcollapse.ufm.softmax import CrossEntropy, Focal, LabelSmoothing

__all__ = [
    "LOSSES", "BinaryCrossEntropy", "CrossEntropy", "Focal", "LabelSmoothing", "Loss", "MeanSquaredError",
    "resolve_loss",
]  # fmt: skip

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (CrossEntropy, LabelSmoothing, Focal, MeanSquaredError, BinaryCrossEntropy)
}
"""Losses by name."""


def resolve_loss(loss: str | Loss) -> Loss:
    """A loss from its name, with its parameter behind a colon where it has one.

    Raises:
        ValueError: if the name is unknown or the parameter is none of this loss.

    >>> resolve_loss("label_smoothing:0.2"), resolve_loss("mse")
    (LabelSmoothing(alpha=0.2), MeanSquaredError())
    """
    if isinstance(loss, Loss):
        return loss
    choices = f"choose {', '.join(LOSSES)} (label_smoothing:0.1 and focal:3 set their parameter)"
    if not isinstance(loss, str):
        raise ValueError(f"loss={loss!r} is no loss: {choices}")
    name, colon, parameter = loss.partition(":")
    if name not in LOSSES:
        raise ValueError(f"loss={loss!r} is unknown: {choices}")
    if not colon:
        return LOSSES[name]()
    if name not in ("label_smoothing", "focal"):
        raise ValueError(f"loss={loss!r}: {name} has no parameter")
    try:
        number = float(parameter)
    except ValueError as error:
        raise ValueError(f"loss={loss!r}: {parameter!r} is not a number") from error
    try:
        return LabelSmoothing(number) if name == "label_smoothing" else Focal(number)
    except ValueError as error:
        raise ValueError(f"loss={loss!r}: {error}") from error
