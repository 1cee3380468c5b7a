from __future__ import annotations

import csv
import random

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from neuralcollapse import NeuralCollapseCallback, measure
from neuralcollapse.measurement.run_folder import read_config
from neuralcollapse.train.optimality import certify_run


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


class Transformed(Plain):
    """Each of the three transfer hooks does its part; dropout draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        self.losses: list[float] = []

    def on_before_batch_transfer(self, batch, dataloader_idx: int):
        return batch[0] / 2, batch[1]

    def on_after_batch_transfer(self, batch, dataloader_idx: int):
        return batch[0] - 50, batch[1]

    def training_step(self, batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss


def fitted(module: L.LightningModule, data: DataLoader, folder, callbacks: list, **options: object) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=2, callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer


def test_another_lightning_without_the_private_hook_measures_the_same(tmp_path, monkeypatch) -> None:
    def without_it(*given, **options):
        with monkeypatch.context() as meanwhile:  # training itself goes on with the hook that its Lightning has
            meanwhile.delattr(L.LightningModule, "_on_before_batch_transfer")
            return measure(*given, **options)

    found = []
    for measuring in (measure, without_it):
        monkeypatch.setattr("neuralcollapse.train.callback.measure", measuring)
        L.seed_everything(5, verbose=False)
        callback = NeuralCollapseCallback()
        fitted(Transformed(), loader(), tmp_path, [callback])
        found.append(callback.report.metrics.nc1)
    assert found[0] == found[1]


class Jittered(TensorDataset):
    """Draws from all three kinds of random numbers, as image transforms do."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = super().__getitem__(index)
        return x + 0.01 * (torch.rand(1) + np.random.rand() + random.random()).float(), y  # noqa: NPY002


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("unchecked_shapes")  # beartype draws from Python's random numbers
@pytest.mark.parametrize("workers", [0, 1])
def test_training_is_bit_for_bit_what_it_is_without_the_callback(workers: int, tmp_path) -> None:
    losses = []
    for callbacks in ([], [NeuralCollapseCallback()]):
        L.seed_everything(5, verbose=False)
        module, generator = Transformed(), torch.Generator().manual_seed(2)
        data = DataLoader(
            Jittered(*loader().dataset.tensors), 20, shuffle=True, generator=generator,
            num_workers=workers, persistent_workers=bool(workers),
        )  # fmt: skip
        torch.manual_seed(7)
        fitted(module, data, tmp_path, callbacks)
        losses.append(module.losses)
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed"])
def test_batches_pass_the_module_s_own_hooks_in_its_precision(precision: str, tmp_path) -> None:
    module, callback, data = Transformed(), NeuralCollapseCallback(), loader()
    fitted(module, data, tmp_path, [callback], precision=precision)
    bits = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    x, y = data.dataset.tensors
    expected = measure(module, [(x.to(bits) / 2 - 50, y)])
    assert callback.report.features.dtype == bits
    assert callback.report.metrics.nc1 == pytest.approx(expected.metrics.nc1, rel=1e-3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_history_is_kept_and_each_name_logged_once(tmp_path) -> None:
    callback = NeuralCollapseCallback()
    trainer = fitted(Plain(), loader(), tmp_path, [callback])
    assert [(row["epoch"], row["step"]) for row in callback.history] == [(0, 0), (1, 3), (2, 6)]
    assert [row["learning_rate"] for row in callback.history] == [None, 0.1, 0.1]
    assert callback.history[-1]["nc1"] == callback.report.metrics.nc1
    logged = [name.lower().removeprefix("nc/") for name in trainer.callback_metrics]
    assert sorted(logged) == sorted(set(logged))
    assert "accuracy" in logged
    pytest.importorskip("pandas")
    assert list(callback.to_frame()["epoch"]) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_test_data_the_loss_and_how_it_was_made_are_recorded(tmp_path) -> None:
    class Said(Plain):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def training_step(self, batch, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            losses.append(float(loss))
            return loss

    losses: list[float] = []
    test = loader(30)
    callback = NeuralCollapseCallback(test_loader=test, folder=tmp_path / "run")
    module = Said(depth=3)
    trainer = fitted(module, loader(), tmp_path, [callback])
    x, y = test.dataset.tensors
    expected = measure(module, [(x - 100, y)])
    assert callback.history[-1]["test_nc1"] == pytest.approx(expected.metrics.nc1, rel=1e-5)
    assert callback.history[-1]["test_accuracy"] == expected.accuracy
    assert float(trainer.callback_metrics["nc/test_nc1"]) == pytest.approx(expected.metrics.nc1, rel=1e-5)
    means = [sum(losses[epoch : epoch + 3]) / 3 for epoch in (0, 3)]
    assert [row["train_loss"] for row in callback.history] == [None, *(pytest.approx(mean) for mean in means)]
    assert read_config(tmp_path / "run") == {
        "depth": 3, "model": "Said", "optimizer": "SGD", "learning_rate": 0.1, "weight_decay": 0, "batch_size": 20,
        "epochs": 2, "precision": "32-true",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_several_loaders_ask_for_one(tmp_path) -> None:
    class Joint(Plain):
        def training_step(self, batch, batch_idx: int) -> Tensor:
            return super().training_step(batch["a"], batch_idx)

        def on_after_batch_transfer(self, batch, dataloader_idx: int):
            return batch

    with pytest.raises(ValueError, match="no single training loader, so pass loader="):
        fitted(Joint(), {"a": loader()}, tmp_path, [NeuralCollapseCallback()])


class Stream(IterableDataset):
    """As it comes: three batches, and then an error where an endless one would go on."""

    def __init__(self, ends: bool, length: int | None = None) -> None:
        self.ends = ends
        if length is not None:  # as WebDataset's with_length says it of an endless one
            self.__class__ = type("Sized", (Stream,), {"__len__": lambda _: 20 * length})

    def __iter__(self):
        yield from TensorDataset(*loader().dataset.tensors)
        if not self.ends:
            raise AssertionError("read further than training reads")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_batches_that_are_trained_on_are_measured(tmp_path) -> None:
    callback = NeuralCollapseCallback()
    data = loader()
    fitted(Plain(), data, tmp_path, [callback], overfit_batches=2)
    assert torch.equal(callback.report.labels, data.dataset.tensors[1][:40])  # Lightning shuffles no more


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_trial_of_one_batch_measures_all_of_a_data_set(tmp_path) -> None:
    """One batch may lack a class, and a trial of the code fails on no data."""
    callback = NeuralCollapseCallback()
    fitted(Plain(), loader(), tmp_path, [callback], fast_dev_run=True)
    assert callback.report.moments.total == 60


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("length", [None, 3])
@pytest.mark.parametrize(
    "options", [{"limit_train_batches": 2}, {"max_steps": 2}, {"fast_dev_run": 2}, {"overfit_batches": 2}], ids=str
)
def test_of_a_stream_what_training_reads_is_measured(options, length, tmp_path) -> None:
    stream = Stream(ends=False, length=length)
    callback = NeuralCollapseCallback()
    fitted(Plain(), DataLoader(stream, 20), tmp_path, [callback], **options)
    assert torch.equal(callback.report.labels, loader().dataset.tensors[1][:40])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_stream_that_may_never_end_asks_for_data(tmp_path) -> None:
    options = {"max_time": {"seconds": 5}}
    with pytest.raises(ValueError, match="a stream that may never end, so pass loader="):
        fitted(Plain(), DataLoader(Stream(ends=True), 20), tmp_path, [NeuralCollapseCallback()], **options)
    given = NeuralCollapseCallback(loader())
    fitted(Plain(), DataLoader(Stream(ends=True), 20), tmp_path, [given], **options)
    assert given.report.moments.total == 60


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_stream_that_training_reads_to_its_end_is_measured(tmp_path) -> None:
    callback = NeuralCollapseCallback()
    fitted(Plain(), DataLoader(Stream(ends=True), 20), tmp_path, [callback])
    assert callback.report.moments.total == 60


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("decoupled", [False, True])
def test_decoupled_decay_is_adamw_s_and_has_no_place_in_the_theory(decoupled: bool, tmp_path) -> None:
    class Decayed(Plain):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), weight_decay=0.01, decoupled_weight_decay=decoupled)

    fitted(Decayed(), loader(), tmp_path, [NeuralCollapseCallback(folder=tmp_path / "run")])
    if decoupled:
        assert read_config(tmp_path / "run")["optimizer"] == "AdamW"
        with pytest.raises(ValueError, match="optimizer: 'AdamW'"):
            certify_run(tmp_path / "run")
    else:
        assert certify_run(tmp_path / "run").decays.weight == 0.01


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_list_of_batches_is_measured_and_a_pooling_by_layer_leaves_test_data_alone(tmp_path) -> None:
    x, y = loader().dataset.tensors
    callback = NeuralCollapseCallback([(x, y)], test_loader=[(x, y)], layers=["net.0"], pooling={"net.0": -1})
    fitted(Plain(), loader(), tmp_path, [callback])
    assert callback.history[-1]["test_nc1"] == callback.history[-1]["nc1"]
    assert callback.history[-1]["nc1/net.0"] is not None
    with pytest.raises(ValueError, match=r"pooling names 'net\.0', which is not measured"):
        fitted(Plain(), loader(), tmp_path, [NeuralCollapseCallback([(x, y)], pooling={"net.0": -1})])


class Stops(L.Callback):
    """Ends the training after so many epochs, as late as a callback can."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def trained(folder, module: L.LightningModule, callbacks: list, checkpoint=None, **options: object) -> L.Trainer:
    trainer = L.Trainer(
        callbacks=callbacks, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", default_root_dir=folder, **{"logger": False, **options},
    )  # fmt: skip
    trainer.fit(module, loader(), ckpt_path=checkpoint)
    return trainer


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("others", "options", "epochs"),
    [
        ([], {"max_epochs": -1, "max_steps": 9}, [0, 2, 3]),
        ([], {"max_epochs": -1, "max_steps": 8}, [0, 2, 3]),
        ([Stops(3)], {"max_epochs": 9}, [0, 2, 3]),
        ([Stops(1)], {"max_epochs": 9, "min_epochs": 5}, [0, 2, 4, 5]),
        ([Stops(4)], {"max_epochs": 9}, [0, 2, 4]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_last_epoch_is_measured_however_the_training_ends(
    others: list, options: dict, epochs: list[int], first: bool, tmp_path
) -> None:
    callback = NeuralCollapseCallback(every=2)
    log = CSVLogger(tmp_path)
    module = Plain()
    trained(tmp_path, module, [callback, *others] if first else [*others, callback], logger=log, **options)
    assert [row["epoch"] for row in callback.history] == epochs
    x, y = loader().dataset.tensors
    assert callback.history[-1]["nc1"] == pytest.approx(measure(module, [(x - 100, y)]).metrics.nc1, rel=1e-5)
    with open(f"{log.log_dir}/metrics.csv", newline="") as file:
        logged = [float(row["nc/nc1"]) for row in csv.DictReader(file) if row["nc/nc1"]]
    assert logged == pytest.approx([row["nc1"] for row in callback.history[1:]])


class Scheduled(Plain):
    """Warms up step by step; its two groups of parameters may have rates of their own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def configure_optimizers(self):
        groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(
            (self.net[0], self.net[2]), (0.1, 0.1 * self.factor), strict=True)]  # fmt: skip
        optimizer = torch.optim.SGD(groups, lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 6)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("factor", [1, 0.5])
def test_the_learning_rate_is_that_of_the_last_step_where_all_groups_share_it(factor: float, tmp_path) -> None:
    callback = NeuralCollapseCallback(folder=tmp_path / "run")
    fitted(Scheduled(factor), loader(), tmp_path, [callback])
    expected = [None, pytest.approx(0.05), pytest.approx(0.1)] if factor == 1 else [None] * 3
    assert [row["learning_rate"] for row in callback.history] == expected
    assert read_config(tmp_path / "run").get("learning_rate") == (0.1 if factor == 1 else None)


class Decayed(Plain):
    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, weight_decay=self.decay)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resuming_over_another_run_deletes_nothing_of_it(tmp_path) -> None:
    trained(tmp_path, Decayed(0.5), [NeuralCollapseCallback(folder=tmp_path / "B")], max_epochs=4)
    written = {path: path.read_bytes() for path in (tmp_path / "B").rglob("*") if path.is_file()}
    for decay in (0.25, 0.5):
        trainer = trained(tmp_path, Decayed(decay), [], max_epochs=1)
        trainer.save_checkpoint(tmp_path / f"{decay}.ckpt")
    other = [NeuralCollapseCallback(folder=tmp_path / "B")]
    with pytest.raises(ValueError, match=r"holds another run: weight_decay was 0.5 and is now 0.25"):
        trained(tmp_path, Decayed(0.25), other, tmp_path / "0.25.ckpt", max_epochs=2)
    assert {path: path.read_bytes() for path in (tmp_path / "B").rglob("*") if path.is_file()} == written
    alike = NeuralCollapseCallback(folder=tmp_path / "B")
    trained(tmp_path, Decayed(0.5), [alike], tmp_path / "0.5.ckpt", max_epochs=2)
    assert [row["epoch"] for row in alike.history] == [0, 1, 2]
    assert read_config(tmp_path / "B")["epochs"] == 2
    kept = [path.read_bytes() for path in (tmp_path / "B").rglob("*") if path.is_file()]
    config = tmp_path / "B" / "config.yaml"
    assert all(content in kept for path, content in written.items() if path != config)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_training_resumed_within_its_first_epoch_goes_on(tmp_path) -> None:
    class Saves(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "2.ckpt")

    trained(tmp_path, Plain(), [NeuralCollapseCallback(folder=tmp_path / "run"), Saves()], max_epochs=1)
    callback = NeuralCollapseCallback(folder=tmp_path / "run")
    trained(tmp_path, Plain(), [callback], tmp_path / "2.ckpt", max_epochs=2)
    assert [row["epoch"] for row in callback.history] == [0, 1, 2]


def test_what_the_errors_of_measure_ask_for_can_be_given(tmp_path) -> None:
    ways = {
        "forward": lambda module, inputs: module(inputs - 1),
        "batch": lambda held: (held[0] + 1, held[1]),
    }
    module, data = Plain(), loader()
    given = ({}, ways, {"batch": ways["batch"]})
    callbacks = [NeuralCollapseCallback(data, prefix=f"{place}/", **some) for place, some in enumerate(given)]
    fitted(module, data, tmp_path, callbacks)
    ends = [callback.report.metrics.nc1 for callback in callbacks]
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)  # what is added before the forward pass is taken away in it
    assert ends[2] != pytest.approx(ends[0], rel=1e-2)


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every=0 must be at least 1"):
        NeuralCollapseCallback(every=0)
