"""neuralcollapse measure: a user's own model, a checkpoint, stored features."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralcollapse import measure_features, multilabel_metrics, regression_metrics


def test_checkpoints_cannot_execute_code(call, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/executed",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    arguments = ["measure", "--model", "mlp", "--data", "digits", "--checkpoint", "evil.pt"]
    assert "evil.pt is not a readable checkpoint of plain tensors: it holds Python objects" in call(*arguments).err
    assert not (tmp_path / "executed").exists()


def test_measure_a_users_own_model_and_checkpoint(call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))\n"
    )
    torch.manual_seed(0)
    torch.save({"1.weight": torch.randn(20, 64), "1.bias": torch.zeros(20), "3.weight": torch.randn(10, 20),
                "3.bias": torch.zeros(10)}, tmp_path / "mine.pt")  # fmt: skip
    done = call(
        "measure", "--model", "mine.py:make", "--checkpoint", "mine.pt", "--data", "digits", "--layers", "1",
    )  # fmt: skip
    assert "backbone.3" in done.out
    assert "backbone.1" in done.out
    named = call(
        "measure", "--model", "mine.py:make", "--checkpoint", "mine.pt", "--data", "digits", "--layers", "backbone.1",
        "--classifier", "backbone.3",
    )  # fmt: skip
    assert named.out == done.out
    every = call(
        "measure", "--model", "mine.py:make", "--checkpoint", "mine.pt", "--data", "digits", "--layers", "all",
    )  # fmt: skip
    assert "backbone.2" in every.out
    assert "effective_rank" in every.out
    wrong = call("measure", "--model", "mlp", "--checkpoint", "mine.pt", "--data", "digits")
    assert "belongs to another network" in wrong.err
    (tmp_path / "broken.py").write_text("raise RuntimeError('mine')")
    failed = call("measure", "--model", "broken.py:make", "--data", "digits").err
    assert "broken.py failed when imported: RuntimeError: mine" in failed


def test_a_users_model_sees_images_as_it_was_trained(call, tmp_path: Path) -> None:
    """Grey digits reach a model of three channels, less the mean and over the deviation that it was trained with."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Sums(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.stem = nn.Conv2d(3, 5, 1)\n"
        "        self.fc = nn.Linear(15, 10)\n"
        "    def forward(self, x):\n"
        "        assert self.stem(x).shape[1] == 5\n"
        "        return self.fc(torch.cat([x[:, 0, 2:7, 3], x[:, 1, 2:7, 4], x[:, 2, 2:7, 5]], 1))\n"
    )
    command = ["measure", "--model", "mine.py:Sums", "--data", "digits", "--json", "found.json"]
    found = {}
    for mean, std in ("0.5,0.25,0.125", "0.5,0.25,2"), ("0", "1"):
        call(*command, "--mean", mean, "--std", std)
        found[mean] = json.loads((tmp_path / "found.json").read_text())
        data = load_digits()
        images, _, labels, _ = train_test_split(
            data.images, data.target, test_size=0.2, stratify=data.target, random_state=0
        )
        grey = torch.from_numpy((images * (255 / 16)).round() / 255)[:, None]
        moments = [torch.tensor([float(word) for word in text.split(",")])[:, None, None] for text in (mean, std)]
        x = ((grey - moments[0]) / moments[1]).expand(-1, 3, -1, -1).float()
        features = torch.cat([x[:, 0, 2:7, 3], x[:, 1, 2:7, 4], x[:, 2, 2:7, 5]], 1)
        expected = measure_features(features, torch.from_numpy(labels))
        for name in ("nc1_quotient", "nc2_means", "cdnv"):
            assert found[mean][name] == pytest.approx(getattr(expected, name), rel=1e-4)
    assert found["0"]["cdnv"] != pytest.approx(found["0.5,0.25,0.125"]["cdnv"], rel=1e-2)
    for wrong, message in [
        (["--mean", "0.5"], "--std is required: give numbers such as 0.5, or"),
        (["--mean", "0.5,x", "--std", "1"], "--mean 0.5,x: give numbers such as 0.5, or"),
        (["--mean", "0.5,0.5", "--std", "1"], "mean has 2 values for 3 channels"),
        (["--mean", "0.5", "--std", "0"], "std=0.0 must be positive"),
    ]:
        assert message in call(*command, *wrong).err


@pytest.mark.filterwarnings("default")
def test_stored_features(call, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "f.npz", features=rng.standard_normal((30, 4)), labels=labels)
    assert "nc1" in call("measure", "--features", "f.npz").out
    labels[labels == 1] = 0
    np.savez(tmp_path / "f.npz", features=rng.standard_normal((30, 4)), labels=labels)
    assert "classes have no samples: 1" in call("measure", "--features", "f.npz").err
    found = call("measure", "--features", "f.npz", "--allow-missing")
    assert "warning" in found.err


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_stored_features_show_what_nc2_cannot_be_below(call, tmp_path: Path, task: str) -> None:
    rng = np.random.default_rng(0)
    stored = {"features": rng.standard_normal((30, 2)), "weight": rng.standard_normal((6, 2))}
    labels = np.arange(30) % 6
    np.savez(tmp_path / "f.npz", labels=np.eye(6)[labels] if task == "multilabel" else labels, **stored)
    printed = call("measure", "--features", "f.npz", "--task", task).out.splitlines()
    for name in ("nc2", "nc2_means", "nc3"):
        [line] = [line for line in printed if f" {name} " in line]
        assert f"↓ ≥ {np.sqrt(2 - 2 * np.sqrt(2 / 5)):.3g}" in line


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("measure", "--features", "f.npz", "--plot", "x.svg"), "pictures (--plot)"),
        (("report", "run", "--figures", "figures"), "figures (--figures)"),
        (("reproduce", "figure3", "--scale", "smoke", "--output", "out", "--static"), "static figures (--static)"),
    ],
)
def test_a_missing_browser_is_said_before_the_work(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], asked: str
) -> None:
    pytest.importorskip("kaleido")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("epoch,seconds,nc1\n0,1,2\n")
    np.savez(tmp_path / "f.npz", features=np.eye(4), labels=np.arange(4) % 2)
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")
    found = call(*words)
    assert found.code == 1
    assert f"{asked} need Chrome or Chromium, and BROWSER_PATH='/nowhere/chrome' is no file: install it" in found.err
    assert not (tmp_path / "out").exists()
    assert "Report" not in found.out


def test_a_picture_of_what_was_measured(call, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    network = ("measure", "--model", "mlp", "--data", "digits", "--samples-per-class", "5")
    assert call(*network, "--layers", "all", "--json", "found.json", "--plot", "depth.svg").code == 0
    law = json.loads((tmp_path / "found.json").read_text())["depth"]["law"]
    drawn = (tmp_path / "depth.svg").read_text()
    assert drawn.startswith("<svg")
    assert f"law of separation: rate {law['rate']:.3g}, correlation {law['correlation']:.3g}" in drawn
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", features=rng.standard_normal((30, 4)), labels=np.arange(30) % 3)
    assert call("measure", "--features", "f.npz", "--plot", "values.png").code == 0
    assert (tmp_path / "values.png").read_bytes().startswith(b"\x89PNG")
    for name, message in [("x.gif", "--plot x.gif must end in .svg or .png"), ("f.npz/x.svg", "--plot f.npz/x.svg")]:
        ended = call("measure", "--features", "f.npz", "--plot", name)
        assert ended.code != 0
        assert message in ended.err


def test_all_images_of_a_folder_are_measured_unless_a_split_is_chosen(call, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for place in range(24):
        for root in ("plain", "split/train", "split/test"):
            folder = tmp_path / root / f"class{place % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            if root != "split/test" or place < 6:
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{place}.png")

    def samples(*words: str) -> int:
        ended = call("measure", "--model", "mlp", *words, "--json", "found.json")
        assert ended.code == 0, ended.err
        return json.loads((tmp_path / "found.json").read_text())["samples"]

    plain, split = ("--data", "imagefolder:plain"), ("--data", "imagefolder:split")
    assert samples(*plain) == samples(*plain, "--split", "all") == 24
    assert samples(*plain, "--split", "train") == 19
    assert samples(*plain, "--split", "test") == 5
    assert samples(*plain, "--samples-per-class", "5") == 10
    assert samples(*split) == samples(*split, "--split", "train") == 24
    assert samples(*split, "--split", "test") == 6
    assert samples(*split, "--split", "all") == 30
    assert samples(*split, "--split", "test", "--samples-per-class", "2") == 4
    few = call("measure", "--model", "mlp", *plain, "--samples-per-class", "13")
    assert few.code == 1
    assert "--samples-per-class=13, but class 'class0' has only 12 samples" in few.err


def test_stored_features_of_other_tasks(call, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sets = rng.random((60, 3)) < 0.5
    sets[:3], sets[~sets.any(1)] = np.eye(3, dtype=bool), True
    features = rng.standard_normal((60, 5)) + sets @ rng.standard_normal((3, 5))
    np.savez(tmp_path / "sets.npz", features=features, labels=sets)
    np.savez(tmp_path / "targets.npz", features=features, labels=features[:, :2], weight=np.eye(5)[:2])
    call("measure", "--features", "sets.npz", "--task", "multilabel", "--json", "sets.json")
    found = json.loads((tmp_path / "sets.json").read_text())
    expected = multilabel_metrics(torch.from_numpy(features), torch.from_numpy(sets))
    assert found["tag_angle"] == pytest.approx(expected.tag_angle)
    printed = call("measure", "--features", "targets.npz", "--task", "regression").out
    exact = regression_metrics(*(torch.from_numpy(part) for part in (features, features[:, :2], np.eye(5)[:2])))
    for name, value in exact.to_dict().items():
        assert any(f"{value:.4g}" in line for line in printed.splitlines() if f"  {name} " in line), name
    assert "≤ 2" in printed
    np.savez(tmp_path / "counts.npz", features=features, labels=sets * 2)
    said = call("measure", "--features", "counts.npz", "--task", "multilabel").err
    assert "labels hold other numbers than 0 and 1" in said
    assert "batch=" not in said
    assert 'task="multilabel"' in call("measure", "--features", "sets.npz").err
    assert "--task regression is for --features" in call("measure", "--run", "runs/x", "--task", "regression").err
