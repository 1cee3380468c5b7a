"""Files: refused before the work when they cannot be written, and JSON that every reader accepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuralcollapse.cli.options import without_empty_folders, writable

LINES = [
    "train --output PLACE",
    "savings mlp --json PLACE",
    "ufm solve --output PLACE",
    "ufm landscape --output PLACE",
    "ufm dynamics --output PLACE",
    "ufm theorem --json PLACE",
    "reproduce figure3 --output PLACE",
    "measure --features f.npz --json PLACE",
]


@pytest.mark.parametrize("line", LINES)
def test_a_place_that_cannot_be_written_is_refused_at_once(call, tmp_path: Path, line: str) -> None:
    (tmp_path / "file").write_text("mine")
    ended = call(*line.replace("PLACE", "file/below").split())
    assert ended.code == 1
    option = line.split()[-2]
    assert ended.err.startswith(f"neuralcollapse: error: {option} file/below cannot be written: ")
    assert ended.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_no_file(call, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    said = call("ufm", "solve", "--output", "folder").err
    assert "--output folder cannot be written: it is a folder, give a file" in said
    (tmp_path / "file").write_text("mine")
    said = call("train", "--output", "file").err
    assert "--output file cannot be written: it is a file, give a folder" in said


@pytest.mark.parametrize(
    "line",
    [
        "train --dataset imagefolder:absent",
        "train --dataset imagefolder:absent --output runs/deep/mine",
        "measure --features absent.npz --json deep/below/found.json",
        "ufm landscape --lambda-w 5 --lambda-h 5 --output deep/page.html",
    ],
)
def test_a_command_that_fails_leaves_no_empty_folder(call, tmp_path: Path, line: str) -> None:
    assert call(*line.split()).code == 1
    assert list(tmp_path.iterdir()) == []
    for name in ("runs", "deep"):
        (tmp_path / name).mkdir()
    assert call(*line.split()).code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "runs"]  # the user's own stay


def test_a_command_within_another_tidies_its_own_folders_alone(tmp_path: Path) -> None:
    with without_empty_folders():
        writable(tmp_path / "outer" / "page.html", "--output")
        with without_empty_folders():
            writable(tmp_path / "inner" / "page.html", "--output")
        assert [path.name for path in tmp_path.iterdir()] == ["outer"]
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_nan(call, tmp_path: Path) -> None:
    labels = np.arange(12) % 3
    np.savez(tmp_path / "f.npz", features=np.eye(3)[labels] * 2.0, labels=labels)  # no variation within classes
    ended = call("measure", "--features", "f.npz", "--json", "deep/found.json")
    assert ended.code == 0, ended.err

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((tmp_path / "deep" / "found.json").read_text(), parse_constant=refuse)
    assert found["nc1"] == 0


@pytest.mark.parametrize(
    "line", ["savings mlp --json=~/x.json", "savings mlp --json ~/x.json", "ufm theorem --points 1 --json=~/x.json"]
)
def test_a_tilde_is_the_home_folder_also_behind_an_equals_sign(
    call, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert call(*line.split()).code == 0
    assert (tmp_path / "home" / "x.json").is_file()
    assert not (tmp_path / "~").exists()
