"""The rows that a recorder keeps: in memory, and in a run folder where there is one."""

from __future__ import annotations

import contextlib
import logging
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias

from neuralcollapse import files
from neuralcollapse.measurement.ranks import first_process
from neuralcollapse.measurement.report import CollapseReport
from neuralcollapse.measurement.run_folder import (
    CONFIG,
    METRICS,
    append_metrics,
    as_written,
    check_names,
    read_config,
    read_metrics,
    write_config,
    write_metrics,
)
from neuralcollapse.measurement.snapshots import SNAPSHOTS, snapshot_of, snapshots, write_snapshot

_INTEGERS = ("epoch", "step")
_MAY_CHANGE = ("epochs",)
"""What a run that goes on may describe otherwise than before."""
_WHICH_RUN = ("model", "dataset")
"""What makes another run of it, also where its user describes it anew."""

_log = logging.getLogger(__name__)

Whole: TypeAlias = SupportsIndex | SupportsFloat
"""A whole number as people hold it: Python's, NumPy's, or a tensor of one element."""


def whole(name: str, value: Any) -> int:
    """A count as Python's own integer, whatever holds it.

    Raises:
        ValueError: if it is a boolean, a fraction, negative, or no number.
    """
    found = None
    if "bool" not in str(getattr(value, "dtype", type(value))) and not isinstance(value, str | bytes):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            found = operator.index(value)
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
            found = int(value) if found is None and float(value).is_integer() else found
    if found is None or found < 0:
        raise ValueError(f"{name}={value!r} must be a whole number, 0 or more")
    return found


def as_cell(name: str, value: Any) -> float | int | None:
    """A column's value as Python's own number, whatever holds it: a NumPy scalar, a tensor of one element.

    Raises:
        ValueError: if it is no number, or ``step`` no whole one.
    """
    if name in _INTEGERS and value is not None:
        return whole(name, value)
    try:
        return value if value is None or type(value) is int else float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch: a tensor of several elements
        raise ValueError(f"{name}={value!r} must be a number, or None") from error


def columns_of(report: CollapseReport, test: CollapseReport | None = None) -> dict[str, float | None]:
    """What a report becomes in a row: every measure by name, those of the test data with ``test_`` before it.

    The accuracy on the training data is ``train_accuracy``; NC1 of an inner layer is ``nc1/LAYER``.

    Args:
        report: of the training data.
        test: of the test data, where that was measured.
    """
    row = {"train_accuracy" if name == "accuracy" else name: value for name, value in report.to_dict().items()}
    if test is not None:
        row |= {f"test_{name}": value for name, value in test.to_dict().items()}
    return row | {f"nc1/{name}": metrics.nc1 for name, metrics in report.layers.items()}


class Rows:
    """One row per measured epoch, oldest first. Every process holds them, and the first one writes.

    Args:
        folder: of the run; the rows that it holds are read. None keeps them in memory alone.
        config: plain values for config.yaml, which is written with the first row.

    Raises:
        ValueError: if metrics.csv or config.yaml is damaged, or the folder holds another run.
        WriteError: if the folder cannot be made or written.
    """

    def __init__(self, folder: Path | None, config: Mapping[str, Any] | None) -> None:
        self.folder = folder
        self.values = [] if folder is None else [_numbers(row) for row in read_metrics(folder)]
        self._written = folder if folder is not None and first_process() else None
        self._given = dict(config or {})
        self._described = {} if folder is None or not self.values else read_config(folder)
        self._config_is_new = config is not None
        self._made: list[Path] = []
        self._refuse_another(self._given, _WHICH_RUN)
        if self._written is not None:
            self._open(self._written)

    @property
    def seconds(self) -> float:
        """Time that the training had taken at the last row."""
        return float(self.values[-1].get("seconds") or 0) if self.values else 0.0

    def describe(self, config: Mapping[str, Any]) -> None:
        """Say how the run was made; values that the user gave, or the folder has, stay. Written with the next row."""
        self._described = {**config, **self._described}
        self._config_is_new = True

    def go_on_as(self, config: Mapping[str, Any]) -> None:
        """Say how the run goes on: as it was described before, but for the number of epochs.

        Raises:
            ValueError: if the folder holds another run; it names the values that differ.
        """
        self._refuse_another(config, [name for name in config if name not in _MAY_CHANGE])
        self._described = {**self._described, **config}
        self._config_is_new = self._config_is_new or bool(config)

    def _refuse_another(self, config: Mapping[str, Any], names: Sequence[str]) -> None:
        now = as_written(config)
        changed = [
            f"{name} was {before!r} and is now {now[name]!r}"
            for name, before in self._described.items()
            if name in now and name in names and now[name] != before
        ]
        if changed and self.values and self.folder is not None:
            raise ValueError(
                f"folder={str(self.folder)!r} holds another run: {', '.join(changed)}. Choose another folder, or, if "
                f"it is the same run, write the new values into its {CONFIG}"
            )

    def next_epoch(self, epoch: Whole | None) -> int:
        """The epoch of the next row: the one asked for, or the last one plus one.

        Raises:
            ValueError: if it is no whole number or does not come after the last one.
        """
        last = int(self.values[-1]["epoch"] or 0) if self.values else None
        if epoch is None:
            return 1 if last is None else last + 1
        epoch = whole("epoch", epoch)
        if last is not None and epoch <= last:
            where = "this tracker" if self.folder is None else str(self.folder)
            raise ValueError(
                f"epoch={epoch} was recorded already: {where} holds epochs up to {last}. Choose another folder, go on "
                f"with epoch={last + 1}, or call rewind({max(epoch - 1, 0)}) first"
            )
        return epoch

    def add(self, row: dict[str, float | int | None], report: CollapseReport) -> None:
        """Add a row and the snapshot of its report; with a folder, both are on disk before this returns.

        Raises:
            ValueError: if a layer's name cannot be that of a column.
            WriteError: if the folder cannot be written; the rows before are then unchanged.
        """
        if self.folder is not None:
            check_names(row)
        if self._written is not None:
            files.make_folder(self._written)
            if self._config_is_new:
                write_config(self._written, {**self._described, **self._given})
                self._config_is_new = False
            if report.weight is not None:
                write_snapshot(self._written, int(row["epoch"] or 0), snapshot_of(report))
            append_metrics(self._written, row)
        self.values.append(row)

    @contextlib.contextmanager
    def tidied(self) -> Iterator[None]:
        """Where the block fails, a folder that was made for this run and is still empty is removed again."""
        try:
            yield
        except BaseException:
            files.remove_empty(self._made)
            raise

    def check_unbegun(self) -> None:
        """Refuse a folder that holds rows of an earlier training.

        Raises:
            ValueError: if it does.
        """
        if self.folder is not None and any(row["epoch"] for row in self.values):
            raise ValueError(
                f"folder={str(self.folder)!r} holds a run already, up to epoch {self.values[-1]['epoch']}: choose "
                "another folder, or resume the training from its checkpoint"
            )

    def rewind(self, epoch: int) -> None:
        """Drop every row and snapshot after an epoch; more than one are set aside, as they may be another run's.

        Raises:
            WriteError: if the folder cannot be written.
        """
        kept = [row for row in self.values if (row["epoch"] or 0) <= epoch]
        if len(kept) < len(self.values) and self._written is not None:
            late = [path for number, path in snapshots(self._written) if number > epoch]
            if max(len(self.values) - len(kept), len(late)) > 1:
                _set_aside(self._written, late)
            write_metrics(self._written, kept)
            for path in late:
                with files.explained(path, "could not remove"):
                    path.unlink(missing_ok=True)
        self.values = kept

    def _open(self, folder: Path) -> None:
        self._made = files.absent_folders(folder)
        files.make_folder(folder)
        if not self._config_is_new and not self.values and (folder / CONFIG).is_file():
            raise ValueError(
                f"folder={str(folder)!r} holds another run's configuration and no rows: choose another one"
            )


def _set_aside(folder: Path, late: Sequence[Path]) -> None:
    """Copy metrics.csv, and move snapshots, to dated names."""
    metrics = folder / METRICS
    backup = files.dated_name(metrics)
    files.write_bytes(backup, metrics.read_bytes())
    _log.warning("the training goes on from an earlier epoch than %s holds: its rows are kept in %s", metrics, backup)
    if not late:
        return
    place = files.make_folder(files.dated_name(folder / SNAPSHOTS))
    for path in late:
        with files.explained(path, "could not move"):
            path.rename(place / path.name)
    _log.warning("%d snapshots of later epochs are moved to %s", len(late), place)


def _numbers(row: Mapping[str, str]) -> dict[str, float | int | None]:
    return {name: _number(name, cell) if cell else None for name, cell in row.items()}


def _number(name: str, cell: str) -> float | int:
    if name in _INTEGERS and float(cell).is_integer():  # 0.1 wrote a step of 3.0 where it was given NumPy's 3
        return int(cell) if cell.isdigit() else int(float(cell))
    return float(cell)
