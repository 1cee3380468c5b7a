"""What a solver is."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass

from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point

Iterates = Iterator[tuple[int, Point]]


@dataclass(frozen=True)
class Solver(abc.ABC):
    """The settings of a solver; :meth:`iterates` gives the points that it comes by."""

    max_iterations: int
    """Iterations at which to stop."""
    every: int
    """Iterations between looks at the certificate."""

    @abc.abstractmethod
    def iterates(self, model: UFM, start: Point, seed: int) -> Iterates:
        """Points after 1, 2, ... iterations, until there is no further decrease."""
