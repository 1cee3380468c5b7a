"""Half precision that a processor emulates is said, and counted in what a run costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuralcollapse.train import TrainConfig, precision, train
from neuralcollapse.train.precision import DTYPES, autocast, emulated, slowdown

HERE = torch.empty(0).device


@pytest.mark.parametrize("name", ["32-true", *DTYPES])
def test_the_context_is_lightning_s(name: str) -> None:
    layer = torch.nn.Linear(3, 2)
    with autocast(name, HERE):
        assert layer(torch.ones(1, 3)).dtype == DTYPES.get(name, torch.float32)


@pytest.mark.parametrize("name", DTYPES)
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
    assert sentence is None or f"takes {factor:.0f} times as long as with --precision 32-true" in sentence


def test_training_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda images, kernel, kind: 0.1 if kind == "32-true" else 2.0)
    small = {"width": 32, "samples_per_class": 2, "test_samples_per_class": 1, "epochs": 1}
    for name in ("bf16-mixed", "32-true"):
        caplog.clear()
        train(TrainConfig(precision=name, output=str(tmp_path / name), **small), progress=False)
        assert ("takes 20 times as long" in caplog.text) == (name == "bf16-mixed")
        assert (tmp_path / name / "metrics.csv").is_file()
