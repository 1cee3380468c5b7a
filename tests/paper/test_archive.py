"""What is kept of a run, and what is computed for the rows of older versions."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralcollapse.cli import main
from neuralcollapse.geometry import measure_features
from neuralcollapse.measurement.run_folder import read_metrics, write_metrics
from neuralcollapse.measurement.snapshots import snapshots
from neuralcollapse.paper.archive import archive, relative_bias
from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.tables import RUNS, run_row
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.optimality import certify_run
from neuralcollapse.train.snapshot import Snapshot
from tests.paper.runs import with_snapshot, written


def test_relative_bias_is_the_measure() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((40, 6)), np.arange(40) % 4
    weight, bias = rng.standard_normal((4, 6)), rng.standard_normal(4)
    means = np.stack([features[labels == label].mean(0) for label in range(4)])
    measured = measure_features(*map(torch.from_numpy, (features, labels, weight, bias))).nc4_relative
    assert relative_bias(Snapshot.of(0, weight, bias, means, means.mean(0))) == pytest.approx(measured, rel=1e-12)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_run_is_kept_and_completed(tmp_path: Path, in_place: bool) -> None:
    rng = np.random.default_rng(1)
    weight, means, bias = rng.standard_normal((10, 12)), rng.standard_normal((10, 12)), rng.standard_normal(10)
    numbers = {"nc4": float(np.linalg.norm(weight @ means.mean(0) + bias)), "nc4_relative": ""}
    run = written(tmp_path / "runs", Experiment("mnist"), TrainConfig(epochs=10), **numbers)  # type: ignore[arg-type]
    with_snapshot(run, weight, means, bias)
    run.config.save(run.folder / "config.yaml")
    (run.folder / "log.txt").write_text("warnings")
    sessions = [{"device": "cuda: H100", "devices": 2}] * 2 + [{"device": "cpu: Intel Xeon", "devices": 1}]
    (run.folder / "provenance.json").write_text(json.dumps({"sessions": sessions}))
    before = read_metrics(run.folder)
    kept = archive(run.folder, run.folder.parent if in_place else tmp_path / "kept")
    rows = read_metrics(kept)
    expected = relative_bias(Snapshot.read(next(path for _, path in snapshots(run.folder))))
    assert float(rows[-1]["nc4_relative"]) == expected
    assert [{**row, "nc4_relative": ""} for row in rows] == [{**row, "nc4_relative": ""} for row in before]
    assert [row["nc4_relative"] for row in rows[:-1]] == ["1.0", "1.0"]  # what was measured stays
    assert certify_run(kept).value == certify_run(run.folder).value
    assert (kept / "log.txt").exists() is in_place
    shown = run_row(dataclasses.replace(run, config=dataclasses.replace(run.config, output=str(kept))))
    assert dict(zip(RUNS, shown, strict=True))["device"] == "2 x H100, then Intel Xeon"
    assert TrainConfig.load(kept / "config.yaml").output == str(run.folder if in_place else kept)


def kept_run(folder: Path, epoch: int = 10, **last: float | str) -> Outcome:
    run = written(folder, Experiment("mnist"), TrainConfig(epochs=epoch), epoch, **last)  # type: ignore[arg-type]
    with_snapshot(run, np.eye(10) * epoch, np.eye(10), np.ones(10))
    run.config.save(run.folder / "config.yaml")
    return run


def test_of_classes_of_unequal_size_a_snapshot_says_nothing(tmp_path: Path) -> None:
    """NC4 takes the mean over samples, and a snapshot has the mean of the class means."""
    run = kept_run(tmp_path / "runs", nc4=6.0, nc4_relative="")
    assert read_metrics(archive(run.folder, tmp_path / "kept"))[-1]["nc4_relative"] == ""


def test_in_place_all_rows_stay(tmp_path: Path) -> None:
    run = kept_run(tmp_path, nc4=2 * math.sqrt(10), nc4_relative="")
    before = read_metrics(run.folder)
    unmeasured = [{name: cell if name in ("epoch", "seconds") else "" for name, cell in before[1].items()}]
    write_metrics(run.folder, [*before[:1], *unmeasured, *before[2:]])
    archive(run.folder, tmp_path)
    rows = read_metrics(run.folder)
    assert [row["epoch"] for row in rows] == ["0", "1", "10"]
    assert rows[1] == unmeasured[0]
    assert rows[2]["nc4_relative"]
    untouched = (run.folder / "metrics.csv").stat().st_ino
    archive(run.folder, tmp_path)  # nothing is left to complete: a training that goes on there is not disturbed
    assert (run.folder / "metrics.csv").stat().st_ino == untouched


def test_a_run_of_the_same_name_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    longer, shorter = kept_run(tmp_path / "longer", 20), kept_run(tmp_path / "shorter", 10)
    archive(longer.folder, tmp_path / "kept")
    kept = archive(shorter.folder, tmp_path / "kept")
    assert [epoch for epoch, _ in snapshots(kept)] == [10]
    assert certify_run(kept).value == certify_run(shorter.folder).value


def test_a_whole_run_is_never_archived_over(tmp_path: Path) -> None:
    run, whole = kept_run(tmp_path / "runs"), kept_run(tmp_path / "kept", 20)
    (whole.folder / "checkpoints").mkdir()
    (whole.folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"holds a run with its checkpoints.*choose another --into"):
        archive(run.folder, tmp_path / "kept")
    assert {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()} == before
    archive(whole.folder, tmp_path / "kept")  # in place


def test_the_folder_of_this_shell_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = kept_run(tmp_path / "runs")
    monkeypatch.chdir(run.folder)
    assert archive(".", tmp_path / "kept") == tmp_path / "kept" / run.folder.name


def test_two_runs_of_one_name_are_not_archived_over_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(kept_run(tmp_path / name).folder) for name in ("a", "b")]
    with pytest.raises(SystemExit):
        main(["archive", *runs, "--into", str(tmp_path / "kept")])
    assert "have the same name in --into" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("content", ['{"sessions": [{}]}', '{"sessions": null}', "3", '{"sessions": ["x"]}', "{", "[]"])
def test_odd_provenance_spoils_no_table(tmp_path: Path, content: str) -> None:
    run = written(tmp_path, Experiment("mnist"), TrainConfig(epochs=10))
    (run.folder / "provenance.json").write_text(content)
    assert dict(zip(RUNS, run_row(run), strict=True))["device"] == ""


def test_a_copy_holds_its_own_runs_provenance_or_none(tmp_path: Path) -> None:
    run = written(tmp_path / "runs", Experiment("mnist"), TrainConfig(epochs=10))
    with_snapshot(run, np.eye(10), np.eye(10), np.zeros(10))
    run.config.save(run.folder / "config.yaml")
    stale = tmp_path / "kept" / run.folder.name / "provenance.json"
    stale.parent.mkdir(parents=True)
    stale.write_text('{"sessions": [{"device": "cpu: another"}]}')
    archive(run.folder, tmp_path / "kept")
    assert not stale.exists()
    (run.folder / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json is damaged"):
        archive(run.folder, tmp_path / "kept")


def test_the_command_names_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["archive", str(tmp_path), "--into", str(tmp_path / "kept")])
    assert "no configuration at" in capsys.readouterr().err
    run = written(tmp_path, Experiment("mnist"), TrainConfig(epochs=10))
    run.config.save(run.folder / "config.yaml")
    with pytest.raises(SystemExit):
        main(["archive", str(run.folder), "--into", str(tmp_path / "kept")])
    assert "has no measured epoch yet" in capsys.readouterr().err
    with_snapshot(run, np.eye(10), np.eye(10), np.zeros(10))
    main(["archive", str(run.folder), "--into", str(tmp_path / "kept")])
    assert capsys.readouterr().out == f"{tmp_path / 'kept' / run.folder.name}\n"
