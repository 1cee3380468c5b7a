"""What a run leaves behind: a row of metrics an epoch, and snapshots of the geometry."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from neuralcollapse.measurement import CollapseReport
from neuralcollapse.measurement.model import affine, broadcast_buffers
from neuralcollapse.train.callback import SHOWN, NeuralCollapseCallback

_SHOWN_CLASSES = 10
_SHOWN_SAMPLES = 20


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
            weight, bias = affine(pl_module.get_submodule(report.classifier))
            save_snapshot(self.folder, epoch, report, weight, bias)
            row |= report.to_dict()
        append_metrics(self.folder, row)
        if not self.quiet and report is not None:
            measures = "  ".join(f"{name.upper()} {row[name]:.3g}" for name in SHOWN)
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"epoch {epoch:>4}  train {report.train_accuracy:.2%}  test {accuracy:.2%}  {measures}"
            )

    @torch.no_grad()
    def _test_accuracy(self, trainer: L.Trainer, pl_module: L.LightningModule) -> float:
        report = self.report
        assert report is not None
        counted = MulticlassAccuracy(report.statistics.num_classes, average="micro").to(pl_module.device)
        broadcast_buffers(pl_module)
        training = pl_module.training
        pl_module.eval()
        for batch in self.test_loader:
            pixels, labels = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            counted.update(pl_module(pixels), labels)
        pl_module.train(training)
        return float(counted.compute())


def save_snapshot(folder: Path, epoch: int, report: CollapseReport, weight: Tensor, bias: Tensor) -> None:
    """Classifier and class means of an epoch, and where a few samples lie among the means (kilobytes).

    ``sample_products`` (S, M) are inner products of centred features with the centred means of the first
    M <= 10 classes, from which any projection onto the span of these means follows.
    """
    statistics = report.statistics
    tensors = {
        "weight": weight,
        "bias": bias,
        "class_means": statistics.means,
        "global_mean": statistics.balanced_mean,
    }
    if report.features is not None and report.labels is not None:
        shown = min(_SHOWN_CLASSES, statistics.num_classes)
        rows = torch.cat([(report.labels == label).nonzero().flatten()[:_SHOWN_SAMPLES] for label in range(shown)])
        centre = statistics.balanced_mean.cpu()
        centred_means = statistics.means[:shown].cpu() - centre
        tensors["sample_products"] = (report.features[rows].double() - centre) @ centred_means.T
        tensors["sample_labels"] = report.labels[rows]
    single = {
        name: (tensor.float() if tensor.is_floating_point() else tensor.to(torch.int32)).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    path = folder / "snapshots" / f"epoch-{epoch:04d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(single, path)


def snapshots(folder: Path) -> Iterator[tuple[int, Path]]:
    """(epoch, file) of each snapshot of a run, in order."""
    for path in sorted((folder / "snapshots").glob("epoch-*.safetensors")):
        yield int(path.stem.rpartition("-")[2]), path


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics.csv; a last line cut short by a crash is left out."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def write_metrics(folder: Path, rows: list[dict[str, str]]) -> None:
    """Replace metrics.csv in one step."""
    partial = folder / "metrics.csv.part"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, folder / "metrics.csv")


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    """Add a row, on disk before this returns."""
    path = folder / "metrics.csv"
    present = read_metrics(folder)
    fields = list(present[0]) if present else list(row)
    with path.open("a" if present else "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=fields)
        if not present:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())
