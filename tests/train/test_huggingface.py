"""The callback of the Hugging Face Trainer: a small random model, trained with and without it."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import TrainerCallback

from neuralcollapse import NeuralCollapseTrainerCallback, measure
from neuralcollapse.measurement.run_folder import read_metrics


def trained(
    tmp_path: Path,
    callbacks: list[Any],
    epochs: int = 2,
    logging_strategy: str = "epoch",
    checkpoint: Path | None = None,
    **options: Any,
) -> Any:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    tokens = torch.randint(10, 50, (48, 6))
    data = [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"), num_train_epochs=epochs, per_device_train_batch_size=16, report_to=[],
        disable_tqdm=True, logging_strategy=logging_strategy, learning_rate=1e-2, dataloader_pin_memory=False,
        use_cpu=True, **{"save_strategy": "no", **options},
    )  # fmt: skip
    trainer = Trainer(
        BertForSequenceClassification(config), arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer, data


def test_rows_equal_measure_and_training_is_unchanged(tmp_path: Path) -> None:
    callback = NeuralCollapseTrainerCallback(folder=tmp_path / "run")
    trainer, data = trained(tmp_path, [callback])
    plain, _ = trained(tmp_path, [])
    for ours, theirs in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    batch = {name: torch.stack([row[name] for row in data]) for name in ("input_ids", "labels")}
    assert float(rows[-1]["nc1"]) == pytest.approx(measure(trainer.model, [batch]).metrics.nc1, rel=1e-5)
    assert rows[0]["train_loss"] == ""
    logged = {record["epoch"]: record["loss"] for record in trainer.state.log_history if "loss" in record}
    assert [float(row["train_loss"]) for row in rows[1:]] == [logged[1.0], logged[2.0]]  # of the row's own epoch


def test_test_data_is_measured_and_an_epoch_without_a_logged_loss_recorded(tmp_path: Path) -> None:
    test = [{"input_ids": torch.randint(10, 50, (30, 6)), "labels": torch.arange(30) % 3}]
    callback = NeuralCollapseTrainerCallback(test_loader=test)
    trainer, _ = trained(tmp_path, [callback], logging_strategy="no")
    assert [row["epoch"] for row in callback.tracker.history] == [0, 1, 2]
    assert [row["train_loss"] for row in callback.tracker.history] == [None] * 3
    last = callback.tracker.history[-1]
    assert last["test_nc1"] == pytest.approx(measure(trainer.model, test).metrics.nc1, rel=1e-5)


def test_a_folder_with_another_run_is_refused_before_training(tmp_path: Path) -> None:
    trained(tmp_path, [NeuralCollapseTrainerCallback(folder=tmp_path / "run")], epochs=1)
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match="holds a run already"):
        trained(tmp_path, [NeuralCollapseTrainerCallback(folder=tmp_path / "run")], epochs=1)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


@pytest.mark.filterwarnings("ignore:1 of 3 classes have no samples")
def test_what_the_errors_of_measure_ask_for_can_be_given(tmp_path: Path) -> None:
    ways = {
        "pooling": "first",
        "forward": lambda model, inputs: model(input_ids=inputs),
        "batch": lambda held: (held["input_ids"], held["labels"].clamp(max=1)),
    }
    with pytest.raises(ValueError, match=r"classes have no samples: 2.*allow_missing=True"):
        trained(tmp_path, [NeuralCollapseTrainerCallback(**ways)], epochs=1)
    callback = NeuralCollapseTrainerCallback(**ways, allow_missing=True)
    trainer, data = trained(tmp_path, [callback], epochs=1)
    batch = {name: torch.stack([row[name] for row in data]) for name in ("input_ids", "labels")}
    expected = measure(trainer.model, [batch], allow_missing=True, **ways)
    assert callback.report.metrics.nc1 == pytest.approx(expected.metrics.nc1, rel=1e-5)
    assert len(callback.report.moments.present) == 2


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every=0"):
        NeuralCollapseTrainerCallback(every=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_learning_rate_is_that_of_the_last_step_of_the_epoch(
    tmp_path: Path, schedule: str, accumulated: int
) -> None:
    callback = NeuralCollapseTrainerCallback(folder=tmp_path / "run")
    trainer, _ = trained(
        tmp_path, [callback], lr_scheduler_type=schedule, warmup_steps=2, gradient_accumulation_steps=accumulated
    )
    logged = [record["learning_rate"] for record in trainer.state.log_history if "loss" in record]
    assert [row["learning_rate"] for row in callback.tracker.history] == [None, *logged]
    assert [row["learning_rate"] for row in read_metrics(tmp_path / "run")][1:] == [str(rate) for rate in logged]


def test_the_learning_rate_of_a_linear_schedule(tmp_path: Path) -> None:
    callback = NeuralCollapseTrainerCallback()
    trained(tmp_path, [callback], logging_strategy="no", lr_scheduler_type="linear")
    steps = [1e-2 * (6 - step) / 6 for step in range(6)]  # three steps an epoch, the rate falls after each
    assert [row["learning_rate"] for row in callback.tracker.history[1:]] == pytest.approx([steps[2], steps[5]])


class Stops(TrainerCallback):
    """Ends the training where an evaluation comes after so many steps, or at that step."""

    def __init__(self, step: int, *, evaluated: bool) -> None:
        self.step, self.evaluated = step, evaluated

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= not self.evaluated and state.global_step >= self.step

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self.evaluated and state.global_step >= self.step


@pytest.mark.parametrize(
    ("options", "stop", "epochs"),
    [
        ({"max_steps": 1}, None, [(0, 0), (1, 1)]),
        ({"max_steps": 7}, None, [(0, 0), (1, 3), (2, 6), (3, 7)]),
        ({}, Stops(7, evaluated=False), [(0, 0), (1, 3), (2, 6), (3, 7)]),
        ({}, Stops(8, evaluated=False), [(0, 0), (1, 3), (2, 6), (3, 8)]),
        ({"logging_strategy": "no"}, Stops(7, evaluated=False), [(0, 0), (1, 3), (2, 6), (3, 7)]),
    ],
)
def test_a_training_that_stops_within_an_epoch_records_that_epoch_once(
    tmp_path: Path, options: dict, stop: Any, epochs: list
) -> None:
    callback = NeuralCollapseTrainerCallback(folder=tmp_path / "run")
    trained(tmp_path, [callback, *([stop] if stop else [])], epochs=5, **options)
    assert [(row["epoch"], row["step"]) for row in callback.tracker.history] == epochs


@pytest.mark.parametrize("options", [
    {}, {"save_strategy": "epoch"},
    {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "loss"},
])  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_a_last_epoch_that_its_evaluation_ends_is_measured(tmp_path: Path, options: dict, first: bool) -> None:
    callback = NeuralCollapseTrainerCallback(every=2)
    stop = Stops(9, evaluated=True)
    callbacks = [callback, stop] if first else [stop, callback]
    trained(tmp_path, callbacks, epochs=5, eval_strategy="epoch", **options)
    assert [(row["epoch"], row["step"]) for row in callback.tracker.history] == [(0, 0), (2, 6), (3, 9)]
    assert callback.tracker.history[-1]["train_loss"] is not None


@pytest.mark.parametrize("step", [2, 5])
def test_a_resumed_training_measures_the_epoch_again_in_which_it_stopped(tmp_path: Path, step: int) -> None:
    saved = {"save_strategy": "steps", "save_steps": step}
    stopping = [NeuralCollapseTrainerCallback(folder=tmp_path / "run"), Stops(step, evaluated=False)]
    trained(tmp_path, stopping, epochs=3, **saved)
    callback = NeuralCollapseTrainerCallback(folder=tmp_path / "run")
    trained(tmp_path, [callback], epochs=3, checkpoint=tmp_path / "trainer" / f"checkpoint-{step}", **saved)
    assert [(row["epoch"], row["step"]) for row in callback.tracker.history] == [(0, 0), (1, 3), (2, 6), (3, 9)]


def test_resuming_over_another_run_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, [NeuralCollapseTrainerCallback(folder=tmp_path / "B")], epochs=3, weight_decay=0.5)
    before = (tmp_path / "B" / "metrics.csv").read_bytes()
    trained(tmp_path, [], epochs=1, save_strategy="epoch")
    other = [NeuralCollapseTrainerCallback(folder=tmp_path / "B")]
    with pytest.raises(ValueError, match=r"holds another run: weight_decay was 0\.5 and is now 0\.0\. Choose"):
        trained(tmp_path, other, epochs=2, checkpoint=tmp_path / "trainer" / "checkpoint-3")
    assert (tmp_path / "B" / "metrics.csv").read_bytes() == before
