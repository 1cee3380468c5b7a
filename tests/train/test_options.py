"""The choices of the paper's Figures 5 to 7."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from neuralcollapse.measurement.run_folder import read_config, read_metrics
from neuralcollapse.nn import build_backbone
from neuralcollapse.train import train
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import load_images
from neuralcollapse.train.module import ClassifierModule, build_network


def test_random_labels_are_balanced_and_independent_of_the_images():
    plain, shuffled = (load_images("digits", samples_per_class=50, random_labels=random) for random in (False, True))
    assert torch.equal(plain.train.pixels, shuffled.train.pixels)
    assert torch.equal(plain.train.labels.bincount(), shuffled.train.labels.bincount())
    assert (plain.train.labels == shuffled.train.labels).float().mean() < 0.25
    assert torch.equal(plain.test.labels, shuffled.test.labels)


def test_test_samples_per_class():
    data = load_images("digits", test_samples_per_class=3)
    assert data.test.labels.bincount().tolist() == [3] * 10
    with pytest.raises(ValueError, match=r"test_samples_per_class=99, but class '0' has only \d+ test samples"):
        load_images("digits", test_samples_per_class=99)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it holds no names with values"),
        (b"- 3", "it holds no names with values"),
        (b"model: \xff", "'utf-8' codec"),
        (b"epochs: [", "while parsing"),
    ],
)
def test_a_damaged_configuration_is_refused_by_its_two_readers_alike(tmp_path, content, reason):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    said = []
    for read in (lambda: TrainConfig.load(path), lambda: read_config(tmp_path)):
        with pytest.raises(ValueError, match=f"is not a valid configuration: {reason}") as refused:
            read()
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_feature_decay_penalises_features_and_classifier_alone():
    config = TrainConfig(feature_decay=0.3, weight_decay=0.2, learning_rate=0.1, momentum=0.0).resolved()
    data = load_images("digits", samples_per_class=5)
    module = ClassifierModule(build_network(config, data), config)
    module.log = lambda *args, **kwargs: None  # no trainer here
    module._trainer = type("Trainer", (), {"current_epoch": 0, "global_rank": 0})()
    pixels, labels = data.train.__getitems__(list(range(20)))
    backbone = module.network.backbone
    start = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    module.training_step((pixels, labels), 0).backward()
    optimizer.step()
    moved = {name: p.detach().clone() for name, p in backbone.named_parameters()}

    with torch.no_grad():
        for name, p in backbone.named_parameters():
            p.copy_(start[name])
    images = (pixels.float() / 255 - module.network.mean) / module.network.std
    features = nn.Sequential(*list(backbone)[:-1])(images)
    loss = nn.functional.cross_entropy(backbone[-1](features), labels) + 0.15 * (features**2).sum(1).mean()
    loss = loss + 0.1 * ((backbone[-1].weight ** 2).sum() + (backbone[-1].bias ** 2).sum())
    for (name, p), gradient in zip(
        backbone.named_parameters(), torch.autograd.grad(loss, list(backbone.parameters())), strict=True
    ):
        torch.testing.assert_close(moved[name], p.detach() - 0.1 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_width_and_stem(name):
    images = torch.randn(2, 3, 32, 32)
    small = build_backbone(name, 10, (3, 32, 32), stem="small")
    imagenet = torchvision.models.get_model(name, num_classes=10)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(imagenet) - count(small) == 3 * 64 * (49 - 9)
    assert small.layer1(small.maxpool(small.relu(small.bn1(small.conv1(images))))).shape[-1] == 32
    narrow = build_backbone(name, 10, (3, 32, 32), width=8)
    assert narrow.fc.in_features == imagenet.fc.in_features // 8
    assert narrow(images).shape == (2, 10)
    for layer in ("layer1", "layer4"):
        pairs = zip(narrow.get_submodule(layer).modules(), imagenet.get_submodule(layer).modules(), strict=True)
        assert all(a.out_channels * 8 == b.out_channels for a, b in pairs if isinstance(a, nn.Conv2d))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 32, "model": "convnet"}, "width=32 is for model mlp, resnet18 or resnet50, not convnet"),
        ({"stem": "small"}, "stem='small' is for model resnet18 or resnet50, not mlp"),
        ({"feature_decay": -1.0}, r"feature_decay=-1\.0 must be finite and at least 0"),
        ({"feature_dim": 0}, "feature_dim=0 must be at least 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**options).resolved()


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    """Three would take 42 of 128 each: 126 per step, where every record says 128."""
    config = TrainConfig(devices=3, accelerator="cpu", epochs=1, output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"batch_size=128 cannot be shared .* by 3 processes .*: give 126 or 129"):
        train(config, progress=False)
    with pytest.raises(ValueError, match=r"batch_size=1 cannot .* \(devices=1, nodes=2\): give 2"):
        train(TrainConfig(batch_size=1, nodes=2, epochs=1, output=str(tmp_path / "run")), progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.exhaustive
def test_fixed_head_on_two_processes(tmp_path):
    line = [sys.executable, "-m", "neuralcollapse.cli", "train", "--epochs", "2"]
    line += ["--head", "etf", "--feature-dim", "10"]
    for devices in ("1", "2"):
        options = ["--devices", devices, "--accelerator", "cpu", "--output", str(tmp_path / devices)]
        done = subprocess.run([*line, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (read_metrics(tmp_path / devices) for devices in ("1", "2"))
    # Untrained, the means of these ten features nearly coincide, which amplifies float32 sums of other batches.
    assert float(two[0]["nc1"]) == pytest.approx(float(one[0]["nc1"]), rel=1e-4)
    assert float(two[-1]["nc2"]) < 1e-6
    assert float(two[-1]["nc1"]) < float(two[0]["nc1"])
