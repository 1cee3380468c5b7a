"""Random generators wherever an object holds them: found, and set back to the states that they had."""

from __future__ import annotations

import collections
import functools
import itertools
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GENERATORS = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)

_PLAIN = (
    str, bytes, bytearray, int, float, complex, bool, type(None), Tensor, np.ndarray, np.generic, type,
    types.ModuleType, types.FrameType, types.CodeType, types.TracebackType,
)  # fmt: skip
"""What holds no generator, or leads to the whole program."""

FAR_AWAY = frozenset({"_trainer", "trainer", "_fabric"})
"""Attributes that lead out of a model, to the whole program."""

_MOST_OBJECTS = 100_000
_MOST_PARTS = 10_000
"""Of one list or mapping: a data set may hold the names of millions of files."""


def generators_in(*owners: Any) -> list[Any]:
    """The random generators that objects reach: by attributes, of their classes as well, lists, mappings and functions.

    Nearest first; at most 100,000 objects are looked at. No code of theirs is run.
    """
    found: list[Any] = []
    seen: set[int] = set()
    kept: list[Any] = []  # whose identities must not be given to others meanwhile
    waiting = collections.deque(owners)
    while waiting and len(seen) < _MOST_OBJECTS:
        part = waiting.popleft()
        if id(part) in seen or issubclass(type(part), _PLAIN):  # isinstance would ask a proxy what it stands for
            continue
        seen.add(id(part))
        kept.append(part)
        if issubclass(type(part), _GENERATORS):
            found.append(part)
            continue
        waiting.extend(_parts(part))
    return found


def _parts(owner: Any) -> Iterator[Any]:
    """What an object holds."""
    kind = type(owner)
    if kind is types.FunctionType:
        yield from _of_function(owner)
    elif kind is types.MethodType:
        yield from (owner.__self__, owner.__func__)
    elif issubclass(kind, functools.partial):
        yield from (owner.func, owner.args, owner.keywords)
    elif issubclass(kind, dict):
        for key, value in itertools.islice(dict.items(owner), _MOST_PARTS):
            yield from (key, value)
    for base in (list, tuple, set, frozenset, collections.deque):
        if issubclass(kind, base):
            yield from itertools.islice(base.__iter__(owner), _MOST_PARTS)
    if kind not in (dict, list, tuple, set, types.FunctionType):
        yield from _attributes(owner)
        yield from _of_class(kind)


def _attributes(owner: Any) -> Iterator[Any]:
    try:
        table = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        table = {}
    yield from (part for name, part in list(table.items()) if name not in FAR_AWAY)
    for kind in type(owner).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                yield object.__getattribute__(owner, name)
            except AttributeError:  # not filled, or of a private name
                continue


def _of_class(kind: type) -> Iterator[Any]:
    """What the classes of the user hold for all of their objects, and what their methods reach."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("builtins", "torch", "numpy", "collections", "abc", "typing"):
            continue
        for part in list(vars(base).values()):
            found: Any = part.fget if type(part) is property else part
            found = found.__func__ if type(found) in (staticmethod, classmethod) else found
            if issubclass(type(found), (types.FunctionType, list, dict, tuple, *_GENERATORS)):
                yield found


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    """What a function holds, and the generators that it finds under a global name."""
    yield from (function.__defaults__ or (), function.__kwdefaults__ or {}, vars(function))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name in function.__code__.co_names:
        found = function.__globals__.get(name)
        if issubclass(type(found), _GENERATORS):
            yield found


def state_of(generator: Any) -> Any:
    """The state of a generator."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.BitGenerator):
        return generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def set_state(generator: Any, state: Any) -> None:
    """Give a generator a state that it had."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def states_in(*owners: Any) -> list[tuple[Any, Any]]:
    """The generators that objects reach, with their states; those that have none (SystemRandom) are left out."""
    found = []
    for generator in generators_in(*owners):
        try:
            found.append((generator, state_of(generator)))
        except NotImplementedError:
            continue
    return found
