"""Measure the collapse of any LightningModule while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import lightning as L

from neuralcollapse.measurement import CollapseReport, measure

SHOWN = ("nc1", "nc2", "nc3", "nc4")


class NeuralCollapseCallback(L.Callback):
    """Logs the measures of neural collapse of a LightningModule at the end of epochs.

    The module must return logits from ``forward``. Its own transfer hooks run on the batches; under
    DDP each rank measures its share of the loader and all log the merged answer.

    Args:
        loader: the data to measure; by default the module's own training loader, shuffled as it is.
        every: epochs between measurements.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well.
        prefix: of the logged names, as in ``nc/nc1``.

    Attributes:
        report: the last :class:`neuralcollapse.CollapseReport`, None before the first.

    Raises:
        ValueError: if ``every`` is less than 1.

    >>> callback = NeuralCollapseCallback(every=5)   # L.Trainer(callbacks=[callback])
    """

    def __init__(
        self,
        loader: Iterable[Any] | None = None,
        *,
        every: int = 1,
        classifier: str | None = None,
        layers: Sequence[str] | None = None,
        prefix: str = "nc/",
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        self.loader = loader
        self.every = every
        self.classifier = classifier
        self.layers = layers
        self.prefix = prefix
        self.report: CollapseReport | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, where it is due, and log."""
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs:
            self.measure(trainer, pl_module)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> CollapseReport:
        """Measure now, log to the module's loggers and show NC1 to NC4 in the progress bar."""
        loader = self.loader if self.loader is not None else trainer.train_dataloader
        if loader is None:
            raise ValueError("NeuralCollapseCallback has no data: pass loader=")
        self.report = measure(
            pl_module,
            _Transferred(loader, trainer),
            classifier=self.classifier,
            layers=self.layers,
            progress=False,
        )
        found = {name: value for name, value in self.report.to_dict().items() if value is not None}
        for name, value in found.items():
            if name in SHOWN:
                pl_module.log(name.upper(), value, prog_bar=True, logger=False)
            pl_module.log(self.prefix + name, value)
        return self.report


class _Transferred:
    """Batches as the module's own transfer hooks leave them on the device."""

    def __init__(self, loader: Iterable[Any], trainer: L.Trainer) -> None:
        self._loader = loader
        self._trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            yield self._trainer.strategy.batch_to_device(batch, dataloader_idx=0)
