"""The options that state class sizes, decays and a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from neuralcollapse.cli.options import numbers
from neuralcollapse.cli.ufm.problem import DECAYS, PROBLEM, Decays  # noqa: F401  (inherited annotations are read here)


@dataclass(frozen=True, kw_only=True)
class Classes(Decays):
    """Class sizes, decays and the loss."""

    counts: Annotated[str, Parameter(group=PROBLEM.group, metavar="N,N,N")]
    """The number of samples of each class, such as 500,50,5."""

    def sizes(self) -> list[int]:
        """Samples of each class.

        Raises:
            ValueError: naming the option and an example.
        """
        return numbers(self.counts, "--counts", "500,50,5", int)

    def model(self) -> dict[str, Any]:
        """Everything but the sizes, by name."""
        return self.lambdas()


ClassOptions = Annotated[Classes, Parameter(name="*")]
"""The type of a command's parameter that takes all of these options."""
