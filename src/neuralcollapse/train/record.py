"""What a run leaves behind: one row of metrics per epoch, and snapshots of the geometry."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from torchmetrics.classification import MulticlassAccuracy

from neuralcollapse.geometry.measures import HEADLINE
from neuralcollapse.measurement.ranks import Ranks
from neuralcollapse.measurement.rows import columns_of
from neuralcollapse.measurement.run_folder import append_metrics
from neuralcollapse.measurement.snapshots import snapshot_of, write_snapshot
from neuralcollapse.train.callback import NeuralCollapseCallback
from neuralcollapse.train.checkpoint_record import RECORD
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.folder import Start


class RunRecorder(NeuralCollapseCallback):
    """Writes metrics.csv and snapshots/epoch-NNNN.safetensors into the run folder, and its record into checkpoints.

    Args:
        folder: of the run.
        train_loader: the data to measure.
        test_loader: the data of the test accuracy.
        num_classes: of the data.
        config: of the run.
        start: where it begins.
        provenance: what it rests on.
        quiet: print no line per measured epoch.
    """

    def __init__(
        self,
        folder: Path,
        train_loader: Any,
        test_loader: Any,
        *,
        num_classes: int,
        config: TrainConfig,
        start: Start,
        provenance: dict[str, Any],
        quiet: bool,
    ) -> None:
        super().__init__(train_loader, test_loader=test_loader, every=config.measure_every)
        self.folder = folder
        self.num_classes = num_classes
        self.config = config
        self.provenance = provenance
        self.rows = list(start.history)
        self.shown = () if quiet else shown_epochs(start.epoch, int(config.epochs or 1), config.measure_every)
        self._before = float(start.history[-1].get("seconds") or 0) if start.history else 0.0
        self._start = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the untrained network."""
        self._start = time.monotonic()
        if trainer.current_epoch == 0:
            self.measure(trainer, pl_module, epoch=0)
            self._record(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One row per epoch; the measures and the test accuracy where they are due.

        Raises:
            FloatingPointError: if the training has diverged.
        """
        self.report = self.test_report = None
        loss = float(trainer.callback_metrics["train_loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training diverged in epoch {trainer.current_epoch + 1}: its loss is {loss}. Lower the learning "
                f"rate, {self._learning_rate:g}, or try another seed"
            )
        super().on_train_epoch_end(trainer, pl_module)
        self._record(trainer, pl_module, trainer.current_epoch + 1)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put into the checkpoint which run it belongs to, and its whole history."""
        checkpoint[RECORD] = {
            "epoch": trainer.current_epoch + 1,
            "config": dataclasses.replace(self.config, resume=False).to_dict(),
            "history": self.rows,
            "provenance": self.provenance,
        }

    def _record(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        report, test = self.report, self.test_report
        accuracy = None if test is None else test.accuracy
        if test is None and self._due(trainer, epoch):
            accuracy = self._test_accuracy(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        loss = trainer.callback_metrics.get("train_loss") if epoch else None
        row: dict[str, Any] = {
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
            row |= columns_of(report, test)
        text = {name: "" if value is None else str(value) for name, value in row.items()}
        columns = self.rows[0] if self.rows else text
        self.rows.append(dict.fromkeys(columns, "") | text)
        append_metrics(self.folder, text)
        if report is not None and epoch in self.shown:
            self._show(row)

    def _due(self, trainer: L.Trainer, epoch: int) -> bool:
        return epoch % int(self.config.test_every or 1) == 0 or epoch == trainer.max_epochs

    def _tests(self, trainer: L.Trainer, epoch: int) -> bool:
        """Whether the test data is measured after this epoch: with ``measure_test``, where a test is due."""
        return self.config.measure_test and self._due(trainer, epoch)

    def _show(self, row: dict[str, Any]) -> None:
        tested = "" if row["test_accuracy"] is None else f"  test {row['test_accuracy']:.2%}"
        measures = "  ".join(f"{name.upper()} {row[name]:.3g}" for name in HEADLINE if row[name] is not None)
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"epoch {row['epoch']:>4}  train {row['train_accuracy']:.2%}{tested}  {measures}"
        )

    @torch.no_grad()
    def _test_accuracy(self, trainer: L.Trainer, pl_module: L.LightningModule) -> float:
        counted = MulticlassAccuracy(self.num_classes, average="micro").to(pl_module.device)
        Ranks().share_buffers(pl_module)
        training = pl_module.training
        pl_module.eval()
        for batch in self.test_loader or ():
            pixels, labels = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            counted.update(pl_module(pixels), labels)
        pl_module.train(training)
        return float(counted.compute())


def shown_epochs(start: int, epochs: int, every: int, most: int = 20) -> tuple[int, ...]:
    """Which measured epochs are printed: all, or so many of them, evenly spread, the last one included.

    >>> shown_epochs(0, 6, 2)
    (0, 2, 4, 6)
    >>> shown_epochs(0, 100, 1, most=5)
    (0, 25, 50, 75, 100)
    """
    measured = [epoch for epoch in range(start, epochs + 1) if epoch % every == 0 or epoch == epochs]
    if len(measured) <= most:
        return tuple(measured)
    return tuple(measured[round(place * (len(measured) - 1) / (most - 1))] for place in range(most))
