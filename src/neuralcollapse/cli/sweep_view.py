"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcollapse.paper.cost import Forecast
    from neuralcollapse.paper.sweep import Job


@contextlib.contextmanager
def watching(terminal: bool, forecast: Forecast) -> Iterator[Callable[[Sequence[Job]], None]]:
    """On a terminal a live table of the runs, otherwise a line for each change; both say how long it still takes."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=not terminal)
    if terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            yield lambda jobs: live.update(_table(jobs, console.height - 7, _left(forecast, jobs)), refresh=True)
        return
    known: dict[str, str] = {}

    def print_changes(jobs: Sequence[Job]) -> None:
        for job in jobs:
            said = f"{job.state}{f', attempt {job.attempts}' if job.attempts > 1 else ''}"
            if known.get(job.name, "waiting") != said:
                known[job.name] = said
                error = f": {job.error}" if job.error else ""
                console.print(
                    f"[{_done(jobs)}/{len(jobs)}] {job.name} {said}{error}{_left(forecast, jobs)}", markup=False
                )

    yield print_changes


def _done(jobs: Sequence[Job]) -> int:
    return sum(job.state == "finished" for job in jobs)


def _left(forecast: Forecast, jobs: Sequence[Job]) -> str:
    from neuralcollapse.durations import duration

    seconds = forecast.left(jobs)
    return "" if seconds is None else f" (about {duration(seconds)} left)"


_COLOURS = {"running": "cyan", "failed": "red", "waiting": "default", "finished": "green"}
"""In the order in which they matter, where the terminal has not room for all."""


def _table(jobs: Sequence[Job], room: int, left: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    caption = f"{_done(jobs)} of {len(jobs)} finished{left}"
    table = Table("run", "state", "epoch", "minutes", "attempts", "error", caption=caption)
    shown = jobs if len(jobs) <= room else sorted(jobs, key=lambda job: list(_COLOURS).index(job.state))
    for job in shown[: max(room, 1)]:
        seconds = job.seconds
        if job.state == "running":
            seconds += time.monotonic() - job.started
        epochs = job.outcome.epochs
        table.add_row(
            Text(job.name),
            Text(job.state, _COLOURS[job.state]),
            f"{epochs if job.state == 'finished' else job.outcome.done}/{epochs}",
            f"{seconds / 60:.1f}" if seconds else "",
            str(job.attempts or ""),
            Text(job.error[:60]),
        )
    return table
