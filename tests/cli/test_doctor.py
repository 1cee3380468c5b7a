"""neuralcollapse doctor."""

from __future__ import annotations

from pathlib import Path

import torch


def test_versions_extras_and_data(call, tmp_path: Path) -> None:
    (tmp_path / "d" / "MNIST" / "raw").mkdir(parents=True)
    ended = call("doctor", "--data-root", "d")
    assert ended.code == 0
    lines = {line[:20].strip(): line[20:].strip() for line in ended.out.splitlines()}
    assert torch.__version__.startswith(lines["torch"])
    assert lines["data digits"] == "embedded"
    assert lines["data mnist"].startswith("d/MNIST/raw")
    assert "not in d" in lines["data cifar10"]
    for row in ("neuralcollapse", "python", "devices", "extra hf", "extra ray", "extra wandb", "browser"):
        assert lines[row]


def test_extras_are_those_of_the_project() -> None:
    import tomllib

    from neuralcollapse.extras import EXTRAS

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    def names(lines: list[str]) -> set[str]:
        return {line.partition(">")[0].partition("[")[0] for line in lines}

    for extra, distributions in EXTRAS.items():
        assert names(project["optional-dependencies"][extra]) - names(project["dependencies"]) == set(distributions)
