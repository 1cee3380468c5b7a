"""YAML: what --print-config prints and a run keeps is what --config reads, under the flags beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from neuralcollapse.train.config import TrainConfig

ROOT = Path(__file__).parents[2]

LINES = [
    "",
    "--lr 0.01 --optimizer adam --no-resume",
    "--learning_rate=1e-05 --random-labels --data-root /tmp/x",
    "--loggers tensorboard,wandb --augment --stem small --model resnet18 --width 16",
    "--loggers [tensorboard,wandb]",
    "--loggers tensorboard --loggers wandb",
    "--resume=true --no-augment --seed 9223372036854775807",
    "--resume true --random_labels false --augment True --seed 1",
    "--resume=false --dataset hf:../some-folder --momentum 0",
]


@pytest.mark.parametrize("line", LINES)
def test_printed_options_are_read_back(call, tmp_path: Path, line: str) -> None:
    printed = call("train", *line.split(), "--print-config")
    assert printed.code == 0
    (tmp_path / "c.yaml").write_text(printed.out)
    assert call("train", "--config", "c.yaml", "--print-config").out == printed.out
    fields = yaml.safe_load(printed.out)
    assert TrainConfig.load(tmp_path / "c.yaml") == TrainConfig(**fields)
    assert not (tmp_path / "runs").exists()


def test_the_options_are_those_given(call) -> None:
    assert yaml.safe_load(call("train", *LINES[1].split(), "--print-config").out) == {
        **TrainConfig().to_dict(), "learning_rate": 0.01, "optimizer": "adam",
    }  # fmt: skip
    assert yaml.safe_load(call("train", *LINES[4].split(), "--print_config").out)["loggers"] == ["tensorboard", "wandb"]


def test_what_follows_is_shown_beside_an_open_choice(call) -> None:
    out = call("train", "--dataset", "mnist", "--optimizer", "lbfgs", "--print-config").out
    for line in ("model: null  # resnet18", "epochs: null  # 200", "learning_rate: null  # 0.1"):
        assert line in out.splitlines()


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/**/config.yaml")), ids=lambda path: str(path.parent.name))
def test_committed_configurations_are_read_and_flags_win(call, path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    if written.get("test_samples_per_class", "auto") is None:  # as older versions wrote it
        written["test_samples_per_class"] = "all"
    before = {"test_samples_per_class": "all"}  # as it was before there was the option
    assert TrainConfig.load(path).to_dict() == {**TrainConfig().to_dict(), **before, **written}
    said = call("train", "--config", str(path), "--seed", "77", "--output", "other", "--print-config")
    assert said.code == 0, said.err
    assert yaml.safe_load(said.out) == {**TrainConfig().to_dict(), **written, "seed": 77, "output": "other"}


BROKEN = [
    ("epoch: 3", "has an unknown field 'epoch' (did you mean epochs?)"),
    ("epochs: many", "epochs many: give a whole number"),
    ("epochs: 1.5", "epochs 1.5: give a whole number"),
    ("epochs: [1, 2]", "epochs [1, 2]: give a whole number"),
    ("optimizer: lion", "optimizer lion: choose sgd, adam, lbfgs"),
    ("epochs: [", "is not YAML"),
    ("3", "must hold one option per line"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_file_is_one_sentence(call, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    ended = call("train", "--config", "c.yaml")
    assert ended.code == 2
    assert "c.yaml" in ended.err
    assert message in ended.err
    assert ended.err.count("\n") == 1
    with pytest.raises(ValueError, match=r"c\.yaml is not a valid configuration"):
        TrainConfig.load(tmp_path / "c.yaml")


def test_a_run_is_saved_and_loaded(tmp_path: Path) -> None:
    config = TrainConfig(learning_rate=1e-5, loggers=["tensorboard"], width=8).resolved()
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    with pytest.raises(FileNotFoundError, match="is its folder a run"):
        TrainConfig.load(tmp_path / "absent.yaml")
