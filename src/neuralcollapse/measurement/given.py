"""What people give a tracker beside the model: further columns of a row, and values that say how the run is made."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from neuralcollapse.geometry import CollapseMetrics
from neuralcollapse.measurement.rows import as_cell
from neuralcollapse.measurement.run_folder import check_names

_OWN = ("epoch", "seconds")
_MEASURED = ("train_accuracy", "ncc_mismatch", *(field.name for field in dataclasses.fields(CollapseMetrics)))

_WORDS = ("dataset", "model", "head", "optimizer", "precision")
_NUMBERS = ("learning_rate", "momentum", "weight_decay", "feature_decay", "batch_size", "epochs", "seed")
_LISTS = ("class_names",)
_CLOSE = 0.85
"""From this similarity on, a name counts as a misspelling of another."""


def numbers(columns: Mapping[str, Any], *, tested: bool) -> dict[str, float | int | None]:
    """Columns as Python's own numbers, whatever holds them: NumPy's scalars, tensors of one element.

    Args:
        columns: further columns of a row.
        tested: whether test data is measured too, so that its columns are taken.

    Raises:
        ValueError: if a name is no column's, the tracker fills that column itself, or a value is no number.
    """
    check_names(columns)
    found: dict[str, float | int | None] = {}
    for name, value in columns.items():
        measured = name.removeprefix("test_") if tested else name
        if name in _OWN or measured in _MEASURED:
            raise ValueError(
                f"{name}= is a column that the tracker fills itself: choose another name, such as my_{name}"
            )
        value = value.detach() if hasattr(value, "detach") else value  # a loss that still has its graph
        found[name] = as_cell(name, value)
    return found


def described(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a description as config.yaml can hold them.

    Raises:
        ValueError: if a name is nearly that of a value that the report reads.
        TypeError: if a value is of another kind than the report reads there, or not plain.
    """
    for name, value in config.items():
        if error := refusal(name, value, config):
            raise error
    return {name: _plain(value) for name, value in config.items()}


def refusal(name: str, value: Any, others: Mapping[str, Any]) -> Exception | None:
    """Why a value cannot describe a run; None where it can. A name of one's own is no misspelling of one given too."""
    known = (*_WORDS, *_NUMBERS, *_LISTS)
    close = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=_CLOSE)
    if close and close[0] not in others:
        return ValueError(f"{name}= is unknown: did you mean {close[0]}=? Otherwise choose a name that is less similar")
    value = _plain(value)
    if value is None:
        return None
    if name in _WORDS and not isinstance(value, str):
        return TypeError(f"{name}={value!r} must be a string, such as its name")
    if name in _NUMBERS and not _is_number(value):
        return TypeError(f"{name}={value!r} must be a number")
    if name in _LISTS and not isinstance(value, list | tuple):
        return TypeError(f"{name}={value!r} must be a list of names")
    return None if _fits_yaml(value) else TypeError(f"{name}={value!r} is no plain value: give a number or a string")


def shared(groups: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The value that all parameter groups of an optimizer have, such as their ``lr``; None where they differ."""
    found = {None if group.get(name) is None else float(group[name]) for group in groups}
    return found.pop() if len(found) == 1 else None


def _plain(value: Any) -> Any:
    """NumPy's scalars, and arrays and tensors of one element, as Python's own numbers."""
    count = value.numel() if hasattr(value, "numel") else getattr(value, "size", None)
    return value.item() if hasattr(value, "item") and count == 1 else value


def _is_number(value: Any) -> bool:
    try:
        float(value)  # YAML reads 5e-4 as a string
    except (TypeError, ValueError, RuntimeError):  # torch: a tensor of several elements
        return False
    return not isinstance(value, bool)


def _fits_yaml(value: Any) -> bool:
    import yaml

    try:
        yaml.safe_dump(value)
    except yaml.YAMLError:
        return False
    return True
