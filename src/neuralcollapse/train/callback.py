"""Measure the collapse of any LightningModule while it trains."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from neuralcollapse.geometry.measures import HEADLINE
from neuralcollapse.measurement import CollapseReport, measure
from neuralcollapse.measurement.batches import arguments
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.tracker import CollapseTracker


class NeuralCollapseCallback(L.Callback):
    """Logs the measures of neural collapse of a LightningModule at the end of epochs.

    Batches pass through the module's own transfer hooks and the trainer's precision, and ``forward`` runs the
    network; mixed precision is measured without autocast. Under DDP each rank measures its share of the loader and all
    log the merged answer. Training is bit for bit what it would be without the callback: random numbers, the order of
    the data and the state of its workers stay as they were.

    Args:
        loader: the data to measure; by default the module's own training loader, shuffled as it is.
        every: epochs between measurements.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well.
        pooling: as in :func:`neuralcollapse.measure`.
        allow_missing: as in :func:`neuralcollapse.measure`.
        prefix: of the logged names, as in ``nc/nc1``.
        folder: of the run, for ``neuralcollapse report FOLDER``; None keeps the history in memory alone.

    Attributes:
        report: the last :class:`neuralcollapse.CollapseReport`, None before the first.
        tracker: the :class:`neuralcollapse.CollapseTracker` that holds the history.

    Raises:
        ValueError: if ``every`` is less than 1, or the folder is damaged.

    >>> callback = NeuralCollapseCallback(every=5)   # L.Trainer(callbacks=[callback])
    """

    def __init__(
        self,
        loader: Iterable[Any] | None = None,
        *,
        every: int = 1,
        classifier: str | None = None,
        layers: Sequence[str] | None = None,
        pooling: Pooling | Mapping[str, Pooling] | None = None,
        allow_missing: bool = False,
        prefix: str = "nc/",
        folder: str | Path | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        self.loader = loader
        self.every = every
        self.classifier = classifier
        self.layers = layers
        self.pooling = pooling
        self.allow_missing = allow_missing
        self.prefix = prefix
        self.report: CollapseReport | None = None
        self.tracker = CollapseTracker(folder)

    @property
    def history(self) -> list[dict[str, float | int | None]]:
        """One dictionary per measurement, with ``epoch``, ``step`` and every measure by name."""
        return self.tracker.history

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the rows after the epoch from which the training goes on."""
        self.tracker.begin(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, where it is due, and log."""
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs:
            self.measure(trainer, pl_module)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule, *, epoch: int | None = None) -> CollapseReport:
        """Measure now, log to the module's loggers and show NC1 to NC4 in the progress bar.

        Args:
            trainer: that trains the module.
            pl_module: to measure.
            epoch: number of finished epochs; by default those of the trainer, the present one included.

        Raises:
            ValueError: if there is no data, or as :func:`neuralcollapse.measure`.
        """
        loader = self.loader if self.loader is not None else trainer.train_dataloader
        if not isinstance(loader, Iterable) or isinstance(loader, Mapping | list | tuple):
            raise ValueError(
                "NeuralCollapseCallback has no data: the trainer has no single training loader, so pass loader="
            )
        self.report = measure(
            pl_module,
            _Transferred(loader, trainer),
            classifier=self.classifier,
            layers=self.layers,
            pooling=self.pooling,
            allow_missing=self.allow_missing,
            forward=_in_precision_of(trainer),
            progress=False,
        )
        found = self.report.to_dict()
        done = trainer.current_epoch + 1 if epoch is None else epoch
        self.tracker.record(self.report, epoch=done, step=trainer.global_step)
        for name, value in found.items():
            if value is not None:
                pl_module.log(self.prefix + name, value, prog_bar=name in HEADLINE)
        return self.report

    def to_frame(self) -> Any:
        """The history as a pandas DataFrame, one row per measurement.

        Raises:
            ImportError: if pandas is not installed.
        """
        return self.tracker.to_frame()


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

        def transferred(batch: Any) -> Any:
            converted = trainer.precision_plugin.convert_input(batch)
            ready = trainer.lightning_module._on_before_batch_transfer(converted, dataloader_idx=0)
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
