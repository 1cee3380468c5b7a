"""``neuralcollapse report``."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from neuralcollapse.cli.options import numbers, writable
from neuralcollapse.extras import check_pictures
from neuralcollapse.run_files import CONFIG, METRICS, REPORT


def report(
    runs: Annotated[list[Path], Parameter(negative=())],
    /,
    *,
    output: Path | None = None,
    classes: str | None = None,
    figures: Path | None = None,
    format: Literal["svg", "png"] = "svg",
) -> None:
    """Draw one or more runs as one self-contained HTML page, and as figures if you like.

    The page works offline and shows the measures over the epochs and the class means in space. Several runs are
    drawn over each other.

    For example:
      neuralcollapse report runs/digits-mlp-sgd-seed0
      neuralcollapse report runs/mnist-* --output comparison.html
      neuralcollapse report runs/digits-mlp-sgd-seed0 --figures figures   # needs pip install '.[figures]' and Chromium
      neuralcollapse report runs/digits-mlp-sgd-seed0 --figures figures --format png

    Args:
        runs: Run folders, made by neuralcollapse train, by CollapseTracker in your own loop, or by a callback.
        output: The page. By default report.html in the run, and comparison.html beside several runs.
        classes: Two to four classes to show in space first. By default the first four with samples.
            The page lets you choose others.
        figures: Folder for figures as well. It needs the extra 'figures' and Chrome or Chromium.
        format: File format of the figures.
    """
    shown = None if classes is None else numbers(classes, "--classes", "0,1,2,3", int)
    if not any((run / name).is_file() for run in runs for name in (METRICS, CONFIG)):
        raise FileNotFoundError(f"no {METRICS} in {runs[0]}: is it a run folder?")
    page = writable(output or _default_page(runs), "--output")
    if figures:
        check_pictures("figures (--figures)")
    writable(figures, "--figures", folder=True)
    from neuralcollapse.report import RunSkipped, write_figures, write_report

    assert page is not None
    print(f"Report: {write_report(runs, page, classes=shown)}")
    if figures:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RunSkipped)  # said for the page
            paths = write_figures(runs, figures, classes=shown, format=format)
        for path in paths:
            print(f"Figure: {path}")


def _default_page(runs: list[Path]) -> Path:
    """A page of several runs stays out of the folder of each."""
    if len(runs) == 1:
        return runs[0] / REPORT
    return Path(os.path.commonpath([run.absolute().parent for run in runs])) / "comparison.html"
