"""A run read back for drawing: its curves, the geometry of its measured epochs, and how it was made."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.figures.curves import Columns
from neuralcollapse.figures.simplex import Frame, chosen_classes, frame_of
from neuralcollapse.geometry.etf import lowest_frame_distance
from neuralcollapse.geometry.measures import HEADLINE
from neuralcollapse.measurement.run_folder import CONFIG, METRICS, read_config, read_metrics
from neuralcollapse.measurement.snapshots import read_snapshot, snapshots
from neuralcollapse.report.template import is_page

_MOST_FRAMES = 60


class RunSkipped(UserWarning):
    """A folder among several was left out of a report."""


@dataclass(frozen=True)
class History:
    """What is drawn of a run. Only the columns are needed."""

    name: str
    metrics: Columns
    """Columns by name; the first is what the curves are drawn against."""
    config: dict[str, Any] = field(default_factory=dict)
    """Plain values that say how it was made."""
    chosen: tuple[int, ...] = ()
    """Classes in the view in space, when the page opens."""
    frames: list[Frame] = field(default_factory=list)
    version: str | None = None
    """Of the package that made it."""
    shape: tuple[int, int] | None = None
    """Classes and features of the classifier."""
    present: int | None = None
    """Classes that have samples."""

    @property
    def class_names(self) -> list[str]:
        """Names from the configuration where it has them, otherwise numbers."""
        given = self.config.get("class_names")
        shown = len(self.frames[0].means) if self.frames else 0
        names = [str(name) for name in given] if isinstance(given, list) else []
        return names + [str(number) for number in range(len(names), shown)]

    @property
    def lowest(self) -> float:
        """What NC2 and NC3 cannot be below: 0 unless the classes outnumber the dimensions."""
        if self.shape is None:
            return 0.0
        classes, dim = self.shape
        return lowest_frame_distance(self.present or classes, dim)

    def when(self, name: str) -> float | int | None:
        """The step at which the last value of a column was measured."""
        steps = next(iter(self.metrics.values()))
        pairs = zip(reversed(steps), reversed(self.metrics.get(name, ())), strict=False)
        return next((step for step, value in pairs if value is not None), None)

    def then(self, name: str, step: float | int | None) -> float | int | None:
        """A column's value at a step; None where it was not measured."""
        pairs = zip(next(iter(self.metrics.values())), self.metrics.get(name, ()), strict=False)
        return next((value for at, value in pairs if at == step), None)

    def earlier(self, name: str) -> str:
        """The step of a column's last value, in words, where others were measured later; otherwise empty."""
        step, when = next(iter(self.metrics)), self.when(name)
        return "" if when is None or when == self.last(step) else f"{step} {when:g}"

    def first(self, name: str) -> float | int | None:
        """The first value of a column."""
        return next((value for value in self.metrics.get(name, ()) if value is not None), None)

    def last(self, name: str) -> float | int | None:
        """The last value of a column."""
        return next((value for value in reversed(self.metrics.get(name, ())) if value is not None), None)


def read_history(folder: str | Path, classes: Sequence[int] | None = None) -> History:
    """Read a run folder for drawing.

    Args:
        folder: any folder with a metrics.csv, as ``neuralcollapse train`` and ``CollapseTracker`` write it;
            config.yaml, provenance.json and snapshots are read where they are.
        classes: two to four of the first ten classes for the view in space; by default the first four with samples.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if nothing is measured yet, a file is damaged, or a class is not among those sampled.
    """
    folder = Path(folder)
    if not (folder / METRICS).is_file() and not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"no {METRICS} in {folder}: is it a run folder?")
    rows = [row for row in read_metrics(folder) if any(row.get(name) for name in HEADLINE)]
    if not rows:
        raise ValueError(f"{folder} has no measured epoch yet: there is nothing to draw")
    metrics = {name: [float(row[name]) if row[name] else None for row in rows] for name in _epoch_first(rows[0])}
    frames, shape = _frames(folder, {int(row["epoch"]) for row in rows})
    chosen = chosen_classes(classes, frames[-1].present[: len(frames[-1].gram)]) if frames else ()
    name = folder.name or folder.resolve().name
    present = frames[-1].classes if frames else None
    return History(name, metrics, read_config(folder), chosen, frames, _version(folder), shape, present)


def read_histories(
    folders: Sequence[str | Path], classes: Sequence[int] | None = None
) -> tuple[list[History], list[str]]:
    """The runs among several folders, and a sentence about those that were left out, for each reason.

    Pages of this package are no folders, and nobody needs to hear so: ``report runs/*`` meets the page that it wrote.

    Raises:
        FileNotFoundError: if none of them holds a run, or the only one does not.
        ValueError: as :func:`read_history`, where there is only one folder.
    """
    if len(folders) == 1:
        return [read_history(folders[0], classes)], []
    found, no_runs, skipped = [], [], []
    for folder in folders:
        if is_page(Path(folder)):
            continue
        try:
            found.append(read_history(folder, classes))
        except FileNotFoundError:
            no_runs.append(str(folder))
        except ValueError as error:
            if str(error).startswith("classes="):
                raise
            skipped.append(f"left out {folder}: {error}")
    if no_runs:
        skipped.insert(0, f"left out {', '.join(no_runs)}: no {METRICS} there, so no run folder")
    if not found:
        reasons = "; ".join(sentence.removeprefix("left out ") for sentence in skipped) or "they are pages"
        raise FileNotFoundError(f"none of the {len(folders)} folders holds a run that can be drawn: {reasons}")
    return _named_apart(found), skipped


def warn_of(skipped: Sequence[str]) -> None:
    """Warn of the runs that were left out, in the name of the caller's caller."""
    for sentence in skipped:
        warnings.warn(sentence, RunSkipped, stacklevel=3)


def _epoch_first(names: Mapping[str, str]) -> list[str]:
    return ["epoch", *(name for name in names if name != "epoch")]


def _frames(folder: Path, epochs: set[int]) -> tuple[list[Frame], tuple[int, int] | None]:
    files = [(epoch, path) for epoch, path in snapshots(folder) if epoch in epochs]
    frames: list[Frame] = []
    shape = None
    for epoch, path in _thinned(files):
        held = {name: tensor.numpy() for name, tensor in read_snapshot(path).items()}
        classes, dim = held["weight"].shape
        shape = classes, dim
        frames.append(
            frame_of(
                epoch, held["weight"], held["class_means"], held["global_mean"],
                held.get("sample_products"), held.get("sample_labels"), held.get("present"),
            )
        )  # fmt: skip
    return frames, shape


def _thinned(files: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most so many frames; early epochs, when most happens, stay closest together."""
    if len(files) <= _MOST_FRAMES:
        return files
    picks = np.unique(np.round((len(files) - 1) * np.linspace(0, 1, _MOST_FRAMES) ** 1.5).astype(int))
    return [files[pick] for pick in picks]


def _version(folder: Path) -> str | None:
    """Of the package, as the run's provenance has it."""
    from neuralcollapse.train.provenance import read_provenance

    try:
        record = read_provenance(folder) or {}
        return str(record["sessions"][-1]["neuralcollapse"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # an older run, or another tool's file: the page says less


def _named_apart(found: list[History]) -> list[History]:
    """Runs of the same folder name get a number."""
    names = numbered([history.name for history in found])
    return [dataclasses.replace(one, name=name) for one, name in zip(found, names, strict=True)]


def numbered(names: Sequence[str]) -> list[str]:
    """The names, those that occur more than once with a number behind them, so that no two are equal.

    >>> numbered(["mlp", "adam", "mlp"])
    ['mlp (1)', 'adam', 'mlp (2)']
    """
    taken = {name for name in names if names.count(name) == 1}
    found = []
    for name in names:
        free = name
        if names.count(name) > 1:
            free = next(one for count in itertools.count(1) if (one := f"{name} ({count})") not in taken)
            taken.add(free)
        found.append(free)
    return found
