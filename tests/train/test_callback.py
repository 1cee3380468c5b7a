from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neuralcollapse import NeuralCollapseCallback, measure


class Plain(L.LightningModule):
    """A user's module: it standardises its batches in a transfer hook."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def on_after_batch_transfer(self, batch, dataloader_idx: int):
        return (batch[0] - 100, batch[1])

    def training_step(self, batch, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(count: int = 60) -> DataLoader:
    torch.manual_seed(0)
    labels = torch.arange(count) % 3
    means = torch.randn(3, 4)
    return DataLoader(TensorDataset(means[labels] + 0.3 * torch.randn(count, 4) + 100, labels), 20, shuffle=True)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_measures_any_module_and_logs(tmp_path) -> None:
    torch.manual_seed(1)
    module, callback = Plain(), NeuralCollapseCallback(every=2)
    trainer = L.Trainer(
        max_epochs=3, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    data = loader()
    trainer.fit(module, data)
    x, y = data.dataset.tensors
    expected = measure(module, [(x - 100, y)])
    assert module.training
    assert callback.report.metrics.nc1 == pytest.approx(expected.metrics.nc1, rel=1e-5)
    assert float(trainer.callback_metrics["nc/nc1"]) == pytest.approx(expected.metrics.nc1, rel=1e-5)
    assert float(trainer.callback_metrics["nc/nc3"]) == pytest.approx(expected.metrics.nc3, rel=1e-5)


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every=0 must be at least 1"):
        NeuralCollapseCallback(every=0)
