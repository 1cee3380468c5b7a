"""Measure the collapse of a model while the Hugging Face Trainer trains it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from neuralcollapse.measurement import CollapseReport
from neuralcollapse.measurement.tracker import CollapseTracker


class NeuralCollapseTrainerCallback(TrainerCallback):
    """Records the measures of neural collapse at the end of epochs of a ``transformers.Trainer``.

    The training data is read through a loader of its own, in order, so that the Trainer's batches stay what they would
    be without the callback. Under several processes each measures its share, and the first one writes.

    Args:
        loader: the data to measure; by default the Trainer's training data.
        every: epochs between measurements; the last epoch is always measured.
        folder: of the run, for ``neuralcollapse report FOLDER``; None keeps the history in memory alone.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well.

    Attributes:
        tracker: the :class:`neuralcollapse.CollapseTracker` that holds the history.

    Raises:
        ValueError: if ``every`` is less than 1, or the folder is damaged.

    >>> callback = NeuralCollapseTrainerCallback(every=2)   # Trainer(..., callbacks=[callback])
    """

    def __init__(
        self,
        loader: Iterable[Any] | None = None,
        *,
        every: int = 1,
        folder: str | Path | None = None,
        classifier: str | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        self.loader = loader
        self.every = every
        self.tracker = CollapseTracker(folder, classifier=classifier, layers=layers)

    @property
    def report(self) -> CollapseReport | None:
        """The last report, None before the first."""
        return self.tracker.report

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Measure the untrained network; when a training is resumed, forget the rows after its checkpoint."""
        done = round(state.epoch or 0)
        self.tracker.begin(done)
        if done == 0 and not self.tracker.history:
            self._measure(args, state, 0, parts)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Measure, where it is due."""
        epoch = round(state.epoch or 0)
        if epoch % self.every == 0 or state.global_step >= state.max_steps:
            self._measure(args, state, epoch, parts)

    def _measure(self, args: TrainingArguments, state: TrainerState, epoch: int, parts: dict[str, Any]) -> None:
        loader = self.loader if self.loader is not None else _in_order(parts.get("train_dataloader"), args)
        logged = next((record for record in reversed(state.log_history) if "loss" in record), {})
        rates = parts["optimizer"].param_groups[0]["lr"] if parts.get("optimizer") is not None else None
        self.tracker.measure(
            parts["model"],
            loader,
            epoch=epoch,
            step=state.global_step,
            learning_rate=logged.get("learning_rate", rates) if epoch else None,
            train_loss=logged.get("loss"),
        )


def _in_order(loader: Any, args: TrainingArguments) -> Iterable[Any]:
    """This process's share of the data behind a training loader, in order."""
    if loader is None or isinstance(loader.dataset, IterableDataset):
        raise ValueError("the training data is a stream that can be read once only: pass loader= with data to measure")
    share = Subset(loader.dataset, range(args.process_index, len(loader.dataset), args.world_size))
    return DataLoader(share, args.eval_batch_size, collate_fn=loader.collate_fn)
