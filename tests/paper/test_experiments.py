"""The declarations: what runs at which scale, and that a printed command is the run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from neuralcollapse.paper.cuts import cut
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
    """A command is parsed by the command line itself, and gives the run but for where data and folder are."""
    sources = {"cifar10": "hf:../shared/some data/cifar10"}
    runs = [run for scale in SCALES for name in ("figure5", "figure6", "figure7")
            for run in plan([name], scale, output=Path("o"), sources=sources, data_root="../d")[name]]  # fmt: skip
    chosen = {run.experiment.name: run for run in runs[:: len(runs) // 4]}
    for name, run in chosen.items():
        words = shlex.split(run.command)
        assert words[0] == "neuralcollapse"
        shown = subprocess.run(
            [sys.executable, "-m", "neuralcollapse.cli", *words[1:], "--print_config"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        parsed = _load(shown)
        place = {"output": f"runs/{name}", "data_root": "DATA" if run.config.dataset == "mnist" else "data"}
        if run.config.dataset.startswith("hf:"):
            place["dataset"] = "hf:DATA/cifar10"
        assert parsed.to_dict() == run.config.to_dict() | place


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


def test_narrow_scale_keeps_images_batches_epochs_and_schedule() -> None:
    planned = plan(list(FIGURES), "narrow", output=Path("out"))
    runs = {run.experiment.name: run.config for group in planned.values() for run in group}
    protocol = {run.experiment.name: run.config for group in plan(list(FIGURES), "full", output=Path("out")).values()
                for run in group}  # fmt: skip
    cut = {"width", "measure_every", "test_every", "seed", "output", "precision"}
    for name, config in runs.items():
        variant, _, seed = name.rpartition("-seed")
        assert config.seed == int(seed)
        allowed = cut | ({"epochs"} if config.optimizer == "lbfgs" else set())
        smaller = {"samples_per_class", "test_samples_per_class", "batch_size"}
        allowed |= smaller if config.model == "resnet50" or name == "cifar10-resnet18-lbfgs-seed0" else set()
        if variant in protocol:
            of_paper = protocol[variant].to_dict()
            assert {key for key, value in config.to_dict().items() if value != of_paper[key]} <= allowed, name
    assert (runs["mnist-resnet18-sgd-seed0"].width, runs["cifar10-resnet18-adam-seed0"].width) == (16, 32)
    assert {name for name in runs if name.startswith("mnist-resnet18-sgd-seed")} == {
        f"mnist-resnet18-sgd-seed{seed}" for seed in range(3)
    }
    lower = {name for name, config in runs.items() if config.precision != "32-true"}
    assert lower == {name for name in runs if name.startswith("cifar10-resnet") and "lbfgs" not in name}
    assert "mnist-resnet18-sgd-both-seed0" in runs
    assert "mnist-resnet18-adam-seed1" not in runs
    assert {run.config.width for run in planned["figure5"]} == {10, 20, 40, 80, 160, 320, 640}


def test_every_measured_run_is_measured_in_the_first_tenth_of_training() -> None:
    for run in [run for group in plan(list(FIGURES), "narrow", output=Path("out")).values() for run in group]:
        assert run.config.measure_every <= run.epochs / 10, run.experiment.name


def test_asked_seeds_replace_those_of_the_scale() -> None:
    for scale in SCALES:
        names = [run.experiment.name for run in plan(["figure6"], scale, output=Path("o"), seeds=(3, 4))["figure6"]]
        assert {name.rpartition("-")[2] for name in names} == {"seed3", "seed4"}
    assert Path(plan(["figure6"], "smoke", output=Path("o"), seeds=(3,))["figure6"][0].folder).name.endswith("-seed3")
    for wrong in ((1, 1), (-1,)):
        with pytest.raises(ValueError, match="seeds="):
            plan(["figure6"], "smoke", output=Path("o"), seeds=wrong)


@pytest.mark.parametrize(
    ("source", "root", "printed"),
    [
        ("mnist", "../shared/data", "--dataset mnist --data-root DATA"),
        ("hf:../shared/data/cifar10", "../shared/data", "--dataset hf:DATA/cifar10"),
        ("imagefolder:/home/me/cifar", "data", "--dataset imagefolder:DATA/cifar"),
        ("hf:uoft-cs/cifar10", "data", "--dataset hf:uoft-cs/cifar10"),
    ],
)
def test_printed_commands_hold_no_folder_of_this_machine(source: str, root: str, printed: str) -> None:
    run = plan(["figure6"], "full", output=Path("/tmp/o"), data_root=root, sources={"mnist": source})["figure6"][0]
    assert printed in run.command
    assert not {"../shared", "/home/me", "/tmp/o"} & set(run.command.split("/"))
    assert "shared" not in run.command


def test_capture_is_every_runs_and_no_part_of_the_protocol() -> None:
    planned = plan(["figure3", "figure7"], "full", output=Path("o"), capture=True)
    for run in [run for group in planned.values() for run in group]:
        assert run.config.capture
        assert "capture" not in run.command
        assert cut(run) == ""


def test_precision_is_every_runs_and_stands_beside_its_numbers() -> None:
    planned = plan(["figure3", "figure7"], "narrow", output=Path("o"), precision="bf16-mixed")
    for run in [run for group in planned.values() for run in group]:
        assert run.config.precision == "bf16-mixed"
        assert "bf16-mixed" in cut(run)
        assert "--precision bf16-mixed" in run.command


@pytest.mark.parametrize("scale", list(SCALES))
def test_lbfgs_which_cannot_scale_its_loss_is_in_single_precision_where_others_are_in_float16(scale: str) -> None:
    planned = plan(list(FIGURES), scale, output=Path("o"), precision="16-mixed")
    for run in [run for group in planned.values() for run in group]:
        lbfgs = run.config.optimizer == "lbfgs"
        assert run.config.precision == ("32-true" if lbfgs else "16-mixed")
        assert ("16-mixed" in cut(run)) is not lbfgs
