"""What a batch is: which part of it are labels, which are inputs, and how the model takes them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from neuralcollapse.measurement.labels import ADVICE, Task, looks_like_labels

LABEL_NAMES = ("labels", "label", "targets", "target", "y")
"""Names under which mappings and named tuples hold their labels."""

_INPUT_NAMES = (
    "pixel_values", "input_ids", "inputs_embeds", "input_values", "input_features", "inputs", "input", "x", "image",
    "images", "img", "pixels", "features", "data",
)  # fmt: skip
"""Names of the one input of a model, in mappings whose keys are not those of the model's arguments."""

_OF_POSITIONS = re.compile(r"mask|embed|_ids?$|cache|past|hidden|pixel|bbox")
"""Arguments of which each sample has many numbers, so that one class index per sample is none of them."""

_FLAGS = {"bool", "int", "float", "str"}


def split_batch(batch: Any, model: nn.Module | None = None, task: Task = "classification") -> tuple[Any, Any]:
    """Inputs and labels of a batch.

    A mapping or named tuple holds its labels by name. In a tuple or list the labels come after as many inputs as
    the model requires, or where it requires an argument of their name, and what follows them (an index, a file name)
    is left out. A model that requires its labels gets them.

    Args:
        batch: what a loader gave.
        model: whose ``forward`` says how many inputs it takes.
        task: what labels look like.

    Raises:
        ValueError: if the labels cannot be told from the inputs.
    """
    fields = _fields(batch)
    if fields is not None:
        name = next((name for name in LABEL_NAMES if name in fields), None)
        if name is None:
            raise ValueError(
                f"the batch has keys {', '.join(map(str, fields)) or '(none)'}: none of them is labels or label; "
                f"{ADVICE}"
            )
        inputs = {key: value for key, value in fields.items() if key != name}
        if not inputs:
            raise ValueError(f"the batch holds {name} and nothing else: it has no inputs")
        wanted = [
            argument for argument in _required_of(model)[1:] if argument in LABEL_NAMES and argument not in inputs
        ]
        return inputs | dict.fromkeys(wanted, fields[name]), fields[name]
    if not isinstance(batch, tuple | list):
        way = "pass two tensors X and Y as [(X, Y)], or " if hasattr(batch, "shape") else ""
        raise ValueError(
            f"the loader gave a {type(batch).__name__}: expected (inputs, labels) pairs or mappings with labels; "
            f"{way}{ADVICE}"
        )
    if len(batch) < 2:
        raise ValueError(
            f"the loader gave a {type(batch).__name__} of {len(batch)}: there are no labels in it; {ADVICE}"
        )
    if len(batch) == 2:
        return batch[0], batch[1]
    place = _label_place(batch, model, task)
    required = _required_of(model)
    given = batch[: len(required) if place < len(required) else place]
    return (given[0] if len(given) == 1 else tuple(given)), batch[place]


def _fields(batch: Any) -> Mapping[Any, Any] | None:
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple, where its names say which is which
        fields = dict(zip(batch._fields, batch, strict=True))
        return fields if any(name in fields for name in LABEL_NAMES) else None
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return None


def _label_place(batch: Sequence[Any], model: nn.Module | None, task: Task) -> int:
    """Index of the labels among three or more parts."""
    places = [place for place in range(1, len(batch)) if looks_like_labels(batch[place], task)]
    required = _required_of(model)
    first = max(1, len(required))  # part after as many inputs as the model requires
    named = next((place for place, name in enumerate(required) if place and name in LABEL_NAMES), None)
    if named in places and (task == "classification" or first not in places):
        return named
    taker = None if model is None or named in places else _taker(model, first, task)
    if first in places and named not in places and (taker is None or places[-1] == first):
        return first
    if len(places) == 1:
        return places[0]
    found = ", ".join(_described(part) for part in batch)
    if taker is not None and first in places:
        raise ValueError(
            f"the batch has {len(batch)} parts ({found}), and its part {first}, counted from 0, could be the labels or "
            f"the argument {taker!r} of the model: {ADVICE}"
        )
    raise ValueError(f"the batch has {len(batch)} parts ({found}), and the labels could be any of them: {ADVICE}")


def _required_of(model: nn.Module | None) -> list[str]:
    return [] if model is None else _required(model.forward)


def _taker(model: nn.Module, place: int, task: Task) -> str | None:
    """The optional argument that could take the part of a batch at this place; None where there is none."""
    parameters = _parameters(model.forward)
    places = _positional(parameters)
    if place >= len(places):
        several = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
        return f"*{several[0]}" if several else None
    argument = places[place]
    words = set(re.findall(r"\w+", str(argument.annotation))) - {"Optional", "Union", "typing", "None", "class"}
    is_flag = argument.default not in (None, argument.empty) or (bool(words) and words <= _FLAGS)
    if is_flag or argument.name in LABEL_NAMES:
        return None
    return None if task == "classification" and _OF_POSITIONS.search(argument.name) else argument.name


def _described(part: Any) -> str:
    shape = getattr(part, "shape", None)
    return type(part).__name__ if shape is None else f"{type(part).__name__} {tuple(shape)}"


def note_on(error: Exception, number: int, batch: Any) -> str:
    """What is added to an error that comes up while a batch is measured: torch's own name no batch."""
    fields = _fields(batch)
    parts = list(fields.values()) if fields is not None else batch if isinstance(batch, tuple | list) else [batch]
    said = f"while measuring batch {number} ({', '.join(_described(part) for part in parts)})"
    if isinstance(error, NotImplementedError):
        said += "; a model without a forward of its own needs forward=, a function of (model, inputs)"
    return said


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # compiled code without a signature
        return []


def _positional(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in parameters if parameter.kind in kinds]


def _required(function: Callable[..., Any]) -> list[str]:
    places = _positional(_parameters(function))
    return [parameter.name for parameter in places if parameter.default is parameter.empty]


def arguments(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How ``forward`` takes the inputs: positional and keyword arguments.

    Raises:
        ValueError: if a mapping's keys are not the names of the model's arguments and no single input stands out.
    """
    parameters = _parameters(model.forward)
    kinds = {parameter.kind for parameter in parameters}
    required = _required(model.forward)
    if isinstance(inputs, Mapping):
        named = {str(key): value for key, value in inputs.items()}
        taken = {parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
        known = {key: value for key, value in named.items() if key in taken}  # the rest is an index or a name
        if inspect.Parameter.VAR_KEYWORD in kinds and (known or not _positional(parameters)):
            known = named
        if known and set(required) <= set(known):
            return (), known
        return (_only_input(named, required),), {}
    if isinstance(inputs, tuple | list) and len(inputs) > 1 and not hasattr(inputs, "batch_sizes"):
        places = _positional(parameters)[len(required) : len(inputs)]
        fits = len(_positional(parameters)) >= len(inputs) and all(place.default is None for place in places)
        if inspect.Parameter.VAR_POSITIONAL in kinds or len(required) >= 2 or fits:
            return tuple(inputs), {}
    return (inputs,), {}


def _only_input(named: dict[str, Any], required: Sequence[str]) -> Any:
    if len(named) == 1:
        (only,) = named.values()
        # A model of nested mappings takes the mapping itself: what it looks up lies inside.
        return named if isinstance(only, Mapping) and len(required) == 1 else only
    if len(required) == 1:
        for name in _INPUT_NAMES:
            if name in named:
                return named[name]
        if required[0] in ("batch", "inputs", "data", "sample"):  # it takes the mapping itself
            return named
    raise ValueError(
        f"the batch has inputs {', '.join(named)}, and the model takes {', '.join(required) or 'none of them'}: "
        f"{ADVICE}, or forward=, a function of (model, inputs)"
    )


def names_of(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """The inputs by the names of the arguments of ``forward``, as far as these are known."""
    try:
        positional, keywords = arguments(model, inputs)
        return dict(inspect.signature(model.forward).bind(*positional, **keywords).arguments)
    except (TypeError, ValueError):
        return dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}


def takes_model(forward: Callable[..., Any]) -> bool:
    """Whether a user's ``forward`` is a function of (model, inputs), and not of the inputs alone."""
    return len(_required(forward)) >= 2
