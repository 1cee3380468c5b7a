"""The progress bar of a pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any


def tracked(loader: Iterable[Any], progress: bool | None) -> Iterator[Any]:
    """Batches, with a progress bar where it is wanted or the terminal can show one."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not (console.is_terminal if progress is None else progress):
        yield from loader
        return
    try:
        total = len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader over an IterableDataset has the method, and refuses to answer
        total = None
    yield from track(loader, "Measuring", total=total, console=console, transient=True)
