"""The same small problem, trained in three ways with random weights: each leaves a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from neuralcollapse import CollapseTracker, NeuralCollapseCallback, NeuralCollapseTrainerCallback

EPOCHS = 3
CLASSES = 5


def split(count: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % CLASSES
    return torch.eye(CLASSES, 8)[labels] + 0.3 * torch.randn(count, 8), labels


def loaders() -> tuple[DataLoader, DataLoader]:
    torch.manual_seed(0)
    train, test = (TensorDataset(*split(count)) for count in (100, 50))
    return DataLoader(train, 20, shuffle=True), DataLoader(test, 50)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def plain_loop(folder: Path) -> None:
    train, test = loaders()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=5e-3)
    tracker = CollapseTracker(folder)
    tracker.describe(model="perceptron", optimizer="sgd", weight_decay=5e-3)
    tracker.measure(model, train, epoch=0, test_loader=test)
    for epoch in range(1, EPOCHS + 1):
        for x, y in train:
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        tracker.measure(model, train, epoch=epoch, test_loader=test, train_loss=loss.item())


def lightning(folder: Path) -> None:
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = cross_entropy(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.5, weight_decay=5e-3)

    train, test = loaders()
    callback = NeuralCollapseCallback(test_loader=test, folder=folder)
    trainer = L.Trainer(
        max_epochs=EPOCHS, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=folder.parent,
    )  # fmt: skip
    trainer.fit(Module(), train)


def hugging_face(folder: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    tokens, labels = torch.randint(10, 50, (100, 6)), torch.arange(100) % CLASSES
    tokens[:, 3] = labels
    data = [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=CLASSES,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder.parent / "trainer"), num_train_epochs=EPOCHS, per_device_train_batch_size=20,
        learning_rate=1e-2, logging_strategy="epoch", report_to=[], save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, use_cpu=True,
    )  # fmt: skip
    test = [{"input_ids": tokens[:50], "labels": labels[:50]}]
    callback = NeuralCollapseTrainerCallback(folder=folder, test_loader=test)
    Trainer(BertForSequenceClassification(config), arguments, train_dataset=data, callbacks=[callback]).train()
