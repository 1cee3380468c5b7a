"""What has become of a run: not begun, half done, finished, or another run in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from neuralcollapse.measurement.run_folder import CONFIG, read_metrics
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
    def epochs(self) -> int:
        """Epochs that it trains for."""
        return int(self.config.epochs or 0)

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The measured epochs, numbers only."""
        measured = [row for row in read_metrics(self.folder) if row["nc1"]]
        return [{name: float(value) for name, value in row.items() if value} for row in measured]

    @property
    def finished(self) -> bool:
        """Whether its last epoch is measured."""
        return bool(self.rows) and self.rows[-1]["epoch"] >= self.epochs

    @property
    def state(self) -> str:
        """In words."""
        if self.finished:
            return "finished"
        return f"epoch {self.epoch} of {self.epochs}" if self.rows else "not begun"

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


def as_trained(run: Outcome) -> Outcome:
    """The run with its data set from where its folder says it came: to judge and draw it, that is no difference.

    A data set of another name stays a difference.
    """
    file = run.folder / CONFIG
    if not file.is_file():
        return run
    source = TrainConfig.load(file).dataset
    same = Path(source.rpartition(":")[2]).name == run.experiment.dataset
    return dataclasses.replace(run, config=dataclasses.replace(run.config, dataset=source)) if same else run


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
