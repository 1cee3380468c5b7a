"""What is kept of a run, and what is computed for the rows of older versions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralcollapse.cli import main
from neuralcollapse.geometry import measure_features
from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.measurement.snapshots import snapshots
from neuralcollapse.paper.archive import archive, relative_bias
from neuralcollapse.paper.experiments import Experiment
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
    run = written(tmp_path / "runs", Experiment("mnist"), TrainConfig(epochs=10), nc4_relative="")  # type: ignore[arg-type]
    with_snapshot(run, rng.standard_normal((10, 12)), rng.standard_normal((10, 12)), rng.standard_normal(10))
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
