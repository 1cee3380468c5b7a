"""The rules by which claims are judged, fixed before the runs: each is a function from finished runs to findings."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, isnan
from statistics import median

from scipy.stats import spearmanr

from neuralcollapse.figures.names import title
from neuralcollapse.geometry.change import change, largest_early
from neuralcollapse.paper.cuts import cut, images, named
from neuralcollapse.paper.judgement import Check, Claim, Finding
from neuralcollapse.paper.outcome import Outcome, groups, variants

SHARES = {"nc1": 0.1, "nc2": 0.5, "nc3": 0.5, "nc4": 0.5, "nc4_relative": 0.5}
"""A measure falls when it ends at or below this share of its largest value in the first tenth of training."""

LEARNED = 0.95
"""Training accuracy under which a run has not learned its data, and proves nothing for those compared with it."""


def _value(run: Outcome, name: str) -> float:
    last = run.rows[-1]
    return 1 - last["train_accuracy"] if name == "train_error" else last[name]


def _middle(runs: Sequence[Outcome], name: str) -> float:
    """Median over seeds."""
    return median(_value(run, name) for run in runs)


def early(run: Outcome, name: str) -> float | int | None:
    """A measure's largest value in the first tenth of training, without the untrained network's; None if unmeasured."""
    return largest_early((row["epoch"] for row in run.rows), (row.get(name) for row in run.rows), run.epochs)


def falls(name: str) -> Claim:
    """A measure ends at or below its share (:data:`SHARES`) of its largest early value, with every seed."""
    share = SHARES[name]

    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for seeds in variants(runs).values():
            told = [_fall(run, name, share) for run in seeds]
            agrees = _all_agree([agrees for _, agrees in told])
            texts = [
                f"seed {run.config.seed}: {text}" if len(seeds) > 1 else text
                for run, (text, _) in zip(seeds, told, strict=True)
            ]
            found.append(Finding(named(seeds[0]), "; ".join(texts), agrees))
        return found

    return Claim(
        f"{title(name)} tends to zero",
        f"its last value is at most {share:.0%} of its largest in the first tenth of training "
        "(the untrained network left out), with every seed",
        check,
    )


def _all_agree(verdicts: Sequence[bool | None]) -> bool | None:
    """Of all seeds: one that disagrees decides, whatever the others could not say.

    >>> _all_agree([True, None, False]), _all_agree([True, None]), _all_agree([True])
    (False, None, True)
    """
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _fall(run: Outcome, name: str, share: float) -> tuple[str, bool | None]:
    before, after = early(run, name), run.rows[-1].get(name)
    if after is None:
        return "not recorded", None
    if isnan(after):
        return "undefined at the end", None
    if before is None:
        return f"{after:.3g} at the end, and not measured or undefined in the first tenth of training", None
    return f"{before:.3g} → {after:.3g} ({change(before, after)})", after <= share * before


def reaches(share: float) -> Claim:
    """Training accuracy ends at a share or above, with every seed."""

    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for seeds in variants(runs).values():
            accuracies = [_value(run, "train_accuracy") for run in seeds]
            found.append(
                Finding(named(seeds[0]), ", ".join(f"{one:.2%}" for one in accuracies), min(accuracies) >= share)
            )
        return found

    return Claim("Training error reaches zero", f"training accuracy of {share:.1%} or more, with every seed", check)


def optimizers_differ(runs: Sequence[Outcome]) -> list[Finding]:
    """Test accuracies of a group's optimizers differ by more than half a percentage point: medians over seeds.

    A comparison with a run that did not learn its training data decides nothing. A run on a part of the images is not
    compared with those on more.
    """
    found = []
    for key, group in groups(runs).items():
        most = max((images(run) for run in group), key=lambda counts: [count or inf for count in counts])
        compared = [run for run in group if images(run) == most]
        accuracies, every = (
            {seeds[0].experiment.optimizer: _middle(seeds, "test_accuracy") for seeds in variants(some).values()}
            for some in (compared, group)
        )
        measured = ", ".join(
            f"{optimizer} {accuracy:.2%}{'' if optimizer in accuracies else ' (fewer images: not compared)'}"
            for optimizer, accuracy in every.items()
        )
        excuse = _not_learned(compared)
        decided = len(accuracies) > 1 and not excuse
        differ = max(accuracies.values()) - min(accuracies.values()) > 0.005 if decided else None
        found.append(Finding(_with_cuts(key, group), measured + excuse, differ))
    return found


def _not_learned(runs: Sequence[Outcome]) -> str:
    """The runs among those compared that did not learn their training data; empty if all did."""
    accuracies = {run.experiment.name: _value(run, "train_accuracy") for run in runs}
    poor = [f"{name} {accuracy:.2%}" for name, accuracy in accuracies.items() if accuracy < LEARNED]
    return f"; learned less than {LEARNED:.0%} of the training data: {', '.join(poor)}" if poor else ""


def _rank_correlation(first: str, second: str, least: float) -> Check:
    """Spearman's, over the widths of a model (medians over seeds); least is negative where a fall is claimed."""

    def value(seeds: Sequence[Outcome], name: str) -> float:
        return float(seeds[0].experiment.width or 0) if name == "width" else _middle(seeds, name)

    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for key, group in groups(runs).items():
            pairs = [(value(seeds, first), value(seeds, second)) for seeds in variants(group).values()]
            if len(pairs) < 3:
                found.append(Finding(key, f"only {len(pairs)} widths: too few for a correlation", None))
                continue
            if not all(isfinite(value) for pair in pairs for value in pair):
                found.append(Finding(key, "undefined at some widths: no correlation", None))
                continue
            if len({one for one, _ in pairs}) < 2 or len({two for _, two in pairs}) < 2:
                found.append(Finding(key, "no correlation: all alike", False))
                continue
            rho = round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 6)
            agrees = rho >= least if least > 0 else rho <= least
            numbers = ", ".join(f"({_short(one)}, {_short(two)})" for one, two in pairs)
            found.append(
                Finding(_with_cuts(f"{key}, {len(pairs)} widths", group), f"ρ = {rho:.2f} over {numbers}", agrees)
            )
        return found

    return check


def _with_cuts(subject: str, runs: Sequence[Outcome]) -> str:
    """What is compared, and each cut that one of the runs has."""
    cuts = dict.fromkeys(said for run in runs if (said := cut(run)))
    return f"{subject} ({'; '.join(cuts)})" if cuts else subject


def _short(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def shrinks_with_width(name: str) -> Claim:
    """A measure, or the training error, falls as networks widen."""
    return Claim(
        f"{_capital(title(name))} falls as the network widens",
        "Spearman correlation with width of -0.8 or below (medians over seeds)",
        _rank_correlation("width", name, -0.8),
    )


def goes_with_error(name: str) -> Claim:
    """A measure is large where the training error is."""
    return Claim(
        f"{title(name)} and training error go together",
        "Spearman correlation over widths of 0.5 or above (medians over seeds; widths without any error tie)",
        _rank_correlation("train_error", name, 0.5),
    )


def as_accurate_as(attribute: str, reference: str, points: float) -> Check:
    """Test accuracy within so many percentage points of the group's reference, or better: medians over seeds.

    A comparison with a run that did not learn its training data decides nothing, nor does one with other images.
    """

    def check(runs: Sequence[Outcome]) -> list[Finding]:
        found = []
        for key, group in groups(runs).items():
            by_value = {getattr(seeds[0].experiment, attribute): seeds for seeds in variants(group).values()}
            if reference not in by_value:
                continue
            first = _middle(by_value[reference], "test_accuracy")
            for other, seeds in by_value.items():
                if other != reference:
                    compared = [*by_value[reference], *seeds]
                    unlike = "; not the same images" if len({images(run) for run in compared}) > 1 else ""
                    accuracy, excuse = _middle(seeds, "test_accuracy"), unlike + _not_learned(compared)
                    agrees = None if excuse else accuracy >= first - points / 100
                    measured = f"{accuracy:.2%} against {first:.2%}{excuse}"
                    found.append(Finding(_with_cuts(f"{key} {other}", seeds), measured, agrees))
        return found

    return check


def saves(model: str, classes: int, variant: str, percentage: float) -> Claim:
    """A variant of a model of torchvision has so many per cent fewer parameters, counted."""

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
