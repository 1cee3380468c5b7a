"""What of a run is worth keeping in a repository: configuration, provenance, measured rows and the last snapshot."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np

from neuralcollapse import files
from neuralcollapse.measurement.run_folder import CONFIG, read_config, read_metrics, write_metrics
from neuralcollapse.measurement.snapshots import SNAPSHOTS, snapshots
from neuralcollapse.train.config import TrainConfig, made_by_train
from neuralcollapse.train.provenance import PROVENANCE, read_provenance, write_provenance
from neuralcollapse.train.snapshot import Snapshot


def archive(run: str | Path, into: str | Path) -> Path:
    """Copy what a reader needs of a run, some kilobytes; returns the new folder.

    Rows from before ``nc4_relative`` was measured get it from their snapshots. The configuration names the new folder,
    not the one on this machine. A run may be archived into the folder where it is: then its rows are completed, and
    everything in it stays.

    Args:
        run: folder of a run.
        into: folder of the archived runs; the copy keeps the run's name. An archived run of this name is replaced.

    Raises:
        FileNotFoundError: if the folder holds no run, or nothing in it is measured yet.
        FileExistsError: if the new folder holds another run with its checkpoints.
        ValueError: if a file of it is damaged.
    """
    run, target = Path(run), Path(into) / os.path.basename(os.path.abspath(run))
    values = read_config(run)
    if not values:
        raise FileNotFoundError(f"no configuration at {run / CONFIG}: is its folder a run?")
    config = TrainConfig.load(run / CONFIG) if made_by_train(values) else None
    before, kept = read_metrics(run), list(snapshots(run))
    if not any(row["nc1"] for row in before) or not kept:
        raise FileNotFoundError(f"{run} has no measured epoch yet: there is nothing to keep")
    rows = [_completed(row, dict(kept).get(int(row["epoch"]))) for row in before]
    if target.resolve() == run.resolve():
        if rows != before:
            write_metrics(run, rows)
        return target
    _refuse_full_run(target)
    provenance = read_provenance(run)
    last = kept[-1][1]
    files.make_folder(target / SNAPSHOTS)
    files.write_bytes(target / SNAPSHOTS / last.name, last.read_bytes())
    # What follows removes or replaces all of another run that was archived under this name.
    for _, path in snapshots(target):
        if path.name != last.name:
            path.unlink()
    if config is None:
        files.write_bytes(target / CONFIG, (run / CONFIG).read_bytes())
    else:
        dataclasses.replace(config, output=str(target), resume=False).save(target / CONFIG)
    if provenance is not None:
        write_provenance(target, provenance)
    else:
        (target / PROVENANCE).unlink(missing_ok=True)
    write_metrics(target, [row for row in rows if row["nc1"]])
    return target


def _refuse_full_run(target: Path) -> None:
    """An archived run has no checkpoints: where they are, something is trained or was."""
    from neuralcollapse.train.checkpoint_record import FOLDER

    if (target / FOLDER).is_dir() and any((target / FOLDER).iterdir()):
        raise FileExistsError(
            f"{target} holds a run with its checkpoints, which an archived run would overwrite: choose another --into"
        )


def _completed(row: dict[str, str], path: Path | None) -> dict[str, str]:
    """The row with nc4_relative after nc4; empty where no snapshot says it.

    With classes of unequal size a snapshot has another global mean than NC4, so that it does not say it.
    """
    if row.get("nc4_relative"):
        return row
    value, last = "", None if path is None else Snapshot.read(path)
    if last is not None and math.isclose(np.linalg.norm(last.bias), float(row.get("nc4") or "nan"), rel_tol=1e-3):
        value = repr(relative_bias(last))
    completed: dict[str, str] = {}
    for name, cell in row.items():
        if name != "nc4_relative":
            completed[name] = cell
        if name == "nc4":
            completed["nc4_relative"] = value
    return completed


def relative_bias(last: Snapshot) -> float:
    """``nc4_relative``: ||b + W h_G|| over ||W H̄||_F/√K.

    >>> relative_bias(Snapshot(0, 2 * np.eye(2), np.eye(2), np.array([3.0, 4.0]), np.zeros(2)))
    2.5
    """
    logits = np.linalg.norm(last.weight @ last.means.T) / math.sqrt(len(last.weight))
    return float(np.linalg.norm(last.bias) / logits)
