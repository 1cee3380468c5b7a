"""What a sweep costs: before it starts, and what is left of it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Literal

import pytest
import torch

from neuralcollapse.cli.reproduce import Choices, _list
from neuralcollapse.measurement.run_folder import write_metrics
from neuralcollapse.paper.cost import Cost, Forecast, _sizes, emulated_precisions, estimate, pace, total
from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.sweep import Job, State
from neuralcollapse.train.checkpoint_record import FOLDER, LAST, RECORD
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import load_images
from neuralcollapse.train.module import build_network


def run(folder: Path, name: str, seconds: dict[int, float], **options: object) -> Outcome:
    """A run of 10 epochs, with the seconds at which some of them ended."""
    settings = {"dataset": "digits", "epochs": 10, "output": str(folder / name)} | options
    outcome = Outcome(Experiment(name), TrainConfig(**settings).resolved())  # type: ignore[arg-type]
    outcome.folder.mkdir()
    rows = [{"epoch": str(epoch), "seconds": str(value), "nc1": "1"} for epoch, value in seconds.items()]
    if rows:
        write_metrics(outcome.folder, rows)
    return outcome


def name(outcome: Outcome) -> str:
    return outcome.experiment.name


def test_a_run_that_has_begun_is_extrapolated(tmp_path: Path) -> None:
    half = run(tmp_path, "half", {0: 5.0, 2: 9.0, 4: 13.0})
    done = run(tmp_path, "done", {0: 5.0, 10: 25.0})
    assert pace(half) == 2.0
    costs = estimate([half, done], threads=1)
    assert costs == {name(half): Cost(12.0), name(done): Cost(0.0)}
    assert total(costs, workers=2) == 12.0
    assert total({"a": Cost(10.0), "b": Cost(20.0), "c": Cost(30.0), "d": Cost(None)}, workers=2) == 30.0


def test_an_estimate_grows_with_epochs_images_and_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    plain = run(tmp_path, "plain", {}, width=64, measure_every=10)
    more = {
        "epochs": run(tmp_path, "epochs", {}, width=64, measure_every=20, epochs=2000),
        "images": run(tmp_path, "images", {}, width=64, measure_every=10, epochs=1000, samples_per_class=10),
        "looks": run(tmp_path, "looks", {}, width=64, measure_every=1, epochs=1000),
        "lbfgs": run(tmp_path, "lbfgs", {}, width=64, measure_every=20, epochs=2000, optimizer="lbfgs", batch_size=128),
    }
    costs = estimate([plain, *more.values()], threads=1)
    seconds = {key: costs[name(outcome)].seconds for key, outcome in more.items()}
    base = costs[name(plain)].seconds
    assert base is not None
    assert None not in seconds.values()
    assert seconds["epochs"] > seconds["looks"] > seconds["images"] > 0  # type: ignore[operator]
    assert seconds["lbfgs"] > 2 * seconds["epochs"]  # type: ignore[operator]


def test_what_this_process_did_before_is_no_cost_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run(tmp_path, "long", {}, width=64, epochs=1)
    estimate([outcome], threads=1)  # times the network
    monkeypatch.setattr(time, "process_time", lambda: 7200.0)
    assert 0 < estimate([outcome], threads=1)[name(outcome)].seconds < 60


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_estimate_is_timed_in_the_precision_of_its_run(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = set()

    def watched(*given):
        network = build_network(*given)
        network.register_forward_hook(lambda module, inputs, logits: kinds.add((logits.dtype, logits.requires_grad)))
        return network

    monkeypatch.setattr("neuralcollapse.train.module.build_network", watched)
    outcome = run(tmp_path, precision, {}, width=63, precision=precision)
    assert estimate([outcome], threads=1)[name(outcome)].seconds
    half = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    assert kinds == {(half, True), (torch.float32, False)}  # steps, and measurements in single precision


def test_an_estimate_leaves_accelerators_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked, fork = [], torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=None: forked.append(devices) or fork(devices))
    outcome = run(tmp_path, "small", {}, width=62)
    assert estimate([outcome], threads=1)[name(outcome)].seconds
    assert forked == [[]]  # no state of their random numbers is read


def test_precisions_that_are_emulated_are_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.train.precision.slowdown", lambda name, device: 1.0 + 9 * (name != "32-true"))
    half = [run(tmp_path, folder, {}, precision="bf16-mixed") for folder in ("one", "two")]
    done = run(tmp_path, "done", {0: 5.0, 10: 25.0}, precision="16-mixed")
    (said,) = emulated_precisions([*half, done, run(tmp_path, "single", {})])
    assert said.startswith("precision='bf16-mixed': ")
    assert "10 times" in said


def test_what_cannot_be_estimated_says_why(tmp_path: Path) -> None:
    outcome = run(tmp_path, "missing", {}, dataset=f"imagefolder:{tmp_path / 'nowhere'}")
    cost = estimate([outcome], threads=1)[name(outcome)]
    assert cost.seconds is None
    assert cost.reason.startswith("imagefolder: there is no folder")
    assert str(cost) == "unknown time"


def test_the_time_left_follows_the_speed_of_the_runs(tmp_path: Path) -> None:
    first, second, third = (run(tmp_path, key, {}) for key in ("first", "second", "third"))
    costs = {name(first): Cost(100.0), name(second): Cost(200.0), name(third): Cost(None, "no data")}
    forecast = Forecast([first, second, third], costs, workers=1)
    jobs = [Job(first, State.RUNNING), Job(second), Job(third, State.FAILED)]
    assert forecast.left(jobs) == 300.0
    write_metrics(
        first.folder, [{"epoch": "0", "seconds": "1", "nc1": "1"}, {"epoch": "5", "seconds": "101", "nc1": ""}]
    )
    assert forecast.left(jobs) == pytest.approx(5 * 20 + 2 * 200)  # twice as slow as was thought, so is the second
    jobs[0].state = State.FINISHED
    assert forecast.left(jobs) == pytest.approx(400)
    jobs[1].state = State.FINISHED
    assert forecast.left(jobs) is None


def test_epochs_after_the_last_checkpoint_are_still_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lagging = run(tmp_path, "lagging", {0: 5.0, 10: 25.0})
    assert (lagging.done, lagging.epoch) == (10, 10)
    lagging = dataclasses.replace(lagging)
    checkpoint = lagging.folder / FOLDER / LAST
    checkpoint.parent.mkdir()
    torch.save({RECORD: {"epoch": 4}}, checkpoint)
    assert (lagging.done, lagging.epoch) == (4, 10)
    costs = estimate([lagging], threads=1)
    assert costs == {name(lagging): Cost(12.0)}
    assert Forecast([lagging], costs, workers=1).left([Job(lagging)]) == 12.0
    _list([lagging], Choices())
    assert f"# {name(lagging)}: epoch 4 of 10, about 12 s\n" in capsys.readouterr().out


@pytest.mark.parametrize("tested", ["all", "auto", 5])
@pytest.mark.parametrize("samples", [10, 120])
def test_test_images_are_counted_as_the_run_takes_them(samples: int, tested: Literal["all", "auto"] | int) -> None:
    most = None if tested == "all" else tested
    data = load_images("digits", samples_per_class=samples, test_samples_per_class=most)
    assert _sizes("digits", "data", samples, tested) == (len(data.train), len(data.test))
