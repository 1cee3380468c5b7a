"""Do the last numbers of a run still follow from its checkpoint and data? What changed since, by name."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neuralcollapse.measurement import CollapseReport, measure
from neuralcollapse.measurement.rows import columns_of
from neuralcollapse.measurement.run_folder import CONFIG, METRICS, read_metrics
from neuralcollapse.train import checkpoint as checkpoints
from neuralcollapse.train.checkpoint_record import FOLDER, LAST, RECORD, changes, config_of
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import Split, eval_loader
from neuralcollapse.train.module import ImageNetwork
from neuralcollapse.train.provenance import PROVENANCE, fingerprints, read_provenance
from neuralcollapse.train.run import load_run

_TOLERANCE = 1e-3
"""Relative, for the same network measured on another device or with another number of threads."""

_SHARES = ("train_accuracy", "test_accuracy", "ncc_mismatch", "test_ncc_mismatch")
"""Counts of samples: one of them may fall on the other side by rounding."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    holds: bool | None
    """None where the run did not record what would be needed."""
    found: str
    """What it says, or what changed."""


@dataclass(frozen=True)
class Verification:
    """Whether a run still says what its checkpoint and data say."""

    folder: Path
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Nothing was found changed."""
        return all(check.holds is not False for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"holds": self.holds, "checks": [dataclasses.asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        marks = {True: "holds", False: "CHANGED", None: "unknown"}
        lines = [f"{check.name:<12} {marks[check.holds]:<8} {check.found}" for check in self.checks]
        return "\n".join([*lines, f"{self.folder}: {'verified' if self.holds else 'does not hold'}"])


def verify(folder: str | Path, *, data_root: str | None = None) -> Verification:
    """Recompute the last row of a run from its checkpoint and data, and compare it with what was recorded.

    Of that row all measures and accuracies are computed anew, those of the test data included. Its training loss
    and its time cannot be: they, and all earlier rows, are compared with the history in the checkpoint.

    Args:
        folder: of the run.
        data_root: where the data is now, if elsewhere.

    Raises:
        FileNotFoundError: if the folder holds no run or no checkpoint, or the data is gone.
        ValueError: if a file is so damaged that nothing can be compared.
    """
    folder = Path(folder)
    path = folder / FOLDER / LAST
    try:
        content = checkpoints.read_checkpoint(path)
    except ValueError as error:
        return Verification(folder, (Check("checkpoint", False, str(error)),))
    record = content.get(RECORD)
    checks = [_checkpoint(path, record), _config(folder, record), _rows(folder, record), _provenance(folder, record)]
    if any(check.holds is False for check in checks if check.name == "config"):
        return Verification(folder, tuple(checks))  # its network and data are not those of the checkpoint
    run = load_run(folder, data_root=data_root)
    now = fingerprints(run.data)
    recorded = (record or {}).get("provenance", {}).get("data")
    checks.append(_data(recorded, now))
    epoch = int(record["epoch"] if record else content["epoch"] + 1)
    row = next((row for row in read_metrics(folder) if int(row["epoch"]) == epoch), None)
    checks.append(_numbers(row, epoch, run.network, run.data.train, run.data.test))
    return Verification(folder, tuple(checks))


def _checkpoint(path: Path, record: dict[str, Any] | None) -> Check:
    if checkpoints.has_digest(path):
        return Check("checkpoint", True, f"{path.name} has its digest")
    if record is None:
        return Check("checkpoint", None, f"{path.name} was written without a digest, by an older version")
    return Check("checkpoint", False, f"the digest of {path.name} is gone")


def _config(folder: Path, record: dict[str, Any] | None) -> Check:
    if record is None:
        return Check("config", None, "the checkpoint does not hold its configuration")
    try:
        now = TrainConfig.load(folder / CONFIG).resolved()
    except (FileNotFoundError, ValueError) as error:
        return Check("config", False, str(error))
    changed = changes(config_of(record), now)
    return Check("config", not changed, changed or f"{CONFIG} describes the checkpoint's run")


def _rows(folder: Path, record: dict[str, Any] | None) -> Check:
    if record is None:
        return Check("rows", None, "the checkpoint does not hold the history")
    try:
        now = {row["epoch"]: row for row in read_metrics(folder)}
    except ValueError as error:
        return Check("rows", False, str(error))
    changed = []
    for row in record["history"]:
        epoch, found = row["epoch"], now.pop(row["epoch"], None)
        if found is None:
            changed.append(f"epoch {epoch} is missing")
        else:
            names = [name for name in {**row, **found} if row.get(name, "") != found.get(name, "")]
            changed += [f"epoch {epoch}: {name} was {row.get(name)} and is now {found.get(name)}" for name in names]
    late = [epoch for epoch in now if int(epoch) > record["epoch"]]
    changed += [f"epoch {epoch} is not in the checkpoint's history" for epoch in now if epoch not in late]
    if late and not changed:  # stopped between a row and its checkpoint
        more = f" and {len(late) - 1} more" if len(late) > 1 else ""
        return Check("rows", None, f"epoch {late[0]}{more} is not yet in the checkpoint")
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return Check("rows", not changed, "; ".join(changed[:5]) + more or f"{METRICS} is the checkpoint's history")


def _provenance(folder: Path, record: dict[str, Any] | None) -> Check:
    if record is None:
        return Check("provenance", None, "not recorded")
    try:
        now = read_provenance(folder)
    except ValueError as error:
        return Check("provenance", False, str(error))
    if now is None:
        return Check("provenance", False, f"{PROVENANCE} is gone")
    before = record["provenance"]
    changed = [name for name in {**before, **now} if name != "sessions" and before.get(name) != now.get(name)]
    if now.get("sessions", [])[: len(before["sessions"])] != before["sessions"]:
        changed.append("sessions")
    last = before["sessions"][-1]
    said = f"neuralcollapse {last['neuralcollapse']}, torch {last['torch']}, {last['device']}, {last['precision']}"
    return Check("provenance", not changed, f"{PROVENANCE} changed: {', '.join(changed)}" if changed else said)


def _data(recorded: dict[str, Any] | None, now: dict[str, Any]) -> Check:
    if recorded is None:
        return Check("data", None, "the fingerprint of the data was not recorded")
    changed = [f"the {name} images or labels changed" for name in now if now[name] != recorded.get(name)]
    return Check("data", not changed, "; ".join(changed) or "pixels and labels have their fingerprints")


def _numbers(row: dict[str, str] | None, epoch: int, network: ImageNetwork, train: Split, test: Split) -> Check:
    name = f"epoch {epoch}"
    if row is None:
        return Check(name, False, f"{METRICS} has no row of the checkpoint's epoch")
    now: dict[str, float | None] = {}
    if row["nc1"]:
        now |= columns_of(_measured(network, train), _measured(network, test) if row.get("test_nc1") else None)
    if row.get("test_accuracy") and "test_accuracy" not in now:
        now["test_accuracy"] = _accuracy(network, test)
    compared = [
        (column, value, float(row[column])) for column, value in now.items() if value is not None and row.get(column)
    ]
    if not compared:
        return Check(name, None, "was not measured: nothing to compare")
    changed = []
    for column, value, recorded in compared:
        room = 1.5 / len(test if column.startswith("test_") else train) if column in _SHARES else 1e-6
        undefined = math.isnan(value) and math.isnan(recorded)
        if not undefined and not math.isclose(recorded, value, rel_tol=_TOLERANCE, abs_tol=room):
            changed.append(f"{column} is {value:.6g} and was recorded as {recorded:.6g}")
    agree = f"{len(compared)} number{' follows' if len(compared) == 1 else 's follow'} from checkpoint and data"
    return Check(name, not changed, "; ".join(changed) or agree)


def _measured(network: ImageNetwork, split: Split) -> CollapseReport:
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return measure(network, eval_loader(split), device=device, progress=False)


@torch.no_grad()
def _accuracy(network: ImageNetwork, split: Split) -> float:
    training = network.training
    network.eval()
    right = sum(int((network(pixels).argmax(1) == labels).sum()) for pixels, labels in eval_loader(split))
    network.train(training)
    return right / len(split)
