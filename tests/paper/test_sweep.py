"""Sweeps: what is finished stays, what fails fails alone, what dies is tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from neuralcollapse.cli import main
from neuralcollapse.cli.sweep_view import watching
from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.paper.cost import Forecast
from neuralcollapse.paper.engines import End, run_once
from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.sweep import Job, State, sweep
from neuralcollapse.train.config import TrainConfig
from tests.processes import children, soon, workers

linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")


def small(folder: Path, name: str, **options: object) -> Outcome:
    settings = {"dataset": "digits", "width": 64, "epochs": 2, "samples_per_class": 20, "test_samples_per_class": 5}
    config = TrainConfig(**settings | {"output": str(folder / name)} | options).resolved()  # type: ignore[arg-type]
    return Outcome(Experiment(name), config)


def test_finished_runs_stay_and_a_failing_one_fails_alone(tmp_path: Path) -> None:
    good = small(tmp_path, "good")
    assert sweep([good])[0].state is State.FINISHED
    before = (good.folder / "metrics.csv").read_bytes(), (good.folder / "metrics.csv").stat().st_mtime_ns
    missing = small(tmp_path, "missing", dataset="mnist", data_root=str(tmp_path / "nowhere"))
    other = small(tmp_path, "other", epochs=1)
    jobs = sweep([Outcome(good.experiment, good.config), missing, other], workers=2, retries=3)
    assert [job.state for job in jobs] == [State.FINISHED, State.FAILED, State.FINISHED]
    assert [job.attempts for job in jobs] == [0, 1, 1]
    assert "nowhere" in jobs[1].error
    assert before == ((good.folder / "metrics.csv").read_bytes(), (good.folder / "metrics.csv").stat().st_mtime_ns)
    assert jobs[2].outcome.finished


def test_changed_settings_over_an_old_folder_start_nothing(tmp_path: Path) -> None:
    old = small(tmp_path, "old")
    assert not run_once(old.config).error
    changed, fresh = small(tmp_path, "old", learning_rate=0.5), small(tmp_path, "fresh")
    with pytest.raises(ValueError, match=r"nothing was done.*learning_rate was 0\.05 and is now 0\.5.*move the old"):
        sweep([fresh, changed])
    assert not fresh.folder.exists()


@pytest.mark.exhaustive
def test_more_epochs_continue_the_run(tmp_path: Path) -> None:
    sweep([small(tmp_path, "run", epochs=1)])
    longer = small(tmp_path, "run", epochs=2)
    assert not longer.finished
    assert sweep([longer])[0].outcome.finished
    assert [row["epoch"] for row in Outcome(longer.experiment, longer.config).rows] == [0, 1, 2]


FULL_DISK = """
import errno
import os

replace = os.replace


def full(source, target):
    if str(target).startswith({folder!r}) and os.path.exists({marker!r}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    replace(source, target)


os.replace = full
"""
"""For a process and its children: every file of a folder is written as to a full disk, while a marker is there."""


@linux
def test_a_killed_process_is_tried_again(tmp_path: Path) -> None:
    run = small(tmp_path, "run", epochs=60)
    killed: list[int] = []

    def kill_once(jobs: Sequence[Job]) -> None:
        if not killed and jobs[0].outcome.epoch >= 1:
            killed.extend(workers(os.getpid()))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    (job,) = sweep([run], watch=kill_once)
    assert killed
    assert (job.state, job.attempts) == (State.FINISHED, 2)
    assert job.outcome.rows[-1]["epoch"] == 60
    assert "died with code -9" not in job.error


def test_a_run_on_any_machine_of_a_slurm_job_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PROCID", 3), ("LOCALID", 0), ("NTASKS", 4), ("NNODES", 4), ("JOB_NAME", "sweep")):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    run = small(tmp_path, "run")
    assert run_once(run.config).error == ""
    assert (run.folder / "config.yaml").is_file()
    assert run.finished


@pytest.mark.parametrize(("option", "value"), [("workers", 0), ("retries", -1)])
def test_options_out_of_range_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: int
) -> None:
    with pytest.raises(ValueError, match=f"^{option}={value} must be at least {value + 1}"):
        sweep([small(tmp_path, "run")], **{option: value})  # type: ignore[arg-type]
    for mode in ("--list", "--draw"):
        with pytest.raises(SystemExit):
            main(["reproduce", "figure6", "--output", str(tmp_path / "out"), mode, f"--{option}", str(value)])
        assert f"--{option}={value} must be at least {value + 1}: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_whose_last_checkpoint_was_not_written_is_resumed(tmp_path: Path) -> None:
    run = small(tmp_path, "run")
    assert not run_once(run.config).error
    assert Outcome(run.experiment, run.config).finished
    last, previous = (run.folder / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    for path in (last, last.with_name("last.ckpt.sha256")):  # as a full disk leaves it after the last row
        path.unlink()
    previous.with_name("previous.ckpt.sha256").rename(last.with_name("last.ckpt.sha256"))
    previous.rename(last)
    lacking = Outcome(run.experiment, run.config)
    assert (lacking.kept, lacking.finished, lacking.state) == (1, False, "epoch 2 of 2, in its checkpoint epoch 1")
    (job,) = sweep([lacking])
    assert (job.state, job.attempts, job.outcome.kept) == (State.FINISHED, 1, 2)
    last.write_bytes(b"damaged")
    previous.unlink()
    assert Outcome(run.experiment, run.config).finished  # its numbers are there, and nothing to continue from


def test_a_diverged_run_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(*given: object, **options: object) -> None:
        raise FloatingPointError("the training diverged in epoch 1")

    monkeypatch.setattr("neuralcollapse.train.run.train", diverged)
    assert run_once(small(tmp_path, "run").config) == End("the training diverged in epoch 1")


def test_errors_in_brackets_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    errors = ("no MNIST in [/data/mnist]", "[enforce fail at alloc_cpu.cpp:117]")
    jobs = [Job(small(tmp_path, f"run{place}"), State.FAILED, error=error) for place, error in enumerate(errors)]
    for terminal in (True, False):
        with watching(terminal, Forecast([], {}, 1)) as watch:
            watch(jobs)
        said = capsys.readouterr().err
        assert [error for error in errors if error in said] == list(errors)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "neuralcollapse.cli", "reproduce", *words]


@linux
@pytest.mark.exhaustive
def test_a_full_disk_stops_the_sweep_and_says_the_way_out(tmp_path: Path) -> None:
    out, site, marker = tmp_path / "out", tmp_path / "site", tmp_path / "disk is full"
    site.mkdir()
    (site / "sitecustomize.py").write_text(FULL_DISK.format(folder=str(out / "digits"), marker=str(marker)))
    given = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    arguments = command("figure6", "--scale", "smoke", "--output", str(out))  # runs digits-resnet18-sgd and -features
    marker.touch()
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=given)
    assert ended.returncode == 1
    assert "2 of 2 runs are not finished" in ended.stderr
    assert "free some space and give the same command again" in ended.stderr
    assert "digits-resnet18-sgd-features: not begun" in ended.stderr
    marker.unlink()
    subprocess.run(arguments, capture_output=True, check=True, env=given)
    names = ("digits-resnet18-sgd", "digits-resnet18-sgd-features")
    assert [int(read_metrics(out / name)[-1]["epoch"]) for name in names] == [2, 2]


@linux
def test_a_sweep_killed_in_the_middle_repeats_only_what_is_unfinished(tmp_path: Path) -> None:
    arguments = command("figure6", "--scale", "smoke", "--output", str(tmp_path))
    first, second = tmp_path / "digits-resnet18-sgd", tmp_path / "digits-resnet18-sgd-features"
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    soon(lambda: (second / "metrics.csv").is_file())
    working = workers(process.pid)
    process.kill()
    process.wait()
    assert working
    soon(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in working))
    finished = (first / "metrics.csv").stat().st_mtime_ns
    again = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "digits-resnet18-sgd running" not in again.stderr
    assert "[2/2] digits-resnet18-sgd-features finished" in again.stderr
    assert (first / "metrics.csv").stat().st_mtime_ns == finished
    assert (tmp_path / "gallery.html").is_file()


@linux
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = command("figure6", "--scale", "smoke", "--output", str(tmp_path))
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # CI may have started us deaf to it
    )  # fmt: skip
    soon(lambda: (tmp_path / "digits-resnet18-sgd-features" / "config.yaml").is_file())
    working = workers(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.endswith("stopped. Finished runs and epochs are kept: the same command continues\n")
    assert "Traceback" not in said
    assert working
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in working)
    assert (tmp_path / "digits-resnet18-sgd" / "metrics.csv").read_text().count("\n") == 4


@linux
@pytest.mark.exhaustive
def test_ray_with_two_workers_survives_the_death_of_one(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'neuralcollapse[ray]'")
    arguments = command(
        "figure6", "--scale", "smoke", "--engine", "ray", "--workers", "2", "--output", str(tmp_path)
    )  # fmt: skip
    victim = tmp_path / "digits-resnet18-sgd-features"
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        soon(lambda: (victim / "config.yaml").is_file())
        (pid,) = children(0, f"ray::{victim.name}")
        os.kill(pid, signal.SIGKILL)
        said = process.communicate()[1]
    assert process.returncode == 0, said
    assert f"{victim.name} running, attempt 2" in said
    assert "vanished" in said
    assert "[2/2]" in said


def test_runs_that_fail_are_listed_and_the_command_fails(tmp_path: Path) -> None:
    arguments = command("figure6", "--data-root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"))
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "4 of 4 runs are not finished" in ended.stderr
    assert "nowhere" in ended.stderr
    assert "the same command continues with the others" in ended.stderr
    assert "open: 4 runs missing" in ended.stdout
    assert (tmp_path / "out" / "gallery.html").is_file()
