"""neuralcollapse ufm target, thresholds and explore."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from neuralcollapse.ufm import target_geometry


def test_target(call, tmp_path: Path) -> None:
    ended = call(
        "ufm", "target", "--counts", "30,30,2,2", "--lambda-w", "0.03", "--lambda-h", "0.03", "--json", "t.json"
    )
    assert ended.code == 0, ended.err
    assert "classes 2, 3 merge into one point" in ended.out
    header, *rows = [line.split() for line in ended.out.splitlines() if re.match(r" +(class|\d) ", line)]
    assert header == ["class", "samples", "|w|", "|mean|", "nearest", "class", "cosine"]
    assert rows[3][4:] == ["-", "-"]  # two equal large classes leave the merged rows no direction
    assert "class 3 has no direction" in ended.out
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["merged"] == [[2, 3]]
    expected = target_geometry([30, 30, 2, 2], 0.03, 0.03, 1e-2)
    assert written["weight_norms"] == pytest.approx(expected.weight_norms.tolist())
    limit = call("ufm", "target", "--counts", "9,3,1", "--lambda-w", "0", "--lambda-h", "0")
    assert "SELI" in limit.out


def test_thresholds(call, tmp_path: Path) -> None:
    options = ("--lambda-w", "0.0173", "--lambda-h", "0.0173")
    ended = call("ufm", "thresholds", "--counts", "30,30,30,2,2,2", *options, "--json", "t.json")
    assert ended.code == 0, ended.err
    assert "classes 3, 4, 5 merge into one point" in ended.out
    assert "survive with 3 samples each" in ended.out
    assert json.loads((tmp_path / "t.json").read_text())["keeps_all"] == 3
    assert "no class is lost" in call("ufm", "thresholds", "--counts", "30,30,30,3,3,3", *options).out
    alone = call("ufm", "thresholds", "--counts", "30,30,1", "--lambda-w", "0.0316228", "--lambda-h", "0.0316228").out
    assert "no group of equal classes merges" in alone
    assert "not judged: class 2 has a size of its own" in alone
    assert "merges with it" not in alone
    assert "all of these groups survive" in alone
    erased = call("ufm", "target", "--counts", "30,30,1", "--lambda-w", "0.0316228", "--lambda-h", "0.0316228").out
    assert "W uses 1 direction\n" in erased
    assert "class 2 has no direction: its row of W is zero" in erased
    assert re.search(r"\n +2 +1 +0\.000000 +0\.000000 +- +-\n", erased)
    assert "vanish" in call("ufm", "thresholds", "--counts", "90,1", *options, "--loss", "mse", "--no-bias").out


def test_explore_and_its_picture(call, tmp_path: Path) -> None:
    ended = call("ufm", "explore", "--starts", "8", "--json", "m.json", "--picture", "solids.svg")
    assert ended.code == 0, ended.err
    assert "0.0358507634" in ended.out
    assert "0.0358734204" in ended.out
    assert [row["minimum"] for row in json.loads((tmp_path / "m.json").read_text())] == [1, 2]
    drawn = (tmp_path / "solids.svg").read_text()
    root = ElementTree.fromstring(drawn)
    kinds = [node.tag.rpartition("}")[2] for node in root.iter()]
    assert kinds.count("circle") == 10  # five corners each
    assert kinds.count("polygon") == 5 + 6
    assert kinds.count("line") == 8 + 9
    assert "<script" not in drawn
    assert len(drawn) < 200_000


def test_errors(call) -> None:
    for arguments, message in (
        (("target",), "--counts"),
        (("target", "--counts", "a,b"), "--counts a,b"),
        (("thresholds", "--counts", "3"), "class_counts"),
        (("thresholds", "--counts", "3,2", "--loss", "focal"), "not convex"),
        (("explore", "--feature-dim", "2", "--picture", "p.svg"), "--feature-dim 3"),
        (("explore", "--starts", "0"), "starts=0"),
    ):
        ended = call("ufm", *arguments)
        assert ended.code != 0, arguments
        assert ended.out == ""
        assert message in ended.err, arguments
