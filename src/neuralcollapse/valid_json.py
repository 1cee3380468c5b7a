"""Writes NaN and infinity as null, so that every JSON reader accepts the file: Python alone writes NaN and Infinity."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(value: Any, *, indent: int | None = 1) -> str:
    """Plain values as JSON; a number that is not finite becomes null.

    Args:
        value: dictionaries, lists, tuples, strings, numbers, booleans and None.
        indent: spaces per level; None writes one line.

    Raises:
        TypeError: if a value is none of these.

    >>> dumps({"nc1": float("nan"), "nc2": [1.0, float("inf")]}, indent=None)
    '{"nc1": null, "nc2": [1.0, null]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
