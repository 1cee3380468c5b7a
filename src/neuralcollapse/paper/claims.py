"""The paper's claims, each with the rule by which runs confirm it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import spearmanr

from neuralcollapse.paper.outcome import Outcome, groups

NAMES = {"nc1": "NC1", "nc2": "NC2", "nc3": "NC3", "nc4": "NC4", "train_error": "training error"}


@dataclass(frozen=True)
class Finding:
    """What was measured, and whether it agrees."""

    subject: str
    measured: str
    agrees: bool


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
    missing: int
    """Runs that are not finished, and so not judged."""
    small: bool
    """Whether the scale is too small to say anything of the paper."""

    @property
    def verdict(self) -> str:
        """``reproduced``, ``in part``, ``not reproduced``; ``open`` while runs are missing, or ``not judged``."""
        agreeing = sum(finding.agrees for finding in self.findings)
        if self.small:
            return "not judged"
        if self.missing or not self.findings:
            return f"open: {self.missing} runs unfinished"
        if agreeing == len(self.findings):
            return "reproduced"
        return f"in part: {agreeing} of {len(self.findings)}" if agreeing else "not reproduced"


def judge(figure: str, runs: Sequence[Outcome], *, small: bool = False) -> list[Judgement]:
    """Each claim of a figure, judged on its finished runs; at a scale too small for that (``small``) only measured."""
    finished = [run for run in runs if run.finished]
    missing = len(runs) - len(finished)
    return [Judgement(claim, claim.check(finished), missing, small and bool(runs)) for claim in CLAIMS[figure]]


def _value(run: Outcome, name: str) -> float:
    last = run.rows[-1]
    return 1 - last["train_accuracy"] if name == "train_error" else last[name]


def _falls(name: str, factor: float) -> Claim:
    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for run in runs:
            before, after = run.rows[0][name], run.rows[-1][name]
            found.append(Finding(run.experiment.name, f"{before:.3g} → {after:.3g}", after <= before / factor))
        return found

    return Claim(f"{NAMES[name]} tends to zero", f"falls to 1/{factor:g} of the untrained network's or less", check)


def _reaches(share: float) -> Claim:
    def check(runs: Sequence[Outcome]) -> list[Finding]:
        accuracies = [(run.experiment.name, _value(run, "train_accuracy")) for run in runs]
        return [Finding(name, f"{value:.2%}", value >= share) for name, value in accuracies]

    return Claim("Training error reaches zero", f"training accuracy of {share:.1%} or more", check)


def _optimizers_differ(runs: Sequence[Outcome]) -> list[Finding]:
    found = []
    for key, group in groups(runs).items():
        accuracies = [_value(run, "test_accuracy") for run in group]
        measured = ", ".join(f"{run.experiment.optimizer} {_value(run, 'test_accuracy'):.2%}" for run in group)
        found.append(Finding(key, measured, max(accuracies) - min(accuracies) > 0.005))
    return found


def _rank_correlation(first: str, second: str, least: float) -> Check:
    """Spearman's, over the widths of a model; least is negative where a fall is claimed."""

    def value(run: Outcome, name: str) -> float:
        return float(run.experiment.width or 0) if name == "width" else _value(run, name)

    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for key, group in groups(runs).items():
            pairs = [(value(run, first), value(run, second)) for run in group]
            if len({one for one, _ in pairs}) < 2 or len({two for _, two in pairs}) < 2:
                found.append(Finding(key, "no correlation: all alike", False))
                continue
            rho = round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 6)
            agrees = rho >= least if least > 0 else rho <= least
            found.append(Finding(f"{key}, {len(pairs)} widths", f"ρ = {rho:.2f}", agrees))
        return found

    return check


def _shrinks_with_width(name: str) -> Claim:
    return Claim(
        f"{NAMES[name]} falls as the network widens",
        "Spearman correlation with width of -0.8 or below",
        _rank_correlation("width", name, -0.8),
    )


def _with_error(name: str) -> Claim:
    return Claim(
        f"{NAMES[name]} and training error go together",
        "Spearman correlation over widths of 0.5 or above (widths without any error tie)",
        _rank_correlation("train_error", name, 0.5),
    )


def _as_accurate_as(attribute: str, reference: str, points: float) -> Check:
    """Test accuracy within so many percentage points of the group's reference, or better.

    A reference that did not learn its training data proves nothing.
    """

    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for key, group in groups(runs).items():
            by_value = {getattr(run.experiment, attribute): run for run in group}
            if reference not in by_value:
                continue
            first, learned = (_value(by_value[reference], f"{kind}_accuracy") for kind in ("test", "train"))
            excuse = "" if learned >= 0.9 else f", which learned only {learned:.0%} of its training data"
            for other, run in by_value.items():
                if other != reference:
                    accuracy = _value(run, "test_accuracy")
                    agrees = accuracy >= first - points / 100 and not excuse
                    found.append(Finding(f"{key} {other}", f"{accuracy:.2%} against {first:.2%}{excuse}", agrees))
        return found

    return check


def _saved(model: str, classes: int, variant: str, percentage: float) -> Claim:
    def check(runs: Sequence[Outcome]) -> list[Finding]:
        from neuralcollapse.nn import build_backbone, parameter_savings

        savings = parameter_savings(build_backbone(f"torchvision:{model}", classes, (3, 224, 224)))
        saved, now = savings[variant].saved, savings[variant].parameters
        measured = f"{saved:.2%}: {savings['as it is'].parameters:,} → {now:,}"
        return [Finding(f"{model}, K = {classes}", measured, abs(100 * saved - percentage) < 0.005)]

    return Claim(
        f"{model} with {classes:,} classes and {variant} saves {percentage:.2f}% of the parameters",
        "equal to two decimals",
        check,
    )


_COLLAPSE = [_falls("nc1", 10.0), _falls("nc2", 2.0), _falls("nc3", 2.0)]

CLAIMS: dict[str, list[Claim]] = {
    "figure3": [*_COLLAPSE, _falls("nc4", 2.0)],
    "figure4": [
        _reaches(0.999),
        Claim(
            "Networks that collapse alike differ in test accuracy, by optimizer",
            "more than half a percentage point between the best and the worst",
            _optimizers_differ,
        ),
    ],
    "figure5": [
        *(_shrinks_with_width(name) for name in ("nc1", "nc2", "nc3", "train_error")),
        *(_with_error(name) for name in ("nc1", "nc2", "nc3")),
    ],
    "figure6": [
        *_COLLAPSE,
        Claim(
            "Decay of the features instead of all parameters costs no test accuracy "
            "(99.57% against 99.60% on MNIST, 77.92% against 78.42% on CIFAR-10 at the paper's scale)",
            "at most one percentage point below decay of all parameters",
            _as_accurate_as("decay", "all", 1.0),
        ),
    ],
    "figure7": [
        _falls("nc1", 10.0),
        _falls("nc3", 2.0),
        _reaches(0.999),
        Claim(
            "A fixed simplex ETF, and d = K, cost no test accuracy",
            "at most one percentage point below the learned classifier with the model's own d",
            _as_accurate_as("head", "learned", 1.0),
        ),
    ],
    "savings": [
        _saved("resnet50", 1000, "fixed head", 8.01),
        _saved("densenet169", 1000, "fixed head", 11.76),
        _saved("shufflenet_v2_x1_0", 1000, "fixed head", 52.56),
        _saved("resnet18", 10, "d = K", 20.70),
        _saved("resnet50", 10, "d = K", 4.45),
    ],
}
