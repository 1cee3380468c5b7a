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

    numbers = json.loads((tmp_path / "found.json").read_text())
    numbers["train_accuracy"] = numbers["accuracy"]
    last["accuracy"] = last["train_accuracy"]
    for name in ("nc1", "nc2", "nc3", "nc4", "accuracy", "cdnv", "ncc_mismatch"):
        assert numbers[name] == pytest.approx(float(last[name]), rel=1e-5), name


@pytest.mark.parametrize(
    "optimizer", ["sgd", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("adam", "lbfgs"))]
)
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

    single = json.loads((tmp_path / "one.json").read_text())
    last["accuracy"] = last["train_accuracy"]
    for name in ("nc1", "nc2", "nc3", "nc4", "cdnv", "accuracy"):
        assert single[name] == pytest.approx(float(last[name]), rel=1e-6), name


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
def test_a_configuration_file_repeats_a_run(tmp_path: Path) -> None:
    run("train", *QUICK, "--seed", "5", "--output", "a", cwd=tmp_path)
    run("train", "--config", "a/config.yaml", "--output", "b", cwd=tmp_path)
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        same(one, other, 1e-5)


@pytest.mark.exhaustive
def test_tensorboard_and_sparse_measurement(tmp_path: Path) -> None:
    run(
        "train", *QUICK, "--measure-every", "2", "--loggers", "tensorboard", "--output", "run", cwd=tmp_path
    )  # fmt: skip
    assert [bool(row["nc1"]) for row in rows(tmp_path / "run")] == [True, False, True, True]
    assert all(row["train_loss"] for row in rows(tmp_path / "run")[1:])
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


class TestErrors:
    def test_a_run_folder_is_never_written_over(self, tmp_path: Path) -> None:
        run("train", *QUICK, "--output", "run", cwd=tmp_path)
        before = (tmp_path / "run" / "metrics.csv").read_text()
        assert "--resume" in run("train", *QUICK, "--output", "run", cwd=tmp_path, code=1).stderr
        other = run("train", *QUICK, "--seed", "1", "--output", "run", "--resume", cwd=tmp_path, code=1).stderr
        assert "seed was 0 and is now 1" in other
        assert (tmp_path / "run" / "metrics.csv").read_text() == before

    @pytest.mark.exhaustive
    def test_damaged_files(self, tmp_path: Path) -> None:
        run("train", *QUICK, "--output", "run", cwd=tmp_path)
        checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: len(content) // 2])
        unreadable = "last.ckpt is not a readable checkpoint"
        assert unreadable in run("measure", "--run", "run", cwd=tmp_path, code=1).stderr
        resumed = run("train", *QUICK, "--output", "run", "--resume", cwd=tmp_path).stderr
        assert unreadable in resumed
        assert "The run continues from the checkpoint before it" in resumed
        config = tmp_path / "run" / "config.yaml"
        config.write_text("epochs: [many\n")
        assert "not a valid configuration" in run("report", "run", cwd=tmp_path, code=1).stderr
        config.write_text("epocs: 3\n")
        assert "not a valid configuration" in run("measure", "--run", "run", cwd=tmp_path, code=1).stderr
