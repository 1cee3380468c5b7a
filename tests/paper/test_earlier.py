"""A folder that holds a gallery already: its figures stay as they are, and files of others are kept."""

from __future__ import annotations

import csv
import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from neuralcollapse.cli import main
from neuralcollapse.paper.earlier import figures_of, replace, runs_of, scale_of
from neuralcollapse.paper.gallery import certificates, headline, write_gallery
from neuralcollapse.paper.judgement import Claim, Finding, Judgement
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.reproduce import plan, plan_again
from tests.paper.runs import in_folder, with_snapshot
from tests.paper.test_claims import COLLAPSED

ROOT = Path(__file__).parents[2]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(output: Path, scale: str = "narrow", **options: object) -> dict[str, list[Outcome]]:
    """Figure 3, trained and in the gallery of a folder."""
    planned = plan(["figure3"], scale, output=output, **options)["figure3"]  # type: ignore[arg-type]
    figures = {"figure3": [in_folder(run, **COLLAPSED) for run in planned]}
    write_gallery(output, scale, figures)
    return figures


@pytest.mark.parametrize(
    "words", [["--precision", "32-true"], ["--precision", "16-mixed"], ["--seeds", "7"], ["--capture"], []]
)
def test_figures_of_before_stay_as_they_were_trained(tmp_path: Path, words: list[str]) -> None:
    drawn(tmp_path, seeds=(3, 4))
    before = {name: table(tmp_path / name) for name in ("claims.csv", "runs.csv")}
    main(["reproduce", "figure5", "--scale", "narrow", "--draw", "--output", str(tmp_path), *words])
    after = {name: table(tmp_path / name) for name in before}
    assert [row for row in after["claims.csv"] if row["figure"] == "figure3"] == before["claims.csv"]
    assert [row for row in after["runs.csv"] if "random" not in row["run"]] == before["runs.csv"]
    assert {row["seed"] for row in before["runs.csv"]} == {"3", "4"}
    assert any("bf16-mixed" in row["cut"] for row in before["runs.csv"])


def test_runs_in_a_precision_of_their_own_keep_it(tmp_path: Path) -> None:
    drawn(tmp_path, precision="16-mixed")
    found = plan_again({}, "narrow", output=tmp_path)["figure3"]
    assert {run.config.precision for run in found} == {"16-mixed", "32-true"}
    assert {run.experiment.optimizer for run in found if run.config.precision == "32-true"} == {"lbfgs"}


def test_what_is_planned_now_is_shared_and_what_is_missing_stays_missing(tmp_path: Path) -> None:
    figures = drawn(tmp_path, seeds=(3, 4))
    lost = next(run for run in figures["figure3"] if run.experiment.optimizer == "adam")
    (lost.folder / "metrics.csv").unlink()
    (lost.folder / "config.yaml").unlink()
    planned = plan(["figure6"], "narrow", output=tmp_path, seeds=(3,))
    found = plan_again(planned, "narrow", output=tmp_path)
    assert list(found) == ["figure3"]
    assert [run.experiment.name for run in found["figure3"]] == [run.experiment.name for run in figures["figure3"]]
    assert planned["figure6"][0] in found["figure3"]
    assert [run.experiment.name for run in found["figure3"] if not run.finished] == [lost.experiment.name]


@pytest.mark.parametrize("mode", [["--list"], ["--draw"], []])
def test_a_gallery_has_one_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: list[str]) -> None:
    drawn(tmp_path, "reduced")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(SystemExit):
        main(["reproduce", "figure5", "--scale", "full", "--output", str(tmp_path), *mode])
    said = capsys.readouterr().err
    assert f"--scale='full' is not that of the gallery in {tmp_path}, 'reduced': choose --scale='reduced'" in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_another_run_in_a_folder_of_before_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = drawn(tmp_path)["figure3"][0]
    dataclasses.replace(run.config, samples_per_class=7).save(run.folder / "config.yaml")
    with pytest.raises(SystemExit):
        main(["reproduce", "figure5", "--scale", "narrow", "--output", str(tmp_path)])
    assert "nothing was done" in capsys.readouterr().err
    assert not list(tmp_path.glob("*random*"))


def test_files_of_other_programs_are_moved_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    others = {
        "runs.csv": "run,seed,loss\nmine,1,0.5\n", "claims.csv": "figure,text\nfigure3,mine\n", "norms.csv": "",
        "gallery.html": "<title>My photos</title>",
    }  # fmt: skip
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    for _ in range(2):  # the second time they are our own
        main(["reproduce", "figure6", "--scale", "smoke", "--draw", "--output", str(tmp_path)])
    for name, text in others.items():
        (aside,) = tmp_path.glob(f"{name}.*")
        assert aside.read_text() == text
        assert caplog.text.count(f"{tmp_path / name} is no file of a gallery: moved to {aside}") == 1
    assert {row["figure"] for row in table(tmp_path / "claims.csv")} == {"figure6"}
    assert runs_of(tmp_path) == ["digits-resnet18-sgd", "digits-resnet18-sgd-features"]


def test_two_files_aside_in_one_second_are_both_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    for text in ("<svg>a</svg>", "<svg>b</svg>"):
        (tmp_path / "figure3.svg").write_text(text)
        replace(tmp_path / "figure3.svg", "<svg/>")
    assert {path.read_text() for path in tmp_path.glob("figure3.svg.*")} == {"<svg>a</svg>", "<svg>b</svg>"}


@pytest.mark.parametrize("scale", ["narrow", "reduced"])
def test_committed_galleries_are_known(scale: str, tmp_path: Path) -> None:
    folder = ROOT / "results" / scale
    assert scale_of(folder / "gallery.html") == scale
    assert len(figures_of(folder)) > 3
    assert "cifar10-resnet18-lbfgs" in [name.removesuffix("-seed0") for name in runs_of(folder)]
    for path in [*folder.glob("*.csv"), folder / "gallery.html", *(folder / "figures").glob("*.svg")]:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        replace(copy, "new")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"new"}  # none is moved aside


def test_the_headline_counts_every_kind_of_verdict() -> None:
    def one(*agrees: bool | None, small: bool = False) -> Judgement:
        return Judgement(Claim("", "", lambda runs: []), [Finding("", "", value) for value in agrees], (), small=small)

    judged = {
        "figure3": [one(True), one(True, False), one(True, small=True), one(True, small=True)],
        "savings": [one(False), one(), one(True)],
    }
    said = "Of 7 claims of the paper: 2 reproduced, 1 in part, 1 not reproduced, 1 open, 2 not judged"
    assert headline(judged) == said
    assert headline({"figure3": judged["figure3"][2:]}).startswith("Everything runs; this scale is too small")


def test_a_damaged_old_snapshot_takes_no_certificate_away(tmp_path: Path) -> None:
    (run, *_) = plan(["figure6"], "full", output=tmp_path)["figure6"]
    run = with_snapshot(in_folder(run, **COLLAPSED), np.eye(10), np.eye(10), np.zeros(10))
    (run.folder / "snapshots" / "epoch-0001.safetensors").write_bytes(b"damaged")
    found, reasons = certificates([run])
    assert (list(found), reasons) == ([run.experiment.name], {})
