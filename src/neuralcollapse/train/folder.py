"""The folder of a run: who may write in it, and from where the run continues."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from neuralcollapse import files
from neuralcollapse.measurement.run_folder import CONFIG, METRICS, read_metrics, write_metrics
from neuralcollapse.measurement.snapshots import SNAPSHOTS, snapshots
from neuralcollapse.run_files import REPORT
from neuralcollapse.train.checkpoint import newest_checkpoint
from neuralcollapse.train.checkpoint_record import FOLDER, LAST, PREVIOUS, RECORD, changes, config_of
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.provenance import PROVENANCE

PATIENCE = 10.0
"""Seconds to wait for the lock of a process that is just ending."""

_LOCK = ".lock"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where a run begins: at its first epoch, or after a checkpoint."""

    checkpoint: Path | None = None
    epoch: int = 0
    """Finished before."""
    history: list[dict[str, str]] = field(default_factory=list)
    """Rows of metrics.csv up to that epoch."""
    provenance: dict[str, Any] | None = None
    """As the checkpoint has it."""


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and lock it; the lock goes with the process, however it ends.

    Taken before anything in the folder is looked at or written: of two processes the loser changes nothing. A folder
    made here that stays empty, because something fails before the run begins, is removed again.

    Raises:
        FileExistsError: if another process trains in it.
        OSError: if it cannot be made or written.
    """
    absent = files.absent_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=PATIENCE)
        lock.acquire()
    except Timeout as error:
        raise FileExistsError(f"another process is training in {folder}: let it finish, or stop it") from error
    except OSError as error:
        raise files.WriteError(
            error.errno,
            f"cannot write in the run folder {folder}: {error.strerror or error}. Give another output folder",
        ) from error
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == [_LOCK]:
            (folder / _LOCK).unlink(missing_ok=True)
            files.remove_empty(absent)
        lock.release()


def check_folder(folder: Path, config: TrainConfig) -> None:
    """Refuse to write one run over another. Reads only.

    Raises:
        FileExistsError: if the folder holds a run and ``resume`` is off.
        ValueError: if it holds a run that differs in more than where and for how long it trains.
    """
    saved = [folder / FOLDER / name for name in (LAST, PREVIOUS)]
    if not any(path.is_file() for path in (folder / CONFIG, *saved)):
        return
    if not config.resume:
        raise FileExistsError(
            f"{folder} holds a run already: continue it with resume=True, or choose another output folder"
        )
    if (folder / CONFIG).is_file():
        _refuse_changes(folder, TrainConfig.load(folder / CONFIG).resolved(), config)


def find_start(folder: Path, config: TrainConfig) -> Start:
    """Where the run continues: after its newest checkpoint that is whole. Reads only.

    Raises:
        ValueError: if no checkpoint is whole, or it belongs to another run.
    """
    found = newest_checkpoint(folder)
    if found is None:
        return Start()
    path, content = found
    record = content.get(RECORD)
    if record is None:  # written by an older version: config.yaml alone says whose it is
        if not (folder / CONFIG).is_file():
            raise ValueError(
                f"{path} does not say which run it belongs to, and {CONFIG} is gone: choose another output folder"
            )
        epoch = int(content["epoch"]) + 1
        return Start(path, epoch, [row for row in read_metrics(folder) if int(row["epoch"]) <= epoch])
    _refuse_changes(folder, config_of(record), config)
    return Start(path, record["epoch"], record["history"], record["provenance"])


def check_epochs(folder: Path, config: TrainConfig, start: Start) -> None:
    """Refuse to end a run before the epoch that it has reached.

    Raises:
        ValueError: naming both.
    """
    if int(config.epochs or 0) < start.epoch:
        raise ValueError(
            f"epochs={config.epochs} is less than the {start.epoch} that {folder} has finished: give more epochs, or "
            "choose another output folder"
        )


def _refuse_changes(folder: Path, before: TrainConfig, now: TrainConfig) -> None:
    if changed := changes(before, now):
        raise ValueError(f"{folder} holds another run: {changed}. Choose another output folder")


def restore_history(folder: Path, start: Start) -> None:
    """Make metrics.csv hold the rows up to the checkpoint: no later ones, and those that were lost since."""
    try:
        present = read_metrics(folder)
    except ValueError as error:
        _log.warning("%s", error)
        present = []
    kept = [row for row in present if int(row["epoch"]) <= start.epoch]
    lost = len(start.history) - sum(row in start.history for row in kept)
    if lost:
        _log.warning("%s lacked %d rows: restored from %s", folder / METRICS, lost, start.checkpoint)
    if present != start.history and start.history:
        write_metrics(folder, start.history)
    absent = sorted(set(range(start.epoch + 1)) - {int(row["epoch"]) for row in start.history})
    if absent:  # a checkpoint of an older version holds no rows
        _log.warning(
            "%s lacks %d of the %d rows up to %s, the first that of epoch %d, and nothing else holds them: the run "
            "goes on without them",
            folder / METRICS, len(absent), start.epoch + 1, start.checkpoint, absent[0],
        )  # fmt: skip


def set_aside(folder: Path) -> None:
    """Give a dated name to what lies where a new run will write: it may be all that is left of another one."""
    if _only_begun(folder):
        with files.explained(folder / METRICS, "could not remove"):
            (folder / METRICS).unlink(missing_ok=True)
        return
    for name in (METRICS, SNAPSHOTS, FOLDER, PROVENANCE, CONFIG, REPORT):
        path = folder / name
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            continue
        _log.warning("%s was there before this run: moved to %s", path, files.set_aside(path))


def _only_begun(folder: Path) -> bool:
    """Whether the folder holds the beginning of this very run, in which nothing is trained yet."""
    if not (folder / CONFIG).is_file() or not (folder / PROVENANCE).is_file():
        return False
    try:
        rows = read_metrics(folder)
    except ValueError:
        return False
    # An archived run has rows and provenance too: what was trained in it is not to be had again.
    return not any([*(epoch for epoch, _ in snapshots(folder)), *(int(row["epoch"]) for row in rows)])
