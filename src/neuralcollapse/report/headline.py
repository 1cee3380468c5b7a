"""What happened, in one sentence: which measures fell, which rose, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

from neuralcollapse.geometry.change import movement
from neuralcollapse.geometry.measures import HEADLINE
from neuralcollapse.geometry.tables import FAR, NEAR
from neuralcollapse.report.history import History
from neuralcollapse.report.template import number

_UNDEFINED = "The measures of collapse are undefined for this run."
_ALIKE = 1.1
"""Smaller factors between training and test data count as none."""
_MERGED = 0.03
"""NC1 below which a class looks like a point."""


def headline(history: History) -> str:
    """The sentence that a report opens with.

    >>> headline(History("run", {"epoch": [0, 9], "nc1": [17.7, 0.1], "nc2": [0.8, 0.4], "nc4": [1.0, 2.0]}))
    'NC1 fell 177-fold and NC2 2-fold; NC4 rose 2-fold.'
    """
    moves = {name: movement(history.first(name), history.last(name)) for name in HEADLINE}
    if len(history.metrics[next(iter(history.metrics))]) < 2:
        values = [f"{name.upper()} is {value:.3g}" for name in HEADLINE if _finite(value := history.last(name))]
        return f"{_listed(values)}, measured once." if values else _UNDEFINED
    parts = []
    for direction in ("fell", "rose"):
        moved = {name: size for name, (way, size) in moves.items() if way == direction}
        if moved:
            first, *others = [f"{name.upper()} {{}}{size}" for name, size in moved.items()]
            parts.append(_listed([first.format(f"{direction} "), *(text.format("") for text in others)]))
    still = [name.upper() for name, (way, _) in moves.items() if way == "stayed"]
    if still:
        parts.append(f"{_listed(still)} stayed where {'they were' if len(still) > 1 else 'it was'}")
    return f"{'; '.join(parts)}." if parts else _UNDEFINED


def verdict(history: History) -> str:
    """Whether the network has collapsed, for a reader who does not know the measures.

    >>> verdict(History("run", {"epoch": [9], "nc1": [0.01], "nc2": [0.05], "nc3": [0.02]}))
    'The network has collapsed, or nearly so.'
    """
    found = {name: value for name in ("nc1", "nc2", "nc3") if (value := history.last(name)) is not None}
    if "nc1" not in found:
        return ""
    if history.lowest > 0:  # no simplex in so few dimensions: NC1 alone can vanish
        found = {"nc1": found["nc1"]}
    if undefined := [name.upper() for name, value in found.items() if math.isnan(value)]:
        verb = "is" if len(undefined) == 1 else "are"
        return f"Nothing can be said about collapse: {_listed(undefined)} {verb} undefined at the end."
    ends = list(found.values())
    if max(ends) < NEAR:
        subject = "The network has" if len(ends) > 1 else "The features of each class have"
        return f"{subject} collapsed, or nearly so."
    if ends[0] < NEAR and max(ends) < FAR:
        return "The network is close to collapse."
    return "The network has not collapsed." if ends[0] >= 1 else "The network has begun to collapse."


def lead(history: History) -> list[str]:
    """What the numbers mean for a reader who does not know the measures, sentence by sentence."""
    nc1, nc2, nc3 = (history.last(name) for name in ("nc1", "nc2", "nc3"))
    sentences = []
    if nc1 is not None and not math.isfinite(nc1):
        varying = "All features are equal" if math.isnan(nc1) else "The class means coincide"
        sentences.append(f"{varying}: NC1 is {'undefined' if math.isnan(nc1) else 'infinite'}.")
    elif nc1 is not None:
        if nc1 < _MERGED:
            text = "The features of each class have almost merged into one point"
        elif nc1 < NEAR:
            text = "The features of each class lie close together, compared with the distances between classes"
        elif nc1 < 1:
            text = "The features of each class have drawn together, but still spread around their mean"
        else:
            text = "The features of a class still spread as widely as the classes are apart"
        sentences.append(f"{text} (NC1\u00a0=\u00a0{nc1:.2g}).")
    if (lowest := history.lowest) > 0 and nc2 is not None and history.shape is not None:
        values = ", ".join(
            f"{name}\u00a0=\u00a0{value:.2g}" for name, value in (("NC2", nc2), ("NC3", nc3)) if _finite(value)
        )
        sentences.append(
            f"{history.present or history.shape[0]} classes have no simplex in {history.shape[1]} dimensions: NC2 and "
            f"NC3 cannot be below {lowest:.2g}{values and f' ({values})'}."
        )
        nc2 = nc3 = None
    if nc2 is not None and not math.isnan(nc2):
        near = "close to" if nc2 < NEAR else "on the way to" if nc2 < FAR else "far from"
        sentences.append(
            f"The classifier is {near} the most symmetric arrangement there is, a simplex (NC2\u00a0=\u00a0{nc2:.2g})."
        )
    if nc3 is not None and not math.isnan(nc3):
        near = "points along" if nc3 < NEAR else "roughly follows" if nc3 < FAR else "does not yet follow"
        sentences.append(f"It {near} the class means (NC3\u00a0=\u00a0{nc3:.2g}).")
    sentences += [_about_nc4(history), accuracies(history), _about_test(history)]
    return [sentence for sentence in sentences if sentence]


def _about_test(history: History) -> str:
    """How NC1 on test data compares with NC1 on training data, where both were measured last."""
    test, train = history.last("test_nc1"), history.then("nc1", history.when("test_nc1"))
    if not _finite(test) or not _finite(train) or not train:
        return ""
    ratio = test / train
    if ratio > _ALIKE:
        beside = f"{number(ratio, 2)} times that of the training data"
    else:
        beside = "as on the training data" if ratio > 1 / _ALIKE else "smaller than on the training data"
    when = history.earlier("test_nc1")
    return f"On test data NC1 is {test:.2g}, {beside}{when and f' (both at {when})'}."


def _about_nc4(history: History) -> str:
    way, _ = movement(history.first("nc4"), history.last("nc4"))
    relative, size = movement(history.first("nc4_relative"), history.last("nc4_relative"))
    if way == "rose" and relative == "fell":
        return f"NC4, which concerns the bias, has the units of the logits. They grew; relative to them it fell {size}."
    return ""


def accuracies(history: History) -> str:
    """Training and test accuracy at the end, as far as they are known."""
    known = [
        f"{history.last(name):.1%} of the {kind} data{(when := history.earlier(name)) and f' (at {when})'}"
        for name, kind in (("train_accuracy", "training"), ("test_accuracy", "test"))
        if history.last(name) is not None
    ]
    return f"The network classifies {_listed(known)} correctly." if known else ""


def comparison(histories: Sequence[History]) -> str:
    """The sentence that a report of several runs opens with.

    >>> runs = [History(n, {"epoch": [0, 1], "nc1": [2.0, v]}) for n, v in (("a", 0.1), ("b", 0.5))]
    >>> comparison(runs)
    '2 runs compared: a has the smallest NC1 (0.1), b the largest (0.5).'
    """
    ends = {history.name: value for history in histories if _finite(value := history.last("nc1"))}
    if len(ends) < 2:
        return f"{len(histories)} runs compared."
    low, high = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
    return (
        f"{len(histories)} runs compared: {low} has the smallest NC1 ({ends[low]:.2g}), {high} the largest "
        f"({ends[high]:.2g})."
    )


def _finite(value: float | int | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
