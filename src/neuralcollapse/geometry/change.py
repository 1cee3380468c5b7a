"""How a measure moved, in words: the one wording of every table, page and verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable

STILL = 1.05
"""Smaller factors count as no change in a sentence that names several measures."""


def largest_early(
    steps: Iterable[float | int], values: Iterable[float | int | None], end: float | int
) -> float | int | None:
    """A measure's largest value in the first tenth of training, without the untrained network's.

    Args:
        steps: the epoch of each value.
        values: of the measure; what is not finite counts as unmeasured.
        end: the last epoch.

    >>> largest_early([0, 5, 10, 50], [9.0, 2.0, 3.0, 7.0], 100)
    3.0
    """
    early = [value for step, value in zip(steps, values, strict=True) if 0 < step <= end / 10 and value is not None]
    return max((value for value in early if math.isfinite(value)), default=None)


def change(before: float, after: float) -> str:
    """How a measure moved.

    >>> change(8.0, 0.5), change(0.027, 1.0), change(6.0, 0.003), change(2.0, 2.0), change(1.0, 0.0)
    ('fell 16-fold', 'rose 37-fold', 'fell 2,000-fold', 'unchanged', 'fell to 0')
    >>> change(1.0, 1.004), change(1.0, 0.95)
    ('rose by 0.4%', 'fell by 5.0%')
    """
    way, size = movement(before, after, still=1.0)
    return {"stayed": "unchanged", "unknown": "undefined"}.get(way, f"{way} {size}")


def movement(before: float | None, after: float | None, still: float = STILL) -> tuple[str, str]:
    """Direction (fell, rose, stayed or unknown) and size of a change; factors up to ``still`` count as none.

    >>> movement(8.0, 0.5), movement(0.027, 1.0), movement(2.0, 2.01), movement(1.0, 0.0)
    (('fell', '16-fold'), ('rose', '37-fold'), ('stayed', ''), ('fell', 'to 0'))
    """
    if before is None or after is None or not (math.isfinite(before) and math.isfinite(after)):
        return "unknown", ""
    low, high = sorted((before, after))
    way = "fell" if after < before else "rose"
    if high == low or (low > 0 and high / low < still):
        return "stayed", ""
    if low <= 0:
        return way, f"to {after:.3g}"
    if high / low < 1.1:
        return way, f"by {abs(after / before - 1):.1%}"
    return way, f"{_factor(high / low)}-fold"


def _factor(ratio: float) -> str:
    if ratio >= 1e6:
        mantissa, _, power = f"{ratio:.0e}".partition("e+")
        return f"{mantissa}·10^{int(power)}"
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}".removesuffix(".0")
