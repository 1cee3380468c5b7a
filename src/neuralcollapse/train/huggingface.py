"""Measure the collapse of a model while the Hugging Face Trainer trains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from neuralcollapse.measurement import CollapseReport
from neuralcollapse.measurement.given import shared
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.tracker import CollapseTracker


class NeuralCollapseTrainerCallback(TrainerCallback):
    """Records the measures of neural collapse of a ``transformers.Trainer``, before training and at the end of epochs.

    The callback reads the training data through a separate loader, in order, so the Trainer's batches are the same as
    without the callback. Under several processes each measures its share, and the first one writes. The
    ``learning_rate`` of a row is that of the epoch's last step, as the Trainer logs it, where all parameter groups
    share it. A training that stops within an epoch records that epoch as if it were whole: 2.4 epochs give the row of
    epoch 3, which is measured again when the training is resumed.

    Args:
        loader: the data to measure; by default the Trainer's training data.
        test_loader: test data; its measures are recorded as ``test_nc1``, ``test_accuracy`` and so on.
        every: epochs between measurements; the untrained network and the last epoch are always measured. With
            ``load_best_model_at_end`` a last epoch that an evaluation stops is measured only if it is saved.
        folder: of the run, for ``neuralcollapse report FOLDER``; None keeps the history in memory alone.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well.
        pooling: as in :func:`neuralcollapse.measure`.
        forward: as in :func:`neuralcollapse.measure`.
        batch: as in :func:`neuralcollapse.measure`.
        allow_missing: as in :func:`neuralcollapse.measure`.

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
        test_loader: Iterable[Any] | None = None,
        every: int = 1,
        folder: str | Path | None = None,
        classifier: str | None = None,
        layers: Sequence[str] | None = None,
        pooling: Pooling | Mapping[str, Pooling] | None = None,
        forward: Callable[..., Any] | None = None,
        batch: Callable[[Any], tuple[Any, Any]] | None = None,
        allow_missing: bool = False,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 epoch")
        self.loader = loader
        self.test_loader = test_loader
        self.every = every
        self.tracker = CollapseTracker(
            folder,
            classifier=classifier,
            layers=layers,
            pooling=pooling,
            forward=forward,
            batch=batch,
            allow_missing=allow_missing,
        )
        self._pending: dict[str, Any] = {}
        self._learning_rate: float | None = None  # of the last step begun; none before the first

    @property
    def report(self) -> CollapseReport | None:
        """The last report, None before the first."""
        return self.tracker.report

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Measure the untrained network; when a training is resumed, drop the rows after its checkpoint."""
        resumed = state.global_step > 0
        self.tracker.begin(math.floor(state.epoch or 0), _described(args, parts["model"]), resumed=resumed)
        if not resumed:
            self._measure(args, state, 0, parts)
            self._record()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record what the last epoch left, where the Trainer logged no loss for it."""
        self._record()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Note the learning rate that a step trains with: after it, the schedule has gone on."""
        if parts.get("optimizer") is not None:
            self._learning_rate = shared(parts["optimizer"].param_groups, "lr")

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Measure, where it is due."""
        last = state.global_step >= state.max_steps or control.should_training_stop
        if last or _epoch(state) % self.every == 0:
            self._measure_once(args, state, parts)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Measure the last epoch where its evaluation stops the training: the best model may be loaded after it."""
        if control.should_training_stop:
            self._measure_once(args, state, parts)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record the epoch with its loss: the Trainer logs it after the epoch's end."""
        if "loss" in (logs or {}):
            self._record(train_loss=(logs or {})["loss"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Record the last epoch; measure it, if it was not known to be the last and the model is still its own."""
        if not args.load_best_model_at_end:
            self._measure_once(args, state, parts)
        self._record()

    def _measure_once(self, args: TrainingArguments, state: TrainerState, parts: dict[str, Any]) -> None:
        """Measure the epoch under way, unless it was measured."""
        epoch, history = _epoch(state), self.tracker.history
        measured = self._pending.get("epoch", history[-1]["epoch"] if history else None)
        if measured is None or epoch > measured:
            self._record()
            self._measure(args, state, epoch, parts)

    def _measure(self, args: TrainingArguments, state: TrainerState, epoch: int, parts: dict[str, Any]) -> None:
        """Measure now; :meth:`_record` writes the row, with the loss of the epoch as soon as it is known."""
        loader = self.loader if self.loader is not None else _in_order(parts.get("train_dataloader"), args)
        report = self.tracker.look(parts["model"], loader)
        test = None if self.test_loader is None else self.tracker.look(parts["model"], self.test_loader, layers=False)
        now = (record for record in state.log_history if "loss" in record and record.get("step") == state.global_step)
        self._pending = {
            "report": report,
            "test": test,
            "epoch": epoch,
            "step": state.global_step,
            "learning_rate": self._learning_rate if epoch else None,
            "train_loss": next((record["loss"] for record in now), None),
        }

    def _record(self, **columns: float) -> None:
        if self._pending:
            self.tracker.record(**{**self._pending, **columns})
            self._pending = {}


def _epoch(state: TrainerState) -> int:
    """Number of the epoch under way, or just finished, counted from 1: a part of an epoch counts as one."""
    return math.ceil(state.epoch or 0)


def _described(args: TrainingArguments, model: Any) -> dict[str, Any]:
    """How the run is made."""
    return {
        "model": type(model).__name__,
        "optimizer": getattr(args.optim, "value", str(args.optim)),
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "epochs": args.num_train_epochs,
        "precision": "bf16-mixed" if args.bf16 else "16-mixed" if args.fp16 else "32-true",
        "seed": args.seed,
    }


def _in_order(loader: Any, args: TrainingArguments) -> Iterable[Any]:
    """This process's share of the data behind a training loader, in order."""
    if loader is None or isinstance(loader.dataset, IterableDataset):
        raise ValueError("the training data is a stream that can be read once only: pass loader= with data to measure")
    share = Subset(loader.dataset, range(args.process_index, len(loader.dataset), args.world_size))
    return DataLoader(share, args.eval_batch_size, collate_fn=loader.collate_fn)
