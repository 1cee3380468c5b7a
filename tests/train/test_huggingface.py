"""The callback of the Hugging Face Trainer: a small random model, trained with and without it."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from neuralcollapse import NeuralCollapseTrainerCallback, measure
from neuralcollapse.measurement.run_folder import read_metrics


def trained(tmp_path: Path, callbacks: list[Any], epochs: int = 2) -> Any:
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
        save_strategy="no", disable_tqdm=True, logging_strategy="epoch", learning_rate=1e-2,
        dataloader_pin_memory=False, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=data, callbacks=callbacks)
    trainer.train()
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
    assert float(rows[-1]["learning_rate"]) >= 0
    assert rows[0]["train_loss"] == ""


def test_a_folder_with_another_run_is_refused_before_training(tmp_path: Path) -> None:
    trained(tmp_path, [NeuralCollapseTrainerCallback(folder=tmp_path / "run")], epochs=1)
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match="holds a run already"):
        trained(tmp_path, [NeuralCollapseTrainerCallback(folder=tmp_path / "run")], epochs=1)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every=0"):
        NeuralCollapseTrainerCallback(every=0)
