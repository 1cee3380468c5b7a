"""What the records say is what happened: rates, statistics, seeds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from neuralcollapse import measure
from neuralcollapse.measurement.run_folder import read_metrics, write_metrics
from neuralcollapse.paper.archive import archive
from neuralcollapse.train import TrainConfig, load_images, load_run, train
from neuralcollapse.train.datasets import eval_loader, train_loader
from neuralcollapse.train.module import build_network
from neuralcollapse.train.seeds import mix

SMALL = TrainConfig(width=32, samples_per_class=6, test_samples_per_class=3, epochs=5, batch_size=32, measure_every=9)


def run(folder: Path, **changes) -> list[dict[str, str]]:
    train(dataclasses.replace(SMALL, output=str(folder), **changes), progress=False)
    return read_metrics(folder)


@pytest.mark.parametrize(("optimizer", "start"), [("sgd", 0.05), ("adam", 1e-3)])
def test_a_row_has_the_rate_of_its_own_epoch_also_when_resumed_within_a_step(tmp_path, optimizer, start) -> None:
    whole = run(tmp_path / "whole", optimizer=optimizer, lr_decay_every=2)
    assert whole[0]["learning_rate"] == ""
    rates = [float(row["learning_rate"]) for row in whole[1:]]
    assert rates == pytest.approx([start, start, start / 10, start / 10, start / 100])
    run(tmp_path / "parts", optimizer=optimizer, lr_decay_every=2, epochs=3)
    parts = run(tmp_path / "parts", optimizer=optimizer, lr_decay_every=2, resume=True)
    assert [row["learning_rate"] for row in parts] == [row["learning_rate"] for row in whole]
    for one, other in zip(whole, parts, strict=True):
        assert float(one["train_loss"] or 0) == pytest.approx(float(other["train_loss"] or 0), rel=1e-5)


def test_lbfgs_keeps_its_rate(tmp_path: Path) -> None:
    rows = run(tmp_path, optimizer="lbfgs", lr_decay_every=1, epochs=2)
    assert [row["learning_rate"] for row in rows] == ["", "0.1", "0.1"]


def test_the_loss_of_lbfgs_is_that_of_the_first_look_at_each_batch(tmp_path: Path) -> None:
    """Its line search comes back to a batch at trial points, whose losses are no one's."""
    row = run(tmp_path, optimizer="lbfgs", epochs=1, batch_size=64)[1]  # all 60 images
    config = dataclasses.replace(SMALL, optimizer="lbfgs").resolved()
    data = load_images("digits", samples_per_class=6)
    logits = build_network(config, data)(data.train.pixels).detach()
    loss = float(torch.nn.functional.cross_entropy(logits, data.train.labels))
    assert float(row["train_loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("progress", "said"), [(True, True), (None, True), (False, False)])
def test_a_reduced_test_set_is_said(
    progress: bool | None, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("neuralcollapse.train.run._fit", lambda *arguments, **options: None)
    train(TrainConfig(samples_per_class=6, output=str(tmp_path / "run")), progress=progress)
    sentence = (
        "test accuracy over 360 images, at most 100 per class (test_samples_per_class='all' tests on every image)"
    )
    assert (sentence in caplog.text) is said


def test_a_divergence_names_the_rate_of_its_epoch(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=re.escape("Lower the learning rate, 1e+30,")):
        run(tmp_path, learning_rate=1e30, lr_decay_every=1)


def test_lbfgs_statistics_are_those_of_all_data_with_a_remainder(tmp_path: Path) -> None:
    """200 images in batches of 99 leave 2: their statistics alone would be far from those of all."""
    config = {"model": "convnet", "width": None, "optimizer": "lbfgs", "samples_per_class": 20, "batch_size": 99}
    rows = run(tmp_path, **config, epochs=4)
    loaded = load_run(tmp_path)
    found = measure(loaded.network, eval_loader(loaded.data.train), progress=False)
    norms = [layer for layer in loaded.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms, "the network has statistics"
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # an average over all that it sees
    with torch.no_grad():
        loaded.network.train()(loaded.data.train.pixels)
    expected = measure(loaded.network, eval_loader(loaded.data.train), progress=False)
    assert float(rows[-1]["train_accuracy"]) == expected.to_dict()["accuracy"] == found.to_dict()["accuracy"]
    assert float(rows[-1]["nc1"]) == pytest.approx(expected.to_dict()["nc1"], rel=1e-3)


@pytest.mark.parametrize("seed", [1_800_000_001, 2**31, 2**32 + 1, 2**62, 2**63 - 1])
def test_seeds_of_any_size(seed: int) -> None:
    data = load_images("digits", samples_per_class=3)
    config = dataclasses.replace(SMALL, seed=seed).resolved()
    weights = [p.detach().clone() for p in build_network(config, data).parameters()]
    again = list(build_network(config, data).parameters())
    other = list(build_network(dataclasses.replace(config, seed=seed - 1), data).parameters())
    assert all(torch.equal(one, two) for one, two in zip(weights, again, strict=True))
    assert not torch.equal(weights[0], other[0])
    order = [torch.cat([y for _, y in train_loader(data.train, 7, seed=s)]) for s in (seed, seed - 1)]
    assert not torch.equal(*order)
    torch.manual_seed(mix(seed, 3, 1, 0))


def test_a_run_with_a_large_seed(tmp_path: Path) -> None:
    rows = run(tmp_path, seed=2**62, augment=True, epochs=1)
    assert float(rows[1]["train_loss"]) > 0
    assert TrainConfig.load(tmp_path / "config.yaml").seed == 2**62


def test_the_test_accuracy_has_its_own_rhythm(tmp_path: Path) -> None:
    rows = run(tmp_path, measure_every=2, test_every=3)
    assert [bool(row["nc1"]) for row in rows] == [True, False, True, False, True, True]
    assert [bool(row["test_accuracy"]) for row in rows] == [True, False, False, True, False, True]


@pytest.mark.parametrize(("samples", "tested"), [(None, 36), (20, 36)])
def test_the_default_test_set(samples: int | None, tested: int) -> None:
    data = load_images("digits", samples_per_class=samples, test_samples_per_class="auto")
    assert int(data.test.labels.bincount().max()) >= tested
    whole = load_images("digits")
    assert len(data.test) == len(whole.test), "fewer than 100 per class: all of them"


def test_the_default_test_set_of_a_large_one_is_a_hundred_per_class(data_root: Path) -> None:
    data = load_images("mnist", data_root, samples_per_class=5, test_samples_per_class="auto")
    assert data.test.labels.bincount().tolist() == [100] * 10


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision_is_of_the_training_alone(tmp_path: Path, precision: str) -> None:
    rows = run(tmp_path, precision=precision, epochs=2, measure_every=1)
    loaded = load_run(tmp_path)
    found = measure(loaded.network, eval_loader(loaded.data.train), progress=False).to_dict()
    assert float(rows[-1]["nc1"]) == pytest.approx(found["nc1"], rel=1e-5)
    assert {parameter.dtype for parameter in loaded.network.parameters()} == {torch.float32}


def test_lbfgs_cannot_scale_its_loss() -> None:
    with pytest.raises(ValueError, match="optimizer='lbfgs' runs at precision='32-true' or 'bf16-mixed'"):
        TrainConfig(optimizer="lbfgs", precision="16-mixed").resolved()


def test_a_split_on_a_device_is_one_gather() -> None:
    split = load_images("digits", samples_per_class=4).train
    assert split.on(split.pixels.device) is split
    away = split.on(torch.device("meta"))
    pixels, labels = away.__getitems__([3, 1])
    assert pixels.device.type == labels.device.type == "meta"
    assert pixels.shape == (2, *split.pixels.shape[1:])


@pytest.mark.parametrize("before", [False, True])
def test_subnormal_numbers_are_zero_while_it_trains(
    before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor computes with them many times more slowly, and weight decay makes millions of them."""

    def flushed() -> bool:
        return float(torch.tensor(1e-30) * torch.tensor(1e-10)) == 0

    seen = []
    monkeypatch.setattr("neuralcollapse.train.run._fit", lambda *arguments, **options: seen.append(flushed()))
    torch.set_flush_denormal(before)
    try:
        train(TrainConfig(output=str(tmp_path / "run")), progress=False)
        assert seen == [True]
        assert flushed() is before
    finally:
        torch.set_flush_denormal(False)


def test_train_loss_is_the_mean_over_images_of_an_epochs_batches(tmp_path: Path) -> None:
    """A rate of nearly zero keeps the weights; the last batch is smaller, and counts for less."""
    folder = tmp_path / "run"
    config = TrainConfig(samples_per_class=13, batch_size=50, epochs=2, learning_rate=1e-20, output=str(folder))
    train(config, progress=False)
    loaded = load_run(folder)
    loaded.network.train()
    for row, epoch in zip(read_metrics(folder)[1:], (0, 1), strict=True):
        loader = train_loader(loaded.data.train, 50, config.seed)
        loader.sampler.set_epoch(epoch)
        parts = [
            (len(labels), float(torch.nn.functional.cross_entropy(loaded.network(pixels).detach(), labels)))
            for pixels, labels in loader
        ]
        assert [size for size, _ in parts] == [50, 50, 30]
        assert float(row["train_loss"]) == pytest.approx(sum(size * loss for size, loss in parts) / 130, rel=1e-6)


def test_an_archived_run_is_not_taken_for_one_that_has_only_begun(tmp_path: Path) -> None:
    """Archived before its second measurement, it has one row, and the snapshot of a later epoch."""
    folder = tmp_path / "run"
    train(dataclasses.replace(SMALL, epochs=3, output=str(folder)), progress=False)
    kept = archive(folder, tmp_path / "kept")
    write_metrics(kept, read_metrics(kept)[:1])
    train(dataclasses.replace(SMALL, epochs=1, output=str(kept), resume=True), progress=False)
    assert [path.name for path in kept.glob("metrics.csv.*")]
