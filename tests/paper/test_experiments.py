"""The declarations: what runs at which scale, and that a printed command is the run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from neuralcollapse.paper.experiments import FIGURES, SCALES, Experiment, grid
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.reproduce import plan
from neuralcollapse.train.config import TrainConfig


def configs(figure: str, scale: str) -> dict[str, TrainConfig]:
    runs = plan([figure], scale, output=Path("out"))[figure]
    return {run.experiment.name: run.config for run in runs}


def test_full_scale_is_the_papers_protocol() -> None:
    found = configs("figure3", "full")
    assert set(found) == {f"{data}-resnet18-{how}" for data in ("mnist", "cifar10") for how in ("sgd", "adam", "lbfgs")}
    for config in found.values():
        assert (config.epochs, config.weight_decay, config.samples_per_class) == (200, 5e-4, None)
        assert (config.lr_decay_every, config.momentum, config.augment, config.stem) == (40, 0.9, False, "imagenet")
        assert config.learning_rate == {"sgd": 0.05, "adam": 1e-3, "lbfgs": 0.1}[config.optimizer]
    for config in configs("figure5", "full").values():
        assert config.random_labels
        assert config.model in ("mlp", "resnet18")
        assert (config.learning_rate, config.weight_decay, config.optimizer) == (0.01, 1e-4, "sgd")
    features = configs("figure6", "full")["cifar10-resnet18-sgd-features"]
    assert (features.feature_decay, features.weight_decay) == (1e-5, 0.01)
    heads = configs("figure7", "full")
    assert (heads["mnist-resnet18-sgd-fixed"].head, heads["mnist-resnet18-sgd-fixed"].feature_dim) == ("etf", None)
    assert (heads["mnist-resnet18-sgd-small"].head, heads["mnist-resnet18-sgd-small"].feature_dim) == ("learned", 10)
    deep = heads["cifar10-resnet50-sgd"]
    assert (deep.stem, deep.augment, deep.weight_decay) == ("small", True, 5e-4)


def test_reduced_scale_keeps_networks_and_epochs() -> None:
    for figure in FIGURES:
        for name, config in configs(figure, "reduced").items():
            assert config.epochs == (30 if config.optimizer == "lbfgs" else 200), name
            assert config.samples_per_class == (10 if config.model == "resnet50" else 100)
    assert len(configs("figure5", "reduced")) >= 8


@pytest.mark.parametrize("scale", list(SCALES))
def test_figures_share_runs_and_names_are_unique(scale: str) -> None:
    planned = plan(list(FIGURES), scale, output=Path("out"))
    by_name = {run.experiment.name: run.config for group in planned.values() for run in group}
    everything = {run.experiment for group in planned.values() for run in group}
    assert len(by_name) == len(everything)
    assert len({config.output for config in by_name.values()}) == len(by_name)
    assert planned["figure3"][0] is planned["figure6"][0]


def test_printed_commands_are_the_runs() -> None:
    """A command is parsed by the command line itself, and gives the run but for its folder."""
    sources = {"cifar10": "hf:../shared/some data/cifar10"}
    runs = [run for scale in SCALES for name in ("figure5", "figure6", "figure7")
            for run in plan([name], scale, output=Path("o"), sources=sources, data_root="../d")[name]]  # fmt: skip
    chosen = {run.experiment.name: run for run in runs[:: len(runs) // 6]}
    for name, run in chosen.items():
        words = shlex.split(run.command)
        assert words[0] == "neuralcollapse"
        shown = subprocess.run(
            [sys.executable, "-m", "neuralcollapse.cli", *words[1:], "--print_config"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        path = Path(run.experiment.name)
        parsed = _load(shown)
        assert parsed.to_dict() | {"output": ""} == run.config.to_dict() | {"output": ""}
        assert parsed.output == str("runs" / path), name


def _load(text: str) -> TrainConfig:
    import yaml

    return TrainConfig(**yaml.safe_load(text)).resolved()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"figure 'figure8' is unknown: choose figure3, .* or all"):
        plan(["figure3", "figure8"], "smoke", output=Path("out"))
    with pytest.raises(ValueError, match="scale='tiny' is unknown"):
        plan(["figure3"], "tiny", output=Path("out"))


def test_grid_is_every_combination() -> None:
    runs = grid(dataset=("a", "b"), head=("learned", "fixed"), width=3)
    assert [(run.dataset, run.head, run.width) for run in runs] == [
        ("a", "learned", 3), ("a", "fixed", 3), ("b", "learned", 3), ("b", "fixed", 3),
    ]  # fmt: skip
    assert not Outcome(runs[0], TrainConfig(output="nowhere")).finished
    assert Experiment("mnist", decay="features", head="both").name == "mnist-resnet18-sgd-features-both"
