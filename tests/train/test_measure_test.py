"""``train --measure-test``: the collapse of the test data, beside that of the training data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralcollapse.cli import main
from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.report.history import read_history
from neuralcollapse.train import TrainConfig, load_run, train

SMALL = TrainConfig(width=16, samples_per_class=20, test_samples_per_class=9, epochs=3, batch_size=64, test_every=2)


def features_of(folder: Path) -> tuple[np.ndarray, ...]:
    """What enters the last layer for each test image, the labels, W and b, in double precision."""
    run = load_run(folder)
    network = run.network.eval().double()
    head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        network(run.data.test.pixels)
    parts = (seen[0], run.data.test.labels, head.weight.detach(), head.bias.detach())
    return tuple(part.numpy() for part in parts)


def by_hand(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> dict[str, float]:
    """Equations (7) to (10) of Zhu et al."""
    k = len(weight)
    means = np.stack([x[y == label].mean(0) for label in range(k)])
    centre = means.mean(0)
    within = (x - means[y]).T @ (x - means[y]) / len(x)
    between = (means - centre).T @ (means - centre) / k
    ideal = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    gram, dual = weight @ weight.T, weight @ (means - centre).T
    return {
        "test_nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / k,
        "test_nc2": np.linalg.norm(gram / np.linalg.norm(gram) - ideal),
        "test_nc3": np.linalg.norm(dual / np.linalg.norm(dual) - ideal),
        "test_nc4": np.linalg.norm(bias + weight @ centre),
        "test_accuracy": float(np.mean((x @ weight.T + bias).argmax(1) == y)),
    }


def test_rows_hold_the_measures_of_the_test_data(tmp_path: Path) -> None:
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    train(dataclasses.replace(SMALL, output=str(plain)), progress=False)
    train(dataclasses.replace(SMALL, output=str(measured), measure_test=True), progress=False)
    rows, without = read_metrics(measured), read_metrics(plain)
    for row, other in zip(rows, without, strict=True):  # training, and what was recorded before, stay as they were
        for name in set(other) - {"seconds", "test_accuracy"}:
            assert row[name] == other[name], name
        assert float(row["test_accuracy"] or -1) == pytest.approx(float(other["test_accuracy"] or -1))
    assert [bool(row["test_nc1"]) for row in rows] == [True, False, True, True]  # where the test is due
    assert {f"test_{name}" for name in ("nc1", "nc4_relative", "cdnv", "ncc_mismatch", "accuracy")} < set(rows[0])
    for name, expected in by_hand(*features_of(measured)).items():
        assert float(rows[-1][name]) == pytest.approx(expected, rel=2e-4), name
    assert float(rows[-1]["test_nc1"]) != pytest.approx(float(rows[-1]["nc1"]), rel=0.01)


def test_a_resumed_run_keeps_measuring_and_the_page_shows_it(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "--width", "16", "--samples-per-class", "20", "--output", str(tmp_path / "run"), "--measure-test"]
    main([*words, "--epochs", "1"])
    main([*words, "--epochs", "2", "--resume"])
    capsys.readouterr()
    assert [bool(row["test_nc1"]) for row in read_metrics(tmp_path / "run")] == [True] * 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"On test data NC1 is {read_history(tmp_path / 'run').last('test_nc1'):.2g}" in page
    assert "--measure-test" in page
    config = TrainConfig.load(tmp_path / "run" / "config.yaml")
    with pytest.raises(ValueError, match="measure_test was True and is now False"):
        train(dataclasses.replace(config, measure_test=False, resume=True), progress=False)
