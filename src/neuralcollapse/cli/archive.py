"""``neuralcollapse archive``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from neuralcollapse.cli.options import UsageError, writable


def archive(runs: Annotated[list[Path], Parameter(negative=())], /, *, into: Path) -> None:
    """Copy the small files of a run (some kilobytes): configuration, provenance, measured epochs, last snapshot.

    Such a folder can be committed; report, certify and reproduce --draw read it. Rows of older versions get the
    measures that can be computed from their snapshots.

    For example:
      neuralcollapse archive runs/paper-narrow/*-seed0 --into results/narrow
      neuralcollapse reproduce all --scale narrow --output results/narrow --draw --static

    Args:
        runs: Run folders, made by neuralcollapse train, by a tracker or by a callback.
        into: Folder of the archived runs.
    """
    names = Counter(run.name for run in runs)
    if twice := [str(run) for run in runs if names[run.name] > 1]:
        raise UsageError(f"{' and '.join(twice)} have the same name in --into {into}: archive them into two folders")
    writable(into, "--into", folder=True)
    from neuralcollapse.paper.archive import archive as keep

    for run in runs:
        print(keep(run, into))
