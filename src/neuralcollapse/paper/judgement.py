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


KINDS = ("reproduced", "in part", "not reproduced", "open", "not judged")
"""Of verdicts."""


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
        """One of :data:`KINDS`.

        Open while runs are missing, and where all that is decided agrees and something is not decided.
        """
        if self.small:
            return "not judged"
        agreeing, decided, undecided = self._count
        if not decided or self.missing:
            return "open"
        if agreeing == decided:
            return "open" if undecided else "reproduced"
        return "in part" if agreeing else "not reproduced"

    @property
    def verdict(self) -> str:
        """The kind, with how many findings agree and how many runs are missing: ``in part: 1 of 2``."""
        agreeing, decided, undecided = self._count
        if self.small or not (self.kind in ("open", "in part") or undecided):
            return self.kind
        missing = f"{len(self.missing)} run{'' if len(self.missing) == 1 else 's'} missing" if self.missing else ""
        if not decided:
            return f"open: {missing or 'the numbers cannot decide'}"
        agree = "" if self.kind != "open" else " agree so far" if missing else " agree"
        details = (f"{agreeing} of {decided}{agree}", f"{undecided} undecided" if undecided else "", missing)
        return f"{self.kind}: {', '.join(filter(None, details))}"

    @property
    def _count(self) -> tuple[int, int, int]:
        """Findings that agree, that are decided and that are not."""
        decided = [finding.agrees for finding in self.findings if finding.agrees is not None]
        return sum(decided), len(decided), len(self.findings) - len(decided)
