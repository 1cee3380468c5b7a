"""A run folder is input like any other: damage is refused with a sentence, what is whole is read as written."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcollapse import measure
from neuralcollapse.measurement.run_folder import append_metrics, read_metrics, write_config, write_metrics
from neuralcollapse.measurement.snapshots import read_snapshot, snapshot_of, snapshots, write_snapshot

HEADER = "epoch,nc1,nc2,nc3,nc4,train_loss"
LINES = [HEADER, "0,1.5,1,1,1,", "1,0.25,0.5,0.5,0.5,0.125", ""]


def written(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_rows_are_read_as_written(tmp_path: Path, newline: str) -> None:
    rows = read_metrics(written(tmp_path, newline.join(LINES)))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0]["train_loss"] == ""
    assert float(rows[1]["nc1"]) == 0.25


def test_no_file_and_an_empty_one_are_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    assert read_metrics(written(tmp_path, "")) == []
    assert read_metrics(written(tmp_path, HEADER[:9])) == []


@pytest.mark.parametrize("cut", range(1, len(LINES[2]) + 1))
def test_a_last_line_cut_anywhere_is_left_out(tmp_path: Path, cut: int) -> None:
    """Even inside its last number, where the number of cells is right."""
    rows = read_metrics(written(tmp_path, "\n".join(LINES)[:-cut]))
    assert [row["epoch"] for row in rows] == ["0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,nc2,nc3,nc4\n0,1,1,1\n", "lacks the column nc1"),
        ("seconds,train_loss\n0,1\n", "lacks the columns epoch, nc1"),
        ("<script>alert(1)</script>," + HEADER + "\n", "no name of a column"),
        ('"epo""ch",' + HEADER + "\n", "no name of a column"),
        (HEADER + ",nc1\n", "appears twice"),
        (HEADER + "\n0,1,1,1,1\n", "line 2 has 5 cells for 6 columns"),
        (HEADER + "\n0,1,1\n1,1,1,1,1,1\n", "line 2 has 3 cells for 6 columns"),
        (HEADER + "\n0,1,1,1,1,1,7\n", "line 2 has 7 cells"),
        (HEADER + "\n\n", "line 2 has 0 cells"),
        (HEADER + "\n0,1.5.2,1,1,1,1\n", "nc1='1.5.2', which is no number"),
        (HEADER + "\n0,1_0,1,1,1,1\n", "nc1='1_0', which is no number"),
        (HEADER + "\n0,<b>,1,1,1,1\n", "nc1='<b>', which is no number"),
        (HEADER + "\n1.5,1,1,1,1,1\n", "epoch='1.5', which is no number"),
        (HEADER + "\n-1,1,1,1,1,1\n", "epoch='-1'"),
        (HEADER + "\n1,1,1,1,1,1\n1,1,1,1,1,1\n", "epoch 1 follows epoch 1"),
        (HEADER + "\n0,1,1,1,1,1\n\x00\n", "damaged"),
        (HEADER + '\n0,"1\n', "damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_metrics(written(tmp_path, text))
    assert "metrics.csv" in str(caught.value)


def test_a_reader_names_the_columns_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks the column test_accuracy"):
        read_metrics(written(tmp_path, "\n".join(LINES)), ("epoch", "nc1", "test_accuracy"))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe" * 9)
    with pytest.raises(ValueError, match="not UTF-8"):
        read_metrics(tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), min_size=5, max_size=5),
    damage=st.integers(0, 10**6),
)
def test_appended_rows_come_back_and_damage_never_raises_anything_else(tmp_path_factory, values, damage) -> None:
    folder = tmp_path_factory.mktemp("run")
    row = dict(zip(["nc1", "nc2", "nc3", "nc4", "cdnv"], values, strict=True))
    append_metrics(folder, {"epoch": 0, **row})
    append_metrics(folder, {"epoch": 3, **row})
    for found in read_metrics(folder):
        for name, value in row.items():
            assert found[name] == "" if value is None else str(float(found[name])) == str(value)
    content = bytearray((folder / "metrics.csv").read_bytes())
    content[damage % len(content)] ^= 1 << damage % 8
    (folder / "metrics.csv").write_bytes(bytes(content))
    with contextlib.suppress(ValueError):
        assert all(row.keys() >= {"epoch", "nc1"} for row in read_metrics(folder))


def test_append_after_a_crash_and_with_a_new_column(tmp_path: Path) -> None:
    append_metrics(written(tmp_path, "\n".join(LINES)[:-4]), {"epoch": 1, "nc1": 3, "nc2": 1, "nc3": 1, "nc4": 1})
    append_metrics(tmp_path, {"epoch": 2, "nc1": 2, "nc2": 1, "nc3": 1, "nc4": 1, "nc4_relative": 0.5})
    rows = read_metrics(tmp_path)
    assert [row["nc1"] for row in rows] == ["1.5", "3", "2"]
    assert [row["nc4_relative"] for row in rows] == ["", "", "0.5"]
    with pytest.raises(ValueError, match="already holds epoch 2"):
        append_metrics(tmp_path, {"epoch": 2, "nc1": 2})
    with (tmp_path / "metrics.csv").open(newline="") as file:  # Python's own reader agrees
        assert list(csv.DictReader(file)) == rows


def test_write_metrics_takes_rows_of_different_columns(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"epoch": 0, "nc1": 1, "nc2": 1, "nc3": 1, "nc4": 1}, {"epoch": 1, "seconds": 2}])
    assert read_metrics(tmp_path)[1] == {"epoch": "1", "nc1": "", "nc2": "", "nc3": "", "nc4": "", "seconds": "2"}


FULL = """
import resource, sys, torch
from neuralcollapse.measurement import run_folder, snapshots
resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))  # a disk with room for 150 bytes
row = {"epoch": 2, "nc1": 1, "nc2": 1, "nc3": 1, "nc4": 1, "train_loss": 0.123456789}
for write in (
    lambda: run_folder.append_metrics(sys.argv[1], row),
    lambda: run_folder.write_metrics(sys.argv[1], [row] * 9),
    lambda: snapshots.write_snapshot(sys.argv[1], 1, {"weight": torch.ones(9, 9)}),
    lambda: run_folder.write_config(sys.argv[1], {"name": "x" * 200}),
):
    try:
        write()
    except OSError as error:
        print(error)
"""


def test_a_full_disk_keeps_every_file(tmp_path: Path) -> None:
    written(tmp_path, "\n".join([*LINES[:2], "1,1,1,1,1,0." + "1" * 80, ""]))
    write_config(tmp_path, {"name": "short"})
    write_snapshot(tmp_path, 1, {"weight": torch.zeros(1, 1)})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.count("the previous file is unchanged") == 4, done.stdout
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_snapshots_of_a_measured_model(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    head = model[2]
    write_snapshot(tmp_path, 12, snapshot_of(measure(model, [(x, y)])))
    ((epoch, path),) = snapshots(tmp_path)
    found = read_snapshot(path)
    features = model[1](model[0](x)).detach()
    means = torch.stack([features[y == label].mean(0) for label in range(3)])
    assert epoch == 12
    torch.testing.assert_close(found["class_means"], means)
    torch.testing.assert_close(found["weight"], head.weight.detach())
    rows = torch.cat([(y == label).nonzero().flatten()[:20] for label in range(3)])
    expected = (features[rows] - means.mean(0)) @ (means - means.mean(0)).T
    torch.testing.assert_close(found["sample_products"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found["sample_labels"].long(), y[rows])


def test_snapshots_come_in_order_and_strangers_are_passed_over(tmp_path: Path) -> None:
    for epoch in (10000, 9, 100):
        write_snapshot(tmp_path, epoch, {"weight": torch.zeros(1, 1)})
    (tmp_path / "snapshots" / "epoch-best.safetensors").write_text("?")
    assert [epoch for epoch, _ in snapshots(tmp_path)] == [9, 100, 10000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.full((3, 4), torch.nan)}, "weight holds NaN or infinity"),
        ({"class_means": torch.full((3, 4), torch.inf)}, "class_means holds NaN"),
        ({"bias": torch.zeros(2)}, "shapes of weight and bias disagree"),
        ({"global_mean": torch.zeros(3)}, "shapes of weight and global_mean disagree"),
        ({"weight": torch.zeros(12)}, "disagree"),
        ({"sample_products": torch.zeros(5, 3)}, "sample_labels disagree"),
        ({"bias": None}, "lacks bias"),
    ],
)
def test_damaged_snapshots(tmp_path: Path, change: dict, message: str) -> None:
    tensors = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3), "class_means": torch.zeros(3, 4),
               "global_mean": torch.zeros(4)} | change  # fmt: skip
    write_snapshot(tmp_path, 1, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    ((_, path),) = snapshots(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_snapshot(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="is damaged"):
        read_snapshot(path)


def test_config_is_yaml(tmp_path: Path) -> None:
    write_config(tmp_path, {"name": "a: b", "seed": 2**62})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"name": "a: b", "seed": 2**62}
