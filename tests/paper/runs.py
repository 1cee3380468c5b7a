"""Run folders written by hand, for what reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from neuralcollapse.measurement.run_folder import CONFIG, write_metrics
from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.train.config import TrainConfig

START = {
    "nc1": 10.0, "nc2": 1.0, "nc3": 1.0, "nc4": 1.0, "nc4_relative": 1.0, "train_accuracy": 0.1, "test_accuracy": 0.1,
}  # fmt: skip
UNTRAINED = START | {"nc1": 99.0, "nc2": 0.1, "nc3": 0.1, "nc4": 0.01}


def written(folder: Path, experiment: Experiment, config: TrainConfig, epoch: int = 10, **last: float) -> Outcome:
    """A run measured before training, in its first tenth (:data:`START`), and at an epoch with the last values."""
    path = folder / experiment.name
    path.mkdir(parents=True)
    rows = [
        {"epoch": 0, "seconds": 1.0, **UNTRAINED, "train_loss": ""},
        {"epoch": 1, "seconds": 2.0, **START, "train_loss": 1.5},
        {"epoch": epoch, "seconds": 7200.0, **START, "train_loss": 0.5, **last},
    ]
    write_metrics(path, [{name: str(value) for name, value in row.items()} for row in rows])
    return Outcome(
        experiment, TrainConfig(**config.to_dict() | {"output": str(path), "seed": experiment.seed or 0}).resolved()
    )


def with_snapshot(run: Outcome, weight: np.ndarray, means: np.ndarray, bias: np.ndarray) -> Outcome:
    """The geometry of its last epoch: (K, d), (K, d), (K,)."""
    (run.folder / "snapshots").mkdir()
    tensors = {"weight": weight, "class_means": means, "bias": bias, "global_mean": means.mean(0)}
    path = run.folder / "snapshots" / f"epoch-{int(run.rows[-1]['epoch']):04d}.safetensors"
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, path)
    return run


def in_folder(run: Outcome, epoch: int | None = None, **last: float) -> Outcome:
    """A planned run as ``train`` leaves it in its folder: finished, or at an epoch."""
    written(run.folder.parent, run.experiment, run.config, epoch or run.epochs, **last)
    dataclasses.replace(run.config, resume=False).save(run.folder / CONFIG)
    return dataclasses.replace(run)
