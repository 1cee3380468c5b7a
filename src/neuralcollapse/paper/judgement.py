"""A claim of the paper, what was measured, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuralcollapse.paper.outcome import Outcome


@dataclass(frozen=True)
class Finding:
    """What was measured, and whether it agrees."""

    subject: str
    measured: str
    agrees: bool | None
    """None where the numbers cannot decide."""


Check = Callable[[Sequence[Outcome]], list[Finding]]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the rule by which it is judged."""

    text: str
    rule: str
    check: Check


@dataclass(frozen=True)
class Judgement:
    """A claim beside what was measured."""

    claim: Claim
    findings: list[Finding]
    missing: tuple[str, ...]
    """Names of the runs that are not finished, and so not judged."""
    small: bool
    """Whether the scale is too small to say anything about the paper."""

    @property
    def kind(self) -> str:
        """``reproduced``, ``in part``, ``not reproduced``, ``open`` or ``not judged``; open while runs are missing."""
        if self.small:
            return "not judged"
        agreeing, decided = self._count
        if not decided or self.missing:
            return "open"
        if agreeing == decided:
            return "reproduced"
        return "in part" if agreeing else "not reproduced"

    @property
    def verdict(self) -> str:
        """The kind, with how many findings agree and how many runs are missing: ``in part: 1 of 2``."""
        if self.small:
            return self.kind
        agreeing, decided = self._count
        missing = f"{len(self.missing)} run{'' if len(self.missing) == 1 else 's'} missing" if self.missing else ""
        if not decided:
            return f"open: {missing or 'the numbers cannot decide'}"
        if missing:
            return f"open: {agreeing} of {decided} agree so far, {missing}"
        undecided = f"{len(self.findings) - decided} undecided" if len(self.findings) > decided else ""
        counted = f"{agreeing} of {decided}" if self.kind == "in part" or undecided else ""
        details = ", ".join(filter(None, (counted, undecided)))
        return f"{self.kind}: {details}" if details else self.kind

    @property
    def _count(self) -> tuple[int, int]:
        decided = [finding.agrees for finding in self.findings if finding.agrees is not None]
        return sum(decided), len(decided)
