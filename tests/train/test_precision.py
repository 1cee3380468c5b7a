"""Half precision that a processor emulates is said, and counted in what a run costs."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.nn.functional import conv2d

from neuralcollapse.cli.app import build_app
from neuralcollapse.cli.errors import log_as_typed
from neuralcollapse.train import TrainConfig, precision, train
from neuralcollapse.train.precision import DTYPES, autocast, emulated, slowdown

HERE = torch.empty(0).device


@pytest.mark.parametrize("name", ["32-true", "bf16-mixed"])
def test_the_context_is_lightning_s(name: str) -> None:
    trainer = L.Trainer(accelerator="cpu", precision=name, logger=False, enable_checkpointing=False)
    assert trainer.precision == name
    layer = torch.nn.Linear(3, 2)
    with trainer.precision_plugin.forward_context():
        expected = layer(torch.ones(1, 3)).dtype
    with autocast(name, HERE):
        assert layer(torch.ones(1, 3)).dtype == expected


def test_a_precision_that_lightning_would_replace_is_refused(tmp_path: Path) -> None:
    """It takes bfloat16 for float16 on a processor, and every record would say float16."""
    config = TrainConfig(precision="16-mixed", accelerator="cpu", epochs=1, output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"precision='16-mixed' is not there .*: choose precision='bf16-mixed' or"):
        train(config, progress=False)
    assert not list(tmp_path.iterdir())


def test_each_time_is_of_its_own_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def convolved(*given, **options) -> torch.Tensor:
        seen.append(conv2d(*given, **options))
        return seen[-1]

    def started(*devices) -> None:
        raise AssertionError("this would start every accelerator")

    monkeypatch.setattr(precision, "conv2d", convolved)
    monkeypatch.setattr(torch.random, "fork_rng", started)
    slowdown("bf16-mixed", HERE)
    assert [images.dtype for images in seen] == [torch.bfloat16] * 4 + [torch.float32] * 4


@pytest.mark.parametrize("name", [*DTYPES])
def test_the_slowdown_is_the_ratio_of_two_times(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    assert 0 < slowdown(name, HERE) < 1e4
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(precision, "_seconds", lambda images, kernel, kind: 0.3 if kind == name else 0.1)
    assert slowdown(name, HERE) == pytest.approx(3.0)
    assert slowdown("32-true", HERE) == 1.0


@pytest.mark.parametrize(("factor", "said"), [(0.5, False), (1.9, False), (2.0, True), (22.7, True)])
def test_only_an_emulated_precision_is_said(factor: float, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "slowdown", lambda name, device: factor)
    sentence = emulated("bf16-mixed", HERE)
    assert (sentence is not None) == said
    assert sentence is None or f"takes {factor:.0f} times as long as with precision='32-true'" in sentence


def test_the_command_line_says_it_with_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("neuralcollapse")
    before = [*library.handlers]
    with log_as_typed(build_app()["train"]):
        logging.getLogger(precision.__name__).warning("%s", "precision='bf16-mixed': slower than precision='32-true'")
        logging.getLogger(precision.__name__).info("unsaid")
    assert capsys.readouterr().err == "--precision='bf16-mixed': slower than --precision='32-true'\n"
    assert library.handlers == before


def test_training_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda images, kernel, kind: 0.1 if kind == "32-true" else 2.0)
    small = {"width": 32, "samples_per_class": 2, "test_samples_per_class": 1, "epochs": 1}
    for name in ("bf16-mixed", "32-true"):
        caplog.clear()
        train(TrainConfig(precision=name, output=str(tmp_path / name), **small), progress=False)
        assert ("takes 20 times as long" in caplog.text) == (name == "bf16-mixed")
        assert (tmp_path / name / "metrics.csv").is_file()
