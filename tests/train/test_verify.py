"""A fresh run verifies; after one changed pixel, weight, row or line it does not, and what changed is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neuralcollapse.measurement.run_folder import append_metrics, read_metrics
from neuralcollapse.train import TrainConfig, train
from neuralcollapse.train.datasets import Split
from neuralcollapse.train.provenance import fingerprint
from neuralcollapse.train.verify import verify
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A run on a folder of images, so that one pixel can change."""
    root = tmp_path_factory.mktemp("verified")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "cow", "dog"):
            (root / "images" / split / name).mkdir(parents=True)
            for index in range(6):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "images" / split / name / f"{index}.png")
    config = TrainConfig(dataset=f"imagefolder:{root / 'images'}", model="mlp", width=16, image_size=8, epochs=2,
                         output=str(root / "run"))  # fmt: skip
    train(config, progress=False)
    return root


@pytest.fixture
def run(fresh: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fresh / "run", tmp_path / "run")


def changed(folder: Path) -> dict[str, str]:
    found = verify(folder)
    assert found.holds == (not [check for check in found.checks if check.holds is False])
    return {check.name: check.found for check in found.checks if check.holds is False}


def test_a_fresh_run_holds_wherever_it_is_moved(run: Path) -> None:
    found = verify(run)
    assert found.holds
    assert {check.holds for check in found.checks} == {True}
    assert str(found).endswith("verified")
    assert "precision" not in changed(run)
    json.dumps(found.to_dict())


def test_provenance_is_recorded(run: Path) -> None:
    record = json.loads((run / "provenance.json").read_text())
    (session,) = record["sessions"]
    assert record["seed"] == 0
    assert record["data"]["training"]["images"] == 18
    assert session["torch"] == torch.__version__
    assert session["precision"] == "32-true"
    inside = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if inside.returncode == 0:
        assert session["git"]["commit"] == inside.stdout.strip()


@pytest.mark.parametrize(
    ("line", "to", "message"),
    [
        ("seed: 0", "seed: 1", "seed was 0 and is now 1"),
        ("momentum: 0.9", "momentum: 0.8", "momentum was 0.9 and is now 0.8"),
        ("measure_every: 1", "measure_every: 2", "measure_every was 1 and is now 2"),
        ("width: 16", "width: many", "not a valid configuration"),
    ],
)
def test_a_changed_line(run: Path, line: str, to: str, message: str) -> None:
    text = (run / "config.yaml").read_text()
    assert line in text
    (run / "config.yaml").write_text(text.replace(line, to))
    assert message in changed(run)["config"]


def test_a_run_that_was_continued_and_stopped_before_its_next_checkpoint_holds(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("epochs: 2", "epochs: 4").replace("data_root: data", "data_root: x"))
    found = verify(run)
    assert {check.holds for check in found.checks} == {True}
    assert [check.name for check in found.checks][-1] == "epoch 2"
    append_metrics(run, read_metrics(run)[-1] | {"epoch": "3"})
    found = verify(run)
    assert found.holds
    (row,) = [check for check in found.checks if check.holds is not True]
    assert (row.name, row.holds, row.found) == ("rows", None, "epoch 3 is not yet in the checkpoint")
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join([lines[0], *lines[2:]]))
    assert changed(run) == {"rows": "epoch 0 is missing"}


def test_a_changed_or_missing_row(run: Path) -> None:
    path = run / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("nc2")] = "0.123"
    path.write_text("".join([lines[0], ",".join(cells), *lines[2:]]))
    assert "epoch 0: nc2 was 0." in changed(run)["rows"]
    assert "is now 0.123" in changed(run)["rows"]
    path.write_text("".join([lines[0], *lines[2:]]))
    assert changed(run) == {"rows": "epoch 0 is missing"}
    path.write_text("".join(lines[:-1]))
    assert set(changed(run)) == {"rows", "epoch 2"}


def test_measures_of_the_test_data_are_computed_anew(fresh: Path, tmp_path: Path) -> None:
    config = TrainConfig(dataset=f"imagefolder:{fresh / 'images'}", model="mlp", width=16, image_size=8, epochs=1,
                         measure_test=True, output=str(tmp_path / "run"))  # fmt: skip
    run = train(config, progress=False)
    row = read_metrics(run)[-1]
    told = {"epoch", "step", "seconds", "learning_rate", "train_loss"}
    assert {"test_nc1", "test_nc4", "test_ncc_mismatch"} <= row.keys()
    numbers = sum(bool(value) for name, value in row.items() if name not in told)
    [found] = [check.found for check in verify(run).checks if check.name == "epoch 1"]
    assert found == f"{numbers} numbers follow from checkpoint and data"
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text.replace(row["test_nc1"], "0.125"))
    assert f"test_nc1 is {float(row['test_nc1']):.6g} and was recorded as 0.125" in changed(run)["epoch 1"]


def test_a_test_accuracy_alone_is_compared_too(fresh: Path, tmp_path: Path) -> None:
    config = TrainConfig(dataset=f"imagefolder:{fresh / 'images'}", model="mlp", width=16, image_size=8, epochs=2,
                         measure_every=2, test_every=1, output=str(tmp_path / "run"))  # fmt: skip
    kept = train(config, progress=False) / "checkpoints"
    for ending in ("", ".sha256"):  # as after a kill in the second epoch
        (kept / f"last.ckpt{ending}").write_bytes((kept / f"previous.ckpt{ending}").read_bytes())
    [check] = [check for check in verify(tmp_path / "run").checks if check.name == "epoch 1"]
    assert (check.holds, check.found) == (True, "1 number follows from checkpoint and data")


def test_a_changed_weight(run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"]["network.backbone.1.weight"][0, 0] += 0.01
    torch.save(content, last)
    assert "differs from its digest" in changed(run)["checkpoint"]
    (run / "checkpoints" / "last.ckpt.sha256").unlink()
    assert "digest of last.ckpt is gone" in changed(run)["checkpoint"]
    content["state_dict"]["network.backbone.1.weight"] += 0.5
    torch.save(content, last)
    assert "nc1 is " in changed(run)["epoch 2"]


def test_a_changed_pixel(fresh: Path, run: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = fresh / "images" / split / "cow" / "3.png"
        before = path.read_bytes()
        pixels = np.array(Image.open(path))
        pixels[2, 5, 1] ^= 1
        Image.fromarray(pixels).save(path)
        assert changed(run)["data"] == f"the {'training' if split == 'train' else split} images or labels changed"
        config = TrainConfig.load(run / "config.yaml").to_dict() | {"epochs": 3, "resume": True, "output": str(run)}
        with pytest.raises(ValueError, match="are not those that this run began with"):
            train(TrainConfig(**config), progress=False)
        path.write_bytes(before)
    assert changed(run) == {}


def test_changed_provenance(run: Path) -> None:
    path = run / "provenance.json"
    path.write_text(path.read_text().replace("32-true", "16-mixed"))
    assert "sessions" in changed(run)["provenance"]
    path.write_text("{")
    assert "is damaged" in changed(run)["provenance"]
    path.unlink()
    assert "is gone" in changed(run)["provenance"]


def test_an_older_run_is_measured_and_the_rest_is_unknown(run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    del content["neuralcollapse"]
    torch.save(content, last)
    (run / "checkpoints" / "last.ckpt.sha256").unlink()
    found = verify(run)
    assert found.holds
    assert [check.name for check in found.checks if check.holds] == ["epoch 2"]


def test_a_fingerprint_changes_with_shape_order_and_labels() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    labels = torch.tensor([0, 1])
    others = (pixels.flip(0), labels), (pixels, labels.flip(0)), (pixels.reshape(2, 3, 4, 1), labels)
    prints = [fingerprint(Split(*pair)) for pair in ((pixels, labels), *others)]
    assert len(set(prints)) == 4
    assert fingerprint(Split(pixels.clone(), labels.int())) == prints[0]
