"""The options that state a problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from neuralcollapse.cli.options import numbers

if TYPE_CHECKING:
    from neuralcollapse.ufm import UFM

PROBLEM = Parameter(group=Group("Problem", sort_key=1))
DECAYS = Parameter(group=Group("Weight decay", sort_key=2))


@dataclass(frozen=True, kw_only=True)
class Decays:
    """The terms of the objective."""

    lambda_w: Annotated[float, DECAYS] = 5e-3
    """Weight decay of the classifier."""
    lambda_h: Annotated[float, DECAYS] = 1e-3
    """Weight decay of the features."""
    lambda_b: Annotated[float, DECAYS] = 1e-2
    """Weight decay of the bias."""

    loss: Annotated[str, PROBLEM] = "cross_entropy"
    """Loss: cross_entropy, label_smoothing:0.1, focal:3, mse or binary_cross_entropy."""
    bias: Annotated[bool, PROBLEM] = True
    """Whether there is a bias."""
    nonnegative: Annotated[bool, Parameter(negative="", group=PROBLEM.group)] = False
    """Features must be nonnegative, as after a ReLU."""

    def lambdas(self) -> dict[str, Any]:
        """The loss, the decays and the kind of model, by the names of the model's arguments."""
        names = ("lambda_w", "lambda_h", "lambda_b", "loss", "bias", "nonnegative")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Problem(Decays):
    """Classes, samples, dimension and decays."""

    num_classes: Annotated[int, PROBLEM] = 4
    """Number of classes, K."""
    samples_per_class: Annotated[str, PROBLEM] = "5"
    """Samples per class, n, or one number for each class: 9,1,4,2."""
    feature_dim: Annotated[int | None, PROBLEM] = None
    """Dimension of the features, d. By default K."""

    def make(self) -> UFM:
        """The problem.

        Raises:
            ValueError: naming the option that is out of range.
        """
        counts = numbers(self.samples_per_class, "--samples-per-class", "5, or 9,1,4,2", int)
        from neuralcollapse.ufm import UFM

        return UFM(
            self.num_classes,
            counts[0] if len(counts) == 1 else counts,
            self.num_classes if self.feature_dim is None else self.feature_dim,
            **self.lambdas(),
        )


DecayOptions = Annotated[Decays, Parameter(name="*")]
ProblemOptions = Annotated[Problem, Parameter(name="*")]
"""The type of a command's parameter that takes all of these options."""
