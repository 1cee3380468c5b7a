"""Inputs under attack: the fast gradient sign method and projected gradient descent, and what they do to collapse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuralcollapse.geometry import CollapseMetrics, Moments, collapse_metrics
from neuralcollapse.geometry.angles import class_mean_angles

Bounds: TypeAlias = tuple[float | int | Tensor, float | int | Tensor]
"""Least and greatest entry of inputs: numbers, or tensors that broadcast to the inputs."""

_WAY = "pass batch=, a function that takes a batch and returns (inputs, labels) with one tensor of real inputs"


@dataclass(frozen=True)
class Attack:
    """Changes of the inputs, at most epsilon in each entry, that raise the cross-entropy of a network's logits.

    Args:
        kind: ``"fgsm"``, one step of length epsilon along the sign of the gradient (Goodfellow, Shlens and Szegedy
            2015, arXiv 1412.6572), or ``"pgd"``, several steps, each projected on the cube of half-width epsilon
            (Madry et al. 2018, arXiv 1706.06083).
        epsilon: largest change of an entry, in the units of what the network is given: after normalisation, where
            that is done by the data.
        steps: of PGD.
        step: length of one of them; 2.5 epsilon / steps if not given, as Madry et al.
        bounds: least and greatest entry that inputs may have, such as ``(0, 1)`` for images that are not normalised;
            numbers, or tensors that broadcast to the inputs, such as (C, 1, 1).
        random_start: begin PGD at a random point of the cube.

    Raises:
        ValueError: naming the argument, its value and the constraint.

    >>> Attack("pgd", 0.1, steps=5).step_length
    0.05
    """

    kind: Literal["fgsm", "pgd"]
    epsilon: float | int
    steps: int = 10
    step: float | int | None = None
    bounds: Bounds | None = None
    random_start: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("fgsm", "pgd"):
            raise ValueError(f"attack={self.kind!r} is unknown: choose 'fgsm', 'pgd' or an Attack(...)")
        sizes = {
            "epsilon": (self.epsilon, "largest change of an entry"),
            "step": (self.step, "length of a step of PGD"),
        }
        for name, (value, meaning) in sizes.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} must be positive and finite: it is the {meaning}")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if self.bounds is not None and not bool(
            (torch.as_tensor(self.bounds[0]) < torch.as_tensor(self.bounds[1])).all()
        ):
            raise ValueError(f"bounds={self.bounds} must be a lower and an upper bound, in this order")

    @property
    def step_length(self) -> float:
        """Length of one step of PGD."""
        return 2.5 * self.epsilon / self.steps if self.step is None else float(self.step)

    def __str__(self) -> str:
        return f"{self.kind} ε={self.epsilon:g}"

    def moved(self, inputs: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """The attacked inputs.

        Args:
            inputs: of a batch.
            gradient: of the loss, at inputs of the same shape.

        Raises:
            ValueError: if the inputs lie outside the bounds.
        """
        low, high = self._bounds_of(inputs)
        if self.kind == "fgsm":
            return (inputs + self.epsilon * gradient(inputs).sign()).clamp(low, high)
        low, high = torch.maximum(low, inputs - self.epsilon), torch.minimum(high, inputs + self.epsilon)
        found = inputs
        if self.random_start:
            found = (inputs + torch.empty_like(inputs).uniform_(-self.epsilon, self.epsilon)).clamp(low, high)
        for _ in range(self.steps):
            found = (found + self.step_length * gradient(found).sign()).clamp(low, high)
        return found

    def _bounds_of(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (torch.as_tensor(bound).to(inputs) for bound in self.bounds or (-math.inf, math.inf))
        try:
            outside = bool(((inputs < low) | (inputs > high)).any())
        except RuntimeError as error:
            raise ValueError(
                f"bounds of shapes {tuple(low.shape)} and {tuple(high.shape)} do not broadcast to inputs of shape "
                f"{tuple(inputs.shape)}"
            ) from error
        if outside:
            raise ValueError(
                f"inputs reach from {float(inputs.min()):.4g} to {float(inputs.max()):.4g}, outside bounds="
                f"{self.bounds}: give the range of the inputs as the network takes them, after normalisation"
            )
        return low, high


def chosen_attack(
    attack: str | Attack | None,
    epsilon: float | int | None,
    bounds: Bounds | None,
) -> Attack | None:
    """The attack that the arguments of :func:`neuralcollapse.measure` ask for.

    Raises:
        ValueError: if it is unknown, lacks its size, or is given twice.
    """
    if attack is None or isinstance(attack, Attack):
        if epsilon is not None or bounds is not None:
            way = "the Attack(...) holds them already" if attack else "they need attack='fgsm' or 'pgd'"
            raise ValueError(f"epsilon={epsilon} and bounds={bounds} say how large an attack is: {way}")
        return attack
    if epsilon is None:
        raise ValueError(f"attack={attack!r} needs epsilon=, the largest change of an entry of the inputs")
    return Attack(attack, epsilon, bounds=bounds)  # type: ignore[arg-type]


def loss_gradient(logits_of: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient, with respect to the inputs, of the cross-entropy of the logits, summed over samples.

    The parameters gain no gradient.

    Raises:
        ValueError: if the logits do not depend on the inputs by steps that can be differentiated.
    """
    gradient: Tensor | None = None
    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_()
        logits = logits_of(leaf)  # the model gets a copy, which it may change
        if logits.requires_grad:
            exact = logits if logits.dtype == torch.float64 else logits.float()
            loss = cross_entropy(exact, _tracked(labels).to(exact.device), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "attack= needs the gradient of the logits with respect to the inputs, and the model gives none: it runs "
            "under no_grad, detaches, or rounds on the way"
        )
    return gradient


def attackable(inputs: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The one tensor of real inputs, and a function that puts another in its place.

    Raises:
        ValueError: if there is none, as for token numbers, or more than one.
    """
    if isinstance(inputs, Tensor):
        _refuse_integers({"inputs": inputs})
        return inputs, lambda moved: moved
    if isinstance(inputs, Mapping):
        parts: dict[Any, Any] = dict(inputs)
    elif isinstance(inputs, tuple | list):
        parts = dict(enumerate(inputs))
    else:
        raise ValueError(f"attack= changes a tensor of inputs, and a batch holds a {type(inputs).__name__}: {_WAY}")
    real = [key for key, part in parts.items() if isinstance(part, Tensor) and part.is_floating_point()]
    if not real:
        _refuse_integers({key: part for key, part in parts.items() if isinstance(part, Tensor)})
    if len(real) != 1:
        raise ValueError(f"attack= changes one tensor of real inputs, and a batch holds {len(real)}: {_WAY}")

    def rebuilt(moved: Tensor) -> Any:
        found = {key: _tracked(part) for key, part in parts.items()} | {real[0]: moved}
        if isinstance(inputs, Mapping):
            return found
        values = list(found.values())
        return type(inputs)(*values) if hasattr(inputs, "_fields") else type(inputs)(values)

    return parts[real[0]], rebuilt


def _tracked(part: Any) -> Any:
    """A tensor that autograd may keep: one made in inference mode is copied."""
    return part.clone() if isinstance(part, Tensor) and part.is_inference() else part


def _refuse_integers(parts: Mapping[Any, Tensor]) -> None:
    whole = {key: part.dtype for key, part in parts.items() if not part.is_floating_point()}
    if whole:
        named = ", ".join(f"{key} of {dtype}" for key, dtype in whole.items())
        raise ValueError(
            f"attack= changes inputs by small real amounts, and these hold {named}: convert images to floating point, "
            "and do not attack token numbers"
        )


@dataclass(frozen=True)
class AttackReport:
    """The classifier's features of the attacked inputs, beside those of the clean ones."""

    attack: Attack
    """What was done to the inputs."""
    metrics: CollapseMetrics
    """Measures of the attacked features, grouped by their true labels."""
    accuracy: float
    """Share of the attacked samples that the classifier decides correctly."""
    angles: Float[Tensor, " P"] = field(repr=False)
    """Degrees by which the attack turns each class mean, seen from the mean of the clean class means."""
    moments: Moments = field(repr=False)
    """Class moments of the attacked features."""

    @classmethod
    def of(
        cls, attack: Attack, clean: Moments, attacked: Moments, right: int, *head: Tensor | None, allow_missing: bool
    ) -> AttackReport:
        """Put together what was measured; the head is W and b."""
        metrics = collapse_metrics(attacked, *head, allow_missing=allow_missing)
        return cls(attack, metrics, right / attacked.total, class_mean_angles(clean, attacked), attacked)

    @property
    def mean_angle(self) -> float:
        """Mean of the angles over classes."""
        return float(self.angles.mean())

    def to_dict(self) -> dict[str, float | None]:
        """Every measure of the attacked features by name, and the mean angle as ``attack_angle``."""
        return {**self.metrics.to_dict(), "accuracy": self.accuracy, "attack_angle": self.mean_angle}

    def explain(self, clean: float | None) -> str:
        """What the attack does, in words.

        Args:
            clean: accuracy without it.
        """
        before = "" if clean is None else f", from {clean:.2%}"
        size = "" if self.metrics.nc1 is None else f" NC1 of the attacked features is {self.metrics.nc1:.3g}."
        return (
            f"An attack ({self.attack}) leaves {self.accuracy:.2%} of the decisions right{before}, and turns the class "
            f"means by {self.mean_angle:.3g}° on average.{size}"
        )
