"""What a run leaves behind: a row of metrics an epoch, and snapshots of the geometry."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from torchmetrics.classification import MulticlassAccuracy

from neuralcollapse.measurement import CollapseReport
from neuralcollapse.measurement.ranks import Ranks
from neuralcollapse.measurement.run_folder import (
    append_metrics,
    read_metrics,
    snapshot_of,
    write_metrics,
    write_snapshot,
)
from neuralcollapse.train.callback import SHOWN, NeuralCollapseCallback


class RunRecorder(NeuralCollapseCallback):
    """Writes metrics.csv and snapshots/epoch-NNNN.safetensors into the run folder."""

    def __init__(self, folder: Path, train_loader: Any, test_loader: Any, *, every: int, quiet: bool) -> None:
        super().__init__(train_loader, every=every)
        self.folder = folder
        self.test_loader = test_loader
        self.quiet = quiet
        self._before = 0.0
        self._start = time.monotonic()
        self._learning_rate: float | None = None  # of the epoch under way; none before the first

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the learning rate before the schedule steps: at the end of the epoch it is the next one's."""
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the untrained network; on resume forget the rows after the checkpoint."""
        self._start = time.monotonic()
        if trainer.current_epoch == 0:
            self._record(trainer, pl_module, 0, self.measure(trainer, pl_module))
            return
        rows = [row for row in read_metrics(self.folder) if int(row["epoch"]) <= trainer.current_epoch]
        self._before = float(rows[-1]["seconds"]) if rows else 0.0
        if trainer.is_global_zero and rows:
            write_metrics(self.folder, rows)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One row an epoch; the measures where they are due.

        Raises:
            FloatingPointError: if the training has diverged.
        """
        self.report = None
        loss = float(trainer.callback_metrics["train_loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training diverged in epoch {trainer.current_epoch + 1}: its loss is {loss}. Lower the learning "
                f"rate, {self._learning_rate:g}, or try another seed"
            )
        super().on_train_epoch_end(trainer, pl_module)
        self._record(trainer, pl_module, trainer.current_epoch + 1, self.report)

    def _record(
        self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int, report: CollapseReport | None
    ) -> None:
        accuracy = self._test_accuracy(trainer, pl_module) if report is not None else None
        if not trainer.is_global_zero:
            return
        loss = trainer.callback_metrics.get("train_loss") if epoch else None
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "seconds": round(self._before + time.monotonic() - self._start, 3),
            "learning_rate": self._learning_rate,
            "train_loss": None if loss is None else float(loss),
            "train_accuracy": None,
            "test_accuracy": accuracy,
        }
        if report is not None:
            write_snapshot(self.folder, epoch, snapshot_of(report))
            found = report.to_dict()
            row |= {"train_accuracy": found.pop("accuracy"), **found}
        append_metrics(self.folder, row)
        if not self.quiet and report is not None:
            measures = "  ".join(f"{name.upper()} {row[name]:.3g}" for name in SHOWN)
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"epoch {epoch:>4}  train {report.accuracy:.2%}  test {accuracy:.2%}  {measures}"
            )

    @torch.no_grad()
    def _test_accuracy(self, trainer: L.Trainer, pl_module: L.LightningModule) -> float:
        report = self.report
        assert report is not None
        counted = MulticlassAccuracy(report.moments.num_classes, average="micro").to(pl_module.device)
        Ranks().share_buffers(pl_module)
        training = pl_module.training
        pl_module.eval()
        for batch in self.test_loader:
            pixels, labels = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            counted.update(pl_module(pixels), labels)
        pl_module.train(training)
        return float(counted.compute())
