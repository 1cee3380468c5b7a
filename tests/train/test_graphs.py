"""Steps replayed as graphs: the same training."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neuralcollapse.train import TrainConfig, graphs, module, train
from neuralcollapse.train.checkpoint import FOLDER, LAST, read_checkpoint

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no device of CUDA or ROCm")

VARIANTS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adam"},
    {"optimizer": "lbfgs", "batch_size": 512},
    {"optimizer": "lbfgs"},  # one batch, smaller than the batch size
    {"feature_decay": 1e-3},
    {"head": "etf", "feature_dim": 10},
    {"model": "convnet", "augment": True, "image_size": 16},
    {"model": "resnet18", "width": 4, "stem": "small", "image_size": 16, "samples_per_class": 30},
]


def trained(folder: Path, **choices: Any) -> tuple[list[dict[str, str]], dict[str, torch.Tensor]]:
    """Rows of metrics.csv without the times, and the last weights."""
    config = TrainConfig(dataset="digits", epochs=2, output=str(folder), **choices)
    train(config, progress=False)
    with (folder / "metrics.csv").open() as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return rows, read_checkpoint(folder / FOLDER / LAST)["state_dict"]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for the accelerator: a replay runs the work again. Returns what counts the captures and replays."""
    counts = [0, 0]

    def captured(work: Callable[[], None]) -> Callable[[], None]:
        counts[0] += 1
        for _ in range(4):
            work()

        def replay() -> None:
            counts[1] += 1
            work()

        return replay

    monkeypatch.setattr(graphs, "captured", captured)
    monkeypatch.setattr(module, "can_capture", lambda device: True)
    return counts


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_a_captured_training_is_the_eager_one(
    choices: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager_rows, eager_weights = trained(tmp_path / "eager", **choices)
    counts = recorded(monkeypatch)
    rows, weights = trained(tmp_path / "captured", capture=True, **choices)
    captures, replays = counts
    images = 10 * choices["samples_per_class"] if "samples_per_class" in choices else 1437
    batch = min(images, choices.get("batch_size", 2048 if choices.get("optimizer") == "lbfgs" else 128))
    assert captures == 1
    assert replays >= 2 * (images // batch)
    assert rows == eager_rows
    assert weights.keys() == eager_weights.keys()
    assert all(torch.equal(weights[name], eager_weights[name]) for name in weights)


def test_steps_are_captured_only_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = recorded(monkeypatch)
    trained(tmp_path / "run")
    assert counts == [0, 0]


def test_a_host_trains_as_usual_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = trained(tmp_path / "asked", capture=True)[0]
    assert "capture=True has no effect" in caplog.text
    assert asked == trained(tmp_path / "run")[0]


def test_a_capture_holds_no_casts_of_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast with its cache on, the second pass would use the weights that the first one has cast."""
    casts: list[int] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            casts[-1] += function is torch.ops.aten._to_copy.default
            return function(*arguments, **(keywords or {}))

    def captured(work: Callable[[], None]) -> Callable[[], None]:
        for _ in range(4):
            casts.append(0)
            with Count():
                work()
        return work

    monkeypatch.setattr(graphs, "captured", captured)
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))

    def losses(pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = torch.nn.functional.cross_entropy(network(pixels), labels)
        return loss, loss

    step = graphs.CapturedStep(losses, network, 4)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        first = float(step(torch.ones(4, 6), torch.zeros(4, dtype=torch.int64))[0])
        assert torch.is_autocast_cache_enabled()
        with torch.no_grad():
            network[1].weight.zero_()
            network[1].bias.zero_()
        assert float(step(torch.ones(4, 6), torch.zeros(4, dtype=torch.int64))[0]) == pytest.approx(math.log(3))
    assert first != pytest.approx(math.log(3))
    assert casts[0] > 0
    assert len(set(casts)) == 1


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"model": "torchvision:squeezenet1_1"}, "mlp, convnet, resnet18 or resnet50"),
        ({"precision": "16-mixed"}, "precision='32-true' or 'bf16-mixed'"),
        ({"devices": 2}, "devices=1, nodes=1"),
    ],
)
def test_what_cannot_be_captured_is_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^capture=True .*{said}"):
        TrainConfig(capture=True, **choices).resolved()


def test_a_host_cannot_capture() -> None:
    assert not graphs.can_capture(torch.empty(0).device)


@on_cuda
@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_graphs_give_the_numbers_of_the_usual_steps(choices: dict[str, Any], tmp_path: Path) -> None:
    """In bf16-mixed, where 40 steps on an H100 gave the same weights; 32-true is not yet explained."""
    usual_rows, _ = trained(tmp_path / "usual", precision="bf16-mixed", **choices)
    rows, _ = trained(tmp_path / "captured", precision="bf16-mixed", capture=True, **choices)
    assert rows == usual_rows
