"""The look that all figures share: colours, margins, and logarithmic axes with few ticks."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
"""The palette of Okabe and Ito, which readers with any colour vision can tell apart."""

_MOST_TICKS = 5


def colour(index: int) -> str:
    """The colour of the run, class or layer at this position."""
    return COLOURS[index % len(COLOURS)]


def see_through(index: int, opacity: float) -> str:
    """The same colour, translucent, for bands."""
    code = colour(index)
    red, green, blue = (int(code[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def label(text: object) -> str:
    """Text for plotly, which reads a few HTML tags and its own placeholders in names and titles."""
    return html.escape(str(text)).replace("%", "&#37;")


def positive(values: Iterable[float | None]) -> list[float | None]:
    """What a logarithmic axis can show; a gap in place of anything else."""
    return [value if value is not None and 0 < value < math.inf else None for value in values]


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """A logarithmic axis that fits the values, with at most five labelled ticks."""
    shown = [value for value in values if value is not None and 0 < value < math.inf]
    if not shown:
        return {"type": "log", "range": [-1, 1], "tickvals": [0.1, 1, 10], "ticktext": ["0.1", "1", "10"]}
    low, high = math.log10(min(shown)), math.log10(max(shown))
    room = max(0.06 * (high - low), 0.04)
    low, high = low - room, high + room
    ticks = _ticks(low, high)
    return {"type": "log", "range": [low, high], "tickvals": ticks, "ticktext": [_tick_text(tick) for tick in ticks]}


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten where two fit; otherwise 1, 2 and 5 in each decade, or evenly spaced round numbers."""
    decades = range(math.ceil(low), math.floor(high) + 1)
    if len(decades) >= 2 and high - low >= 1.5:
        step = math.ceil(len(decades) / _MOST_TICKS)
        return [10.0**power for power in decades if power % step == 0]
    mantissas = [
        mantissa * 10.0**power
        for power in range(math.floor(low), math.floor(high) + 1)
        for mantissa in (1, 2, 5)
        if low <= math.log10(mantissa * 10.0**power) <= high
    ]
    if len(mantissas) >= 3:
        return mantissas
    start, end = 10.0**low, 10.0**high
    raw = (end - start) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    width = next(nice * unit for nice in (1, 2, 5, 10) if nice * unit >= raw)
    return [width * count for count in range(math.ceil(start / width), math.floor(end / width) + 1)]


def _tick_text(tick: float) -> str:
    power = math.log10(tick)
    if abs(power) > 3.5 and math.isclose(power, round(power)):
        return f"10<sup>{round(power)}</sup>".replace("-", "−")
    return f"{tick:,.0f}" if tick >= 1000 else f"{tick:.3g}"


def laid_out(figure: go.Figure, height: int) -> go.Figure:
    """Apply the shared look: no background of its own, so that light and dark pages show through."""
    figure.update_layout(
        height=height,
        margin={"l": 56, "r": 12, "t": 24, "b": 44},
        font={"size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        template="none",
        hovermode="closest",
    )
    return figure


def checked_names(names: Sequence[str], known: Iterable[str], argument: str) -> list[str]:
    """The names, if all are known.

    Raises:
        ValueError: naming the argument, the unknown name and the known ones.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{argument}: there is no {name!r}; choose among {', '.join(known)}")
    return list(names)
