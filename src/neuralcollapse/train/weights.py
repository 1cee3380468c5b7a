"""The weights of a network within what a checkpoint holds: under any nesting of mappings and prefixes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_COMPILED = "_orig_mod."
"""What torch.compile puts into names, at any place."""

_DEPTH = 5
"""Mappings within mappings that are looked into."""


@dataclass(frozen=True)
class Weights:
    """All that one network wants, by its own names."""

    place: str
    """Where it was found: the keys of mappings and the prefix of names; empty for neither."""
    source: Mapping[str, Any]
    """The mapping that holds it."""
    state: dict[str, Any]
    """The tensors, by the names that the network has for them."""

    @property
    def key(self) -> str:
        """What names this place among those of its file; a dot where there is no key and no prefix."""
        return self.place.rstrip(".") or "."

    def under(self, key: str) -> bool:
        """Whether the keys and prefixes that lead here include these, next to one another and in their order."""
        parts, asked = self.key.split("."), key.strip(".").split(".")
        if asked == [""]:
            return self.key == "."
        return any(parts[start : start + len(asked)] == asked for start in range(len(parts)))

    def fits(self, wanted: Mapping[str, Any]) -> bool:
        """Whether shapes agree as well as names."""
        return all(_shape(self.state[key]) == _shape(value) for key, value in wanted.items())

    def equals(self, other: Weights) -> bool:
        """Whether both hold the same numbers: one network saved under two names."""
        return all(_equal(value, other.state[key]) for key, value in self.state.items())

    def holds(self, other: Weights) -> bool:
        """Whether the other's tensors are among these."""
        own = {id(value) for value in self.state.values()}
        return all(id(value) in own for value in other.state.values())


def found_in(content: Mapping[Any, Any], wanted: Collection[str]) -> list[Weights]:
    """Every place where all that a network wants lies under one prefix of one mapping; shorter prefixes first."""
    names = {key: key.replace(_COMPILED, "") for key in wanted}
    longest = max(names.values(), key=len, default="")
    found = []
    for place, mapping in mappings_in(content):
        stored = {key.replace(_COMPILED, ""): value for key, value in mapping.items() if isinstance(key, str)}
        for key in sorted(stored, key=lambda key: (len(key), key)):
            prefix = key.removesuffix(longest)
            if prefix == key and longest:
                continue
            if prefix[-1:] in ("", ".") and all(prefix + name in stored for name in names.values()):
                state = {own: stored[prefix + name] for own, name in names.items()}
                found.append(Weights(".".join(part for part in (place, prefix) if part), mapping, state))
    return found


def mappings_in(content: Mapping[Any, Any], place: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Mapping]]:
    """A mapping and those within it, by the keys that lead there."""
    yield place, content
    if depth:
        for key, part in content.items():
            if isinstance(part, Mapping):
                yield from mappings_in(part, f"{place}.{key}" if place else str(key), depth - 1)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.shape == other.shape and torch.equal(one, other))
    return type(one) is type(other)
