"""Times in the words of a reader."""

from __future__ import annotations


def duration(seconds: float | int) -> str:
    """A time to two digits, which is all that an estimate is worth.

    >>> [duration(value) for value in (0.4, 42.0, 600.0, 5000.0, 7385.0, 36000.0, 720000.0)]
    ['1 s', '42 s', '10 min', '83 min', '2.1 h', '10 h', '200 h']
    """
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 10 else f"{round(hours):,} h"
