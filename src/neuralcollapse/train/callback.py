"""Measure the collapse of any LightningModule while it trains."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.callbacks import Timer
from torch.utils.data import DataLoader, IterableDataset

from neuralcollapse.geometry.measures import HEADLINE
from neuralcollapse.measurement import CollapseReport, measure
from neuralcollapse.measurement.batches import arguments
from neuralcollapse.measurement.given import refusal, shared
from neuralcollapse.measurement.heads import head_pooling
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.tracker import CollapseTracker


class NeuralCollapseCallback(L.Callback):
    """Logs the measures of neural collapse of a LightningModule, before training and at the end of epochs.

    Batches pass through the module's own transfer hooks and the trainer's precision, and ``forward`` runs the
    network; mixed precision is measured without autocast. Under DDP each rank measures its share of the loader and all
    log the merged answer. Training is bit for bit what it would be without the callback: random numbers, the order of
    the data and the state of its workers stay as they were.

    Args:
        loader: the data to measure; by default all of the module's own training loader, shuffled as it is. With
            ``overfit_batches``, and of a stream, it is the batches that an epoch reads. Needed for a stream of unknown
            length under ``max_time``.
        test_loader: test data; its measures are logged and recorded as ``test_nc1``, ``test_accuracy`` and so on.
        every: epochs between measurements; the untrained network and the last epoch are always measured.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well.
        pooling: as in :func:`neuralcollapse.measure`.
        forward: as in :func:`neuralcollapse.measure`; by default the module's own, in the trainer's precision.
        batch: as in :func:`neuralcollapse.measure`; it is given what the module's transfer hooks leave.
        allow_missing: as in :func:`neuralcollapse.measure`.
        prefix: of the logged names, as in ``nc/nc1``.
        folder: of the run, for ``neuralcollapse report FOLDER``; None keeps the history in memory alone, which under
            ``ddp_spawn`` and ``ddp_notebook`` is that of the processes that train. Besides the
            measures it gets the learning rate of the epoch's last step, where all parameter groups share it, and, where
            the module logs one, the ``train_loss``.

    Attributes:
        report: the last :class:`neuralcollapse.CollapseReport`, None before the first.
        test_report: that of the test data.
        tracker: the :class:`neuralcollapse.CollapseTracker` that holds the history.

    Raises:
        ValueError: if ``every`` is less than 1, or the folder is damaged.

    >>> callback = NeuralCollapseCallback(every=5)   # L.Trainer(callbacks=[callback])
    """

    def __init__(
        self,
        loader: Iterable[Any] | None = None,
        *,
        test_loader: Iterable[Any] | None = None,
        every: int = 1,
        classifier: str | None = None,
        layers: Sequence[str] | None = None,
        pooling: Pooling | Mapping[str, Pooling] | None = None,
        forward: Callable[..., Any] | None = None,
        batch: Callable[[Any], tuple[Any, Any]] | None = None,
        allow_missing: bool = False,
        prefix: str = "nc/",
        folder: str | Path | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        self.loader = loader
        self.test_loader = test_loader
        self.every = every
        self.classifier = classifier
        self.layers = layers
        self.pooling = pooling
        self.forward = forward
        self.batch = batch
        self.allow_missing = allow_missing
        self.prefix = prefix
        self.report: CollapseReport | None = None
        self.test_report: CollapseReport | None = None
        self.tracker = CollapseTracker(folder)
        self._learning_rate: float | None = None  # of the last step begun; none before the first

    @property
    def history(self) -> list[dict[str, float | int | None]]:
        """One dictionary per measurement, with ``epoch``, ``step`` and every measure by name."""
        return self.tracker.history

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the untrained network; when a training is resumed, drop the rows after its checkpoint."""
        resumed = trainer.global_step > 0
        self.tracker.begin(trainer.current_epoch, _described(trainer, pl_module), resumed=resumed)
        if trainer.current_epoch == 0 and not resumed:
            with self.tracker.tidied():
                self.measure(trainer, pl_module, epoch=0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the learning rate that a step trains with: after it, the schedule has gone on."""
        if trainer.optimizers:
            self._learning_rate = shared(trainer.optimizers[0].param_groups, "lr")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, where it is due, and log."""
        done = trainer.current_epoch + 1
        if done % self.every == 0 or _is_last(trainer, done):
            self.measure(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the last epoch, where only its end has shown that it is the last: early stopping asks then."""
        done = trainer.current_epoch
        if not self.history or done > (self.history[-1]["epoch"] or 0):
            self._add_row(trainer, pl_module, done)
            for logger in trainer.loggers:  # the module's own log is closed by now
                logger.log_metrics(self._named(), step=trainer.global_step - 1)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule, *, epoch: int | None = None) -> CollapseReport:
        """Measure now, log to the module's loggers and show NC1 to NC4 in the progress bar.

        Args:
            trainer: that trains the module.
            pl_module: to measure.
            epoch: number of finished epochs; by default those of the trainer, the present one included.

        Raises:
            ValueError: if there is no data, or as :func:`neuralcollapse.measure`.
        """
        done = trainer.current_epoch + 1 if epoch is None else epoch
        report = self._add_row(trainer, pl_module, done)
        if done:
            for name, value in self._named().items():
                pl_module.log(name, value, prog_bar=name.removeprefix(self.prefix) in HEADLINE)
        return report

    def _add_row(self, trainer: L.Trainer, pl_module: L.LightningModule, done: int) -> CollapseReport:
        """Measure, and add the row of an epoch."""
        loader = self.loader
        if loader is None:
            loader = trainer.train_dataloader
            if not isinstance(loader, Iterable) or isinstance(loader, Mapping | list | tuple):
                raise ValueError(
                    "NeuralCollapseCallback has no data: the trainer has no single training loader, so pass loader="
                )
            loader = _trained_on(loader, trainer)
        self.report = self._measured(trainer, pl_module, loader, self.layers, self.pooling)
        self.test_report = None
        if self.test_loader is not None and self._tests(trainer, done):
            pooling = head_pooling(pl_module, self.classifier, self.pooling)
            self.test_report = self._measured(trainer, pl_module, self.test_loader, None, pooling)
        loss = trainer.callback_metrics.get("train_loss") if done else None
        self.tracker.record(
            self.report,
            test=self.test_report,
            epoch=done,
            step=trainer.global_step,
            learning_rate=self._learning_rate,
            train_loss=None if loss is None else float(loss),
        )
        return self.report

    def _named(self) -> dict[str, float]:
        """What was measured last, by the names that are logged."""
        found = {} if self.report is None else self.report.to_dict()
        if self.test_report is not None:
            found |= {f"test_{name}": value for name, value in self.test_report.to_dict().items()}
        return {self.prefix + name: value for name, value in found.items() if value is not None}

    def _tests(self, trainer: L.Trainer, epoch: int) -> bool:
        """Whether the test data is measured after this epoch."""
        return True

    def _measured(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        loader: Iterable[Any],
        layers: Sequence[str] | None,
        pooling: Pooling | Mapping[str, Pooling] | None,
    ) -> CollapseReport:
        return measure(
            module,
            _Transferred(loader, trainer),
            classifier=self.classifier,
            layers=layers,
            pooling=pooling,
            batch=self.batch,
            allow_missing=self.allow_missing,
            forward=self.forward or _in_precision_of(trainer),
            progress=False,
        )

    def to_frame(self) -> Any:
        """The history as a pandas DataFrame, one row per measurement.

        Raises:
            ImportError: if pandas is not installed.
        """
        return self.tracker.to_frame()


def _described(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """How the run is made, as far as the trainer knows; the module's own hyperparameters where they are plain."""
    config: dict[str, Any] = {"model": type(module).__name__}
    if trainer.optimizers:
        groups = trainer.optimizers[0].param_groups
        config["optimizer"] = type(trainer.optimizers[0]).__name__
        if config["optimizer"] == "Adam" and any(group.get("decoupled_weight_decay") for group in groups):
            config["optimizer"] = "AdamW"
        scheduled = all("initial_lr" in group for group in groups)
        config["learning_rate"] = shared(groups, "initial_lr" if scheduled else "lr")
        config["weight_decay"] = shared(groups, "weight_decay")
    config["batch_size"] = getattr(trainer.train_dataloader, "batch_size", None)
    config["epochs"] = trainer.max_epochs
    config["precision"] = str(trainer.precision)
    plain = {
        name: value
        for name, value in module.hparams.items()
        if isinstance(value, int | float | str) and refusal(name, value, module.hparams) is None
    }
    described = plain | {name: value for name, value in config.items() if value is not None}
    if trainer.optimizers and trainer.global_step and not scheduled:  # the rate may have changed since the start
        described.pop("learning_rate", None)
    return described


def _trained_on(loader: Iterable[Any], trainer: L.Trainer) -> Iterable[Any]:
    """The batches of the training loader that training sees: all of a data set, and of a stream those of an epoch.

    Raises:
        ValueError: if the loader is a stream that training may read without an end.
    """
    stream = sized_len(loader) is None or isinstance(getattr(loader, "dataset", None), IterableDataset)
    if not stream and not getattr(trainer, "overfit_batches", 0):
        return loader
    batches = trainer.num_training_batches
    if trainer.max_steps > 0:
        batches = min(batches, trainer.max_steps * trainer.accumulate_grad_batches)
    if batches < math.inf:  # each epoch begins at the same batch: overfit_batches turns shuffling off
        return _First(loader, int(batches))
    if any(isinstance(callback, Timer) for callback in getattr(trainer, "callbacks", ())):
        raise ValueError(
            "NeuralCollapseCallback has no data: the training loader is a stream that may never end, so pass loader= "
            "with the data to measure"
        )
    return loader


class _First:
    """The first batches of a loader."""

    def __init__(self, loader: Iterable[Any], batches: int) -> None:
        self.loader, self.batches = _with_own_workers(loader), batches

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.loader, self.batches)


def _is_last(trainer: L.Trainer, done: int) -> bool:
    """Whether the training ends with this epoch, as far as is known at its end."""
    if done == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step:
        return True
    least = done >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
    return trainer.should_stop and least


def _in_precision_of(trainer: L.Trainer) -> Any:
    """Runs a module in the precision of its training ("64-true", "bf16-true"), without autocast."""

    def forward(module: torch.nn.Module, inputs: Any) -> Any:
        positional, keywords = arguments(module, inputs)
        kind = trainer.strategy.root_device.type
        with contextlib.ExitStack() as modes:
            modes.enter_context(trainer.precision_plugin.forward_context())
            if torch.amp.autocast_mode.is_autocast_available(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
            return module(*positional, **keywords)

    return forward


class _Transferred:
    """Batches as the trainer's precision and the module's transfer hooks leave them on the device."""

    def __init__(self, loader: Iterable[Any], trainer: L.Trainer) -> None:
        self.loader = _with_own_workers(loader)
        module = trainer.lightning_module
        # Lightning's private one asks a data module too; another Lightning may not have it.
        before_transfer = getattr(module, "_on_before_batch_transfer", module.on_before_batch_transfer)

        def transferred(batch: Any) -> Any:
            converted = trainer.precision_plugin.convert_input(batch)
            ready = before_transfer(converted, dataloader_idx=0)
            return trainer.strategy.batch_to_device(ready, dataloader_idx=0)

        self._transferred = transferred

    def __iter__(self) -> Iterator[Any]:
        yield from map(self._transferred, self.loader)


def _with_own_workers(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader of the same data that leaves the state of persistent workers to training."""
    if not isinstance(loader, DataLoader) or not loader.persistent_workers:
        return loader
    copied = copy.copy(loader)
    vars(copied).update(_iterator=None, persistent_workers=False)
    return copied
