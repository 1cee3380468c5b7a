"""The options that state class sizes, decays and a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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


ClassOptions = Annotated[Classes, Parameter(name="*")]
"""The type of a command's parameter that takes all of these options."""
