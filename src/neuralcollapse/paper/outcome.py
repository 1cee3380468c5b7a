"""What has become of a run: not begun, half done, finished, or another run in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neuralcollapse.measurement.run_folder import CONFIG, read_config, read_metrics
from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.train.command import command_of, elsewhere
from neuralcollapse.train.config import TrainConfig


@dataclass(frozen=True)
class Outcome:
    """A run of a figure, as its folder has it at the first look."""

    experiment: Experiment
    config: TrainConfig

    @property
    def folder(self) -> Path:
        """The run's."""
        return Path(str(self.config.output))

    @property
    def epoch(self) -> int:
        """Epochs on disk now."""
        rows = read_metrics(self.folder)
        return int(rows[-1]["epoch"]) if rows else 0

    @property
    def done(self) -> int:
        """Epochs that need not be trained again: those on disk now, up to its newest checkpoint where it has one."""
        from neuralcollapse.train.checkpoint_record import trained_epochs

        kept = trained_epochs(self.folder)
        return self.epoch if kept is None else min(self.epoch, kept)

    @property
    def epochs(self) -> int:
        """Epochs that it trains for."""
        return int(self.config.epochs or 0)

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The measured epochs, numbers only."""
        measured = [row for row in read_metrics(self.folder) if row["nc1"]]
        return [{name: float(value) for name, value in row.items() if value} for row in measured]

    @cached_property
    def kept(self) -> int | None:
        """Epochs in its newest checkpoint; None without a readable one, as in an archived run."""
        # Late, as everything that loads torch: the command line's help must not wait for it.
        from neuralcollapse.train.checkpoint_record import trained_epochs

        return trained_epochs(self.folder)

    @property
    def finished(self) -> bool:
        """Whether its last epoch is measured, and in its checkpoint if it has one."""
        measured = bool(self.rows) and self.rows[-1]["epoch"] >= self.epochs
        return measured and (self.kept is None or self.kept >= self.epochs)

    @property
    def state(self) -> str:
        """In words."""
        if self.finished:
            return "finished"
        if not self.rows:
            return "not begun"
        lost = f", in its checkpoint epoch {self.kept}" if self.epoch >= self.epochs and self.kept is not None else ""
        return f"epoch {self.epoch} of {self.epochs}{lost}"

    @property
    def hours(self) -> float:
        """Spent on training and measuring."""
        return self.rows[-1]["seconds"] / 3600 if self.rows else 0.0

    @property
    def device(self) -> str:
        """What it was trained on, one device after the other where it was continued; empty if it was not recorded."""
        from neuralcollapse.train.provenance import devices_of, read_provenance

        try:
            return ", then ".join(devices_of(read_provenance(self.folder)))
        except ValueError:  # a damaged file tells nothing; the numbers are elsewhere
            return ""

    @property
    def data(self) -> str:
        """Its data set, without the folder that this machine has it in."""
        return elsewhere(self.config.dataset)

    @property
    def command(self) -> str:
        """What repeats the run alone, in a folder of its own: only what differs from the defaults."""
        return command_of(self.config.to_dict(), self.experiment.name)


def as_begun(run: Outcome) -> Outcome:
    """The run with the epochs of its folder, where these are more: it goes on to its own end, and is judged there."""
    epochs = read_config(run.folder).get("epochs")
    return _with(run, epochs=epochs) if isinstance(epochs, int) and epochs > run.epochs else run


def as_trained(run: Outcome) -> Outcome:
    """The run with the data set and precision that its folder names: to judge and draw it, these are no difference.

    A data set of another name stays a difference. The precision stands beside its numbers.
    """
    file = run.folder / CONFIG
    if not file.is_file():
        return run
    config = TrainConfig.load(file)
    same = Path(config.dataset.rpartition(":")[2]).name == run.experiment.dataset
    return _with(run, precision=config.precision, **({"dataset": config.dataset} if same else {}))


def _with(run: Outcome, **changes: Any) -> Outcome:
    return dataclasses.replace(run, config=dataclasses.replace(run.config, **changes))


def groups(
    runs: Sequence[Outcome], key: Callable[[Experiment], str] = lambda experiment: experiment.group
) -> dict[str, list[Outcome]]:
    """Runs of the same model on the same data, by ``DATASET-MODEL``; or by another key."""
    found: dict[str, list[Outcome]] = {}
    for run in runs:
        found.setdefault(key(run.experiment), []).append(run)
    return found


def variants(runs: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Runs that differ in their seed alone, by the name without it."""
    return groups(runs, lambda experiment: experiment.variant)


def resumed(config: TrainConfig) -> TrainConfig:
    """The run, to be continued where it stopped."""
    return dataclasses.replace(config, resume=True)
