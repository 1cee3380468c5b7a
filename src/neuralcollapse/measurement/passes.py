"""The pass of all processes over their shares of the data, and what they know together afterwards."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from neuralcollapse.geometry import CollapseWarning
from neuralcollapse.measurement.capture import Capture
from neuralcollapse.measurement.gather import Budget, Gathered, classes_of
from neuralcollapse.measurement.options import Captured, Options
from neuralcollapse.measurement.ranks import Ranks

_SCATTER_BYTES = 2 << 30
"""The d x d sums of all blocks together, with ``layers="all"``."""


@dataclass
class Seen:
    """What one process has gathered and, after the exchange, what all know."""

    main: Gathered
    """features that enter the classifier"""
    inner: Budget
    """for the layers, all together"""
    layers: dict[str, Gathered] = field(default_factory=dict)
    attacked: Gathered | None = None
    """features of the attacked inputs; None without an attack"""
    attacked_right: int = 0
    """of them classified rightly, over all ranks"""
    decisions: list[Tensor] = field(default_factory=list)
    """of the samples held"""
    right: int | None = None
    """samples classified rightly, over all ranks; None without a classifier"""
    weight: Tensor | None = None
    bias: Tensor | None = None
    classifier: str = ""
    held: tuple[Tensor, Tensor] | None = None
    """features and labels of this process"""
    held_everywhere: bool = False
    num_classes: int = 0
    widths: dict[str, int] = field(default_factory=dict)
    """of the features by layer; the classifier's under the empty name"""
    scatter: Budget | None = None
    """for the d x d sums of all layers together; None where they are not limited"""
    skipped: dict[str, str] = field(default_factory=dict)
    """why a block could not be measured, by name"""

    def add(self, batch: Captured, num_classes: int | None) -> None:
        """Take a batch."""
        self.main.num_classes = num_classes
        self.main.add(batch.features, batch.labels)
        for name, features in batch.layers.items():
            if name not in self.layers or self.layers[name].num_classes != num_classes:
                self.layers[name] = Gathered(self.inner, num_classes, self.scatter)
            self.layers[name].add(features, batch.labels)
        if batch.attacked is not None and self.attacked is not None:
            self.attacked.num_classes = num_classes
            self.attacked.add(batch.attacked.features, batch.labels)
            assert batch.attacked.logits is not None
            self.attacked_right += int((batch.attacked.logits.argmax(1) == batch.labels).sum())
        if batch.logits is None:
            return
        decisions = batch.logits.argmax(1)
        self.right = (self.right or 0) + int((decisions == batch.labels).sum())
        if self.main.held:
            self.decisions.append(decisions.cpu())
        else:
            self.decisions.clear()


def over_data(model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks, *, hold_bytes: int) -> Seen:
    """Run the model over the loader; every rank takes the same steps, and hears of an error on any other.

    Raises:
        BaseException: what went wrong here, or an error that names the rank where it did.
        ValueError: if no rank saw a sample.
    """
    every = options.layers == "all"
    seen = Seen(Gathered(Budget(hold_bytes)), Budget(0 if every else hold_bytes))
    seen.attacked = None if options.attack is None else Gathered(Budget(hold_bytes))
    seen.scatter = Budget(_SCATTER_BYTES) if every else None
    with contextlib.ExitStack() as leaving:
        capture = entered(model, loader, options, ranks, leaving)
        for name in capture.layer_names:
            seen.layers[name] = Gathered(seen.inner, capture.num_classes)
        error = taken(capture, ranks, lambda batch: seen.add(batch, capture.num_classes))
        _exchange(seen, ranks, error)
        finished(capture, ranks)
    seen.skipped = capture.skipped
    seen.weight, seen.bias = capture.weight, capture.bias
    seen.classifier = "" if capture.head is None else capture.head.name
    return seen


def taken(capture: Capture, ranks: Ranks, take: Callable[[Captured], None]) -> BaseException | None:
    """Give every batch to a function; the error that stopped this rank, for the exchange that has to follow."""
    ranks.share_buffers(capture.model)
    try:
        for batch in capture:
            take(batch)
    except BaseException as failure:  # Ctrl-C as well: the others are waiting
        return failure
    return None


def finished(capture: Capture, ranks: Ranks) -> None:
    """Read the weight and bias of the head, on every rank."""
    error: BaseException | None = None
    try:
        capture.finish()
    except Exception as failure:
        error = failure
    ranks.agree(error)


def entered(
    model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks, leaving: contextlib.ExitStack
) -> Capture:
    """A capture that every rank has entered, or the error of the one that could not."""
    capture: Capture | None = None
    error: BaseException | None = None
    try:
        capture = Capture(model, loader, options, ranks)
        leaving.enter_context(capture)
    except BaseException as failure:
        error = failure
    ranks.agree(error)
    assert capture is not None
    return capture


def _exchange(seen: Seen, ranks: Ranks, error: BaseException | None) -> None:
    widths = {"": seen.main.width, **{name: layer.width for name, layer in seen.layers.items()}}
    records = ranks.agree(
        error,
        widths=widths,
        samples=seen.main.samples,
        held=seen.main.held,
        right=seen.right,
        attacked_right=seen.attacked_right,
        classes=seen.main.num_classes,
        largest=seen.main.largest_label,
    )
    samples = sum(record["samples"] for record in records)
    if not samples:
        raise ValueError("no samples were seen: the loader is empty")
    seen.held_everywhere = all(record["held"] for record in records)
    seen.held = seen.main.tensors() if seen.main.held else None
    seen.attacked_right = sum(record["attacked_right"] for record in records)
    answers = [record["right"] for record in records if record["right"] is not None]
    seen.right = sum(answers) if answers else None
    chosen = [record["classes"] for record in records if record["classes"] is not None]
    seen.widths = agreed_widths(records)
    for name in list(seen.widths)[1:]:  # a rank without samples has not seen which blocks there are
        if not seen.main.samples:
            seen.layers.setdefault(name, Gathered(seen.inner, seen.main.num_classes, seen.scatter))
    seen.num_classes = chosen[0] if chosen else classes_of(max(record["largest"] for record in records), samples)


def agreed_widths(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Width of the features of each layer, the classifier's first under the empty name.

    Raises:
        ValueError: if the ranks disagree.
    """
    names = max((list(record["widths"]) for record in records), key=len)
    widths = {}
    for name in names:
        found = {record["widths"].get(name) for record in records} - {None}
        if len(found) != 1:
            raise ValueError(f"the ranks measure features of different widths: {', '.join(map(str, sorted(found)))}")
        widths[name] = found.pop()
    return widths


def readable_again(loader: Iterable[Any], ranks: Ranks, lost: str) -> bool:
    """Whether the data can be read a second time, on every rank; a warning says what is lost where they cannot."""
    if any(ranks.gather(isinstance(loader, Iterator))):
        warnings.warn(
            f"the loader is an iterator, which can be read only once: {lost}. Pass a list of batches or a DataLoader",
            CollapseWarning,
            stacklevel=4,
        )
        return False
    return True


def read_alike(first: int, second: int, lost: str, kind: str = "samples") -> bool:
    """Whether a second pass saw as much as the first; a warning says what is lost where it did not.

    A loader may hand out the same iterator each time: it can be read once, though it is no iterator.
    """
    if first == second:
        return True
    warnings.warn(
        f"the loader gave {first} {kind} when it was read, and {second} when it was read again: {lost}. Pass a loader "
        "that gives the same data each time, such as a list of batches or a DataLoader",
        CollapseWarning,
        stacklevel=4,
    )
    return False
