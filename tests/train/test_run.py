"""Runs as a user starts them: the command line, as a process."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from neuralcollapse import measure_features

COMMAND = [str(Path(sys.executable).parent / "neuralcollapse")]
QUICK = ["--epochs", "3", "--samples-per-class", "20"]


def run(*arguments: str, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, env=os.environ | environment, timeout=600
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(first: dict[str, str], second: dict[str, str], rel: float) -> None:
    for name, value in first.items():
        if name != "seconds" and value:
            assert float(second[name]) == pytest.approx(float(value), rel=rel, abs=1e-9), name


def test_the_embedded_digits_collapse(tmp_path: Path) -> None:
    done = run("train", cwd=tmp_path)
    folder = tmp_path / "runs" / "digits-mlp-sgd-seed0"
    first, last = rows(folder)[0], rows(folder)[-1]
    assert len(rows(folder)) == 121
    assert float(first["nc1"]) / float(last["nc1"]) > 50
    assert float(last["nc2"]) < 0.15
    assert float(last["nc3"]) < 0.15
    assert float(last["train_accuracy"]) == 1
    assert float(last["test_accuracy"]) > 0.95
    assert (folder / "report.html").is_file()
    assert "-fold" in done.stdout
    assert sum(path.stat().st_size for path in (folder / "snapshots").iterdir()) / 121 < 100_000
    found = run("measure", "--run", str(folder), "--layers", "1,4", "--json", "found.json", cwd=tmp_path)
    assert "backbone.4" in found.stdout
    import json

    numbers = json.loads((tmp_path / "found.json").read_text())
    for name in ("nc1", "nc2", "nc3", "nc4", "train_accuracy", "cdnv", "ncc_mismatch"):
        assert numbers[name] == pytest.approx(float(last[name]), rel=1e-5), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_killed_and_resumed_is_the_unbroken_run(tmp_path: Path, optimizer: str) -> None:
    options = ["--model", "convnet", "--optimizer", optimizer, "--samples-per-class", "30", "--augment"]
    run("train", *options, "--epochs", "8", "--output", "whole", cwd=tmp_path)
    process = subprocess.Popen(
        [*COMMAND, "train", *options, "--epochs", "8", "--output", "broken"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    metrics = tmp_path / "broken" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 4):
        assert time.monotonic() < deadline
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(rows(tmp_path / "broken")) < 9
    run("train", *options, "--epochs", "8", "--output", "broken", "--resume", cwd=tmp_path)
    whole, broken = rows(tmp_path / "whole"), rows(tmp_path / "broken")
    assert [row["epoch"] for row in broken] == [str(epoch) for epoch in range(9)]
    for one, other in zip(whole, broken, strict=True):
        same(one, other, 1e-4)


def test_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "train", "--output", "run", "--epochs", "500"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        # A shell starts background jobs deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.csv"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume continues" in errors
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_two_processes_train_and_measure_as_one(tmp_path: Path) -> None:
    run(
        "train", *QUICK, "--model", "convnet", "--output", "two", "--devices", "2", "--accelerator", "cpu", cwd=tmp_path
    )
    last = rows(tmp_path / "two")[-1]
    assert len(rows(tmp_path / "two")) == 4
    # One process measures the checkpoint: the same numbers, to 1e-6.
    run("measure", "--run", "two", "--json", "one.json", cwd=tmp_path)
    import json

    single = json.loads((tmp_path / "one.json").read_text())
    for name in ("nc1", "nc2", "nc3", "nc4", "cdnv", "train_accuracy"):
        assert single[name] == pytest.approx(float(last[name]), rel=1e-6), name


def test_two_machines_train_as_two_processes_of_one(tmp_path: Path) -> None:
    """Two processes that know of each other only by address, as machines do."""
    run("train", *QUICK, "--output", "one", "--devices", "2", "--accelerator", "cpu", cwd=tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    words = [*QUICK, "--output", "two", "--nodes", "2", "--accelerator", "cpu"]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "neuralcollapse.cli", "train", *words],
            env={**os.environ, **where, "NODE_RANK": rank}, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    said = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert ["Report" in text for text in said] == [True, False]
    for one, other in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        same(one, other, 1e-5)


def test_a_configuration_file_repeats_a_run(tmp_path: Path) -> None:
    run("train", *QUICK, "--seed", "5", "--output", "a", cwd=tmp_path)
    run("train", "--config", "a/config.yaml", "--output", "b", cwd=tmp_path)
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        same(one, other, 1e-5)


def test_tensorboard_and_sparse_measurement(tmp_path: Path) -> None:
    run(
        "train", *QUICK, "--measure-every", "2", "--loggers", "tensorboard", "--output", "run", cwd=tmp_path
    )  # fmt: skip
    assert [bool(row["nc1"]) for row in rows(tmp_path / "run")] == [True, False, True, True]
    assert all(row["train_loss"] for row in rows(tmp_path / "run")[1:])
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


class TestErrors:
    def test_usage(self, tmp_path: Path) -> None:
        assert "--optimizer" in run("train", "--optimizer", "lion", cwd=tmp_path, code=2).stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["train", "--dataset", "letters"], "unknown dataset 'letters'"),
            (["train", "--model", "resnet19"], "unknown model 'resnet19'"),
            (["train", "--model", "torchvision:resnet19"], "torchvision has no model 'resnet19'; close names: resnet"),
            (["train", "--model", "timm:nothing"], "timm has no model 'nothing'"),
            (["train", "--model", "torchvision:vit_b_16"], "model 'torchvision:vit_b_16' does not take 1x8x8 images"),
            (["train", "--accelerator", "abacus"], "abacus"),
            (["train", "--epochs", "0"], "--epochs=0 must be at least 1"),
            (["train", "--batch-size", "0"], "--batch-size=0 must be at least 1"),
            (["train", "--learning-rate", "-1"], "--learning-rate=-1.0 must be positive"),
            (["train", "--learning-rate", "nan"], "--learning-rate=nan must be positive and finite"),
            (["train", "--weight-decay", "inf"], "--weight-decay=inf must not be negative, and finite"),
            (
                ["train", "--learning-rate", "1e30"],
                "the training diverged in epoch 1: its loss is nan. Lower the learn",
            ),
            (["train", "--optimizer", "lbfgs", "--devices", "2"], "runs on --devices=1"),
            (["measure"], "give one of --run, --features and --model"),
            (["measure", "--run", "absent"], "no configuration at absent/config.yaml"),
            (["measure", "--features", "absent.npz"], "no file of tensors at absent.npz"),
            (["measure", "--model", "mlp"], "--model needs --data"),
            (
                ["measure", "--run", "r", "--std", "1", "--data", "digits"],
                "--data, --std: --run would ignore that",
            ),
            (["measure", "--features", "f.npz", "--layers", "1"], "--layers: --features would ignore that"),
            (["measure", "--model", "absent.py:make", "--data", "digits"], "no file absent.py"),
            (["measure", "--model", "mlp", "--data", "digits", "--checkpoint", "x.pt"], "no checkpoint at x.pt"),
            (["report", "absent"], "no configuration at absent"),
        ],
    )
    def test_one_clear_line(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        errors = run(*arguments, cwd=tmp_path, code=1).stderr
        assert message in errors
        assert errors.splitlines()[-1].startswith("neuralcollapse: error: ")

    def test_a_run_folder_is_never_written_over(self, tmp_path: Path) -> None:
        run("train", *QUICK, "--output", "run", cwd=tmp_path)
        before = (tmp_path / "run" / "metrics.csv").read_text()
        assert "--resume" in run("train", *QUICK, "--output", "run", cwd=tmp_path, code=1).stderr
        other = run("train", *QUICK, "--seed", "1", "--output", "run", "--resume", cwd=tmp_path, code=1).stderr
        assert "seed was 0 and is now 1" in other
        assert (tmp_path / "run" / "metrics.csv").read_text() == before

    def test_damaged_files(self, tmp_path: Path) -> None:
        run("train", *QUICK, "--output", "run", cwd=tmp_path)
        checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: len(content) // 2])
        for arguments in (["measure", "--run", "run"], ["train", *QUICK, "--output", "run", "--resume"]):
            assert "last.ckpt is not a readable checkpoint" in run(*arguments, cwd=tmp_path, code=1).stderr
        config = tmp_path / "run" / "config.yaml"
        config.write_text("epochs: [many\n")
        assert "not a valid configuration" in run("measure", "--run", "run", cwd=tmp_path, code=1).stderr
        config.write_text("epocs: 3\n")
        assert "not a valid configuration" in run("report", "run", cwd=tmp_path, code=1).stderr

    def test_checkpoints_cannot_execute_code(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self):
                return (os.system, (f"touch {tmp_path}/executed",))

        torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
        arguments = ["measure", "--model", "mlp", "--data", "digits", "--checkpoint", "evil.pt"]
        assert (
            "evil.pt is not a readable checkpoint of plain tensors: it holds Python objects"
            in run(*arguments, cwd=tmp_path, code=1).stderr
        )
        assert not (tmp_path / "executed").exists()


def test_measure_a_users_own_model_and_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))\n"
    )
    torch.manual_seed(0)
    torch.save({"1.weight": torch.randn(20, 64), "1.bias": torch.zeros(20), "3.weight": torch.randn(10, 20),
                "3.bias": torch.zeros(10)}, tmp_path / "mine.pt")  # fmt: skip
    done = run(
        "measure", "--model", "mine.py:make", "--checkpoint", "mine.pt", "--data", "digits", "--layers", "1",
        cwd=tmp_path,
    )  # fmt: skip
    assert "backbone.3" in done.stdout
    assert "backbone.1" in done.stdout
    named = run(
        "measure", "--model", "mine.py:make", "--checkpoint", "mine.pt", "--data", "digits", "--layers", "backbone.1",
        "--classifier", "backbone.3", cwd=tmp_path,
    )  # fmt: skip
    assert named.stdout == done.stdout
    wrong = run("measure", "--model", "mlp", "--checkpoint", "mine.pt", "--data", "digits", cwd=tmp_path, code=1)
    assert "belongs to another network" in wrong.stderr
    (tmp_path / "broken.py").write_text("raise RuntimeError('mine')")
    failed = run("measure", "--model", "broken.py:make", "--data", "digits", cwd=tmp_path, code=1).stderr
    assert "broken.py failed when imported: RuntimeError: mine" in failed


def test_a_users_model_sees_images_as_it_was_trained(tmp_path: Path) -> None:
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
        run(*command, "--mean", mean, "--std", std, cwd=tmp_path)
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
        (["--mean", "0.5"], "--std is missing"),
        (["--mean", "0.5,x", "--std", "1"], "--mean 0.5,x: give 0.5, or"),
        (["--mean", "0.5,0.5", "--std", "1"], "mean has 2 values for 3 channels"),
        (["--mean", "0.5", "--std", "0"], "std=0.0 must be positive"),
    ]:
        assert message in run(*command, *wrong, cwd=tmp_path, code=1).stderr


def test_stored_features(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "f.npz", features=rng.standard_normal((30, 4)), labels=labels)
    assert "nc1" in run("measure", "--features", "f.npz", cwd=tmp_path).stdout
    labels[labels == 1] = 0
    np.savez(tmp_path / "f.npz", features=rng.standard_normal((30, 4)), labels=labels)
    assert "classes have no samples: 1" in run("measure", "--features", "f.npz", cwd=tmp_path, code=1).stderr
    found = run("measure", "--features", "f.npz", "--allow-missing", cwd=tmp_path)
    assert "warning" in found.stderr
