"""What the registry holds of one measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal[
    "within-class", "means", "label sets", "features", "classifier", "alignment", "decision", "dimension", "attack"
]

GROUPS: tuple[Group, ...] = (
    "within-class", "means", "label sets", "features", "classifier", "alignment", "decision", "dimension", "attack",
)  # fmt: skip
"""In the order in which tables show them."""

Family = Literal["classification", "many classes", "multilabel", "regression", "depth", "attack"]

HEADLINE = ("nc1", "nc2", "nc3", "nc4")
"""The four measures of the paper's figures."""

ZHU = "Zhu et al. 2021 (arXiv 2105.02375)"
PAPYAN = "Papyan, Han and Donoho 2020 (PNAS 117)"
PAIRS = "O(K²d): one sweep over all pairs of classes"


@dataclass(frozen=True)
class Measure:
    """What one measure is, and how to read its value."""

    name: str
    """Key in dictionaries, CSV columns and options."""
    title: str
    """Heading in tables and plots."""
    group: Group
    """What it describes."""
    formula: str
    """Definition in LaTeX."""
    source: str
    """Paper and equation or figure."""
    meaning: str
    """One sentence in plain English."""
    ideal: float | str = 0.0
    """Value at complete collapse; where it depends on the network or the data, an expression such as ``K - 1``."""
    direction: Literal["lower", "higher", "near"] = "lower"
    """Which values mean more collapse."""
    range: tuple[float, float] = (0.0, math.inf)
    """Least and greatest possible value."""
    cost: str = "O(Kd)"
    """Work beyond the class moments: K classes, N samples, d features, r between-class directions, n targets."""
    family: Family = "classification"
    """Which question it belongs to."""

    @property
    def label(self) -> str:
        """Short name for narrow columns: NC1 to NC4 in capitals, the others as they are."""
        return self.name.upper() if self.name in HEADLINE else self.name

    def goal(self, ideal: float | str | None = None) -> str:
        """The value at collapse, with an arrow that tells which way is more collapsed.

        Args:
            ideal: its value for the network at hand, where it depends on that; a bound, such as ``≤ 3``, as a string.

        >>> measure = Measure("a", "A", "means", "a", "nobody", "It is.", ideal="K - 1", direction="near")
        >>> measure.goal(9.0), measure.goal("≤ 9")
        ('→ 9', '≤ 9')
        """
        if isinstance(ideal, str):
            return ideal
        found = self.ideal if ideal is None else ideal
        arrow = {"lower": "↓", "higher": "↑", "near": "→"}[self.direction]
        return f"{arrow} {found if isinstance(found, str) else format(found, 'g')}"
