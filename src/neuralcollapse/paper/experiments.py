"""The paper's figures as declarations: which runs, on what data, at which scale (Zhu et al., Section 4).

An experiment says what is varied. The rules say what follows: :data:`PROTOCOL` from the paper, and a scale's own rules
from what it leaves out of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from neuralcollapse.train.config import TrainConfig

CLASSES = 10
"""K of each of the paper's data sets."""

Rules = tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]
"""(fields an experiment must have, options it then gets), later ones over earlier ones."""

Seeds = tuple[tuple[Mapping[str, Any], tuple[int, ...]], ...]
"""(fields an experiment must have, seeds it is then run with), later ones over earlier ones."""


@dataclass(frozen=True)
class Experiment:
    """One run: data x model x optimizer x head x decay x labels x width x seed."""

    dataset: str
    model: str = "resnet18"
    optimizer: Literal["sgd", "adam", "lbfgs"] = "sgd"
    head: Literal["learned", "fixed", "small", "both"] = "learned"
    """fixed: a simplex ETF; small: d = K; both: a fixed ETF with d = K"""
    decay: Literal["all", "features"] = "all"
    """of all parameters, or of features, classifier and bias"""
    labels: Literal["true", "random"] = "true"
    width: int | None = None
    seed: int | None = None
    """None: the default seed, and no seed in the name"""

    @property
    def name(self) -> str:
        """Such as ``cifar10-resnet18-sgd-fixed-seed0``, which is also the name of its folder."""
        return self.variant if self.seed is None else f"{self.variant}-seed{self.seed}"

    @property
    def variant(self) -> str:
        """The name without the seed: runs of one variant differ in nothing else."""
        words = [self.dataset, self.model, self.optimizer]
        words += [word for word in (self.decay, self.head, self.labels) if word not in ("all", "learned", "true")]
        return "-".join(words + ([f"w{self.width}"] if self.width else []))

    @property
    def group(self) -> str:
        """``DATASET-MODEL``: runs of a group are compared with each other."""
        return f"{self.dataset}-{self.model}"

    def matches(self, wanted: Mapping[str, Any]) -> bool:
        """Whether it has these values in these fields."""
        return all(getattr(self, name) == value for name, value in wanted.items())

    def config(
        self,
        scale: Scale,
        *,
        sources: Mapping[str, str],
        data_root: str,
        output: Path,
        precision: str | None = None,
        capture: bool = False,
    ) -> TrainConfig:
        """The run at a scale, every choice made.

        Args:
            scale: what it leaves out of the paper's protocol.
            sources: where a data set comes from, if not from torchvision: ``{"cifar10": "hf:FOLDER"}``.
            data_root: folder of torchvision's data sets.
            output: folder of all runs.
            precision: of the training steps; by default the scale's own. L-BFGS takes ``32-true`` for ``16-mixed``,
                because it cannot scale its loss.
            capture: replay the training steps as one graph, where the device can.
        """
        options: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "width": self.width,
            "capture": capture,
        }
        if self.seed is not None:
            options["seed"] = self.seed
        for wanted, given in (*PROTOCOL, *scale.rules):
            if self.matches(wanted):
                options |= given
        if precision is not None:
            unscaled = self.optimizer == "lbfgs" and precision == "16-mixed"
            options["precision"] = "32-true" if unscaled else precision
        return TrainConfig(
            dataset=sources.get(self.dataset, self.dataset),
            data_root=data_root,
            output=str(output / self.name),
            **options,
        ).resolved()


PROTOCOL: Rules = (
    ({}, {"weight_decay": 5e-4}),
    ({"decay": "features"}, {"feature_decay": 1e-5, "weight_decay": 0.01}),
    ({"labels": "random"}, {"random_labels": True, "learning_rate": 0.01, "weight_decay": 1e-4}),
    ({"model": "resnet50"}, {"stem": "small", "augment": True}),
    ({"head": "fixed"}, {"head": "etf"}),
    ({"head": "small"}, {"feature_dim": CLASSES}),
    ({"head": "both"}, {"head": "etf", "feature_dim": CLASSES}),
)


@dataclass(frozen=True)
class Scale:
    """How much of the paper's protocol is run."""

    summary: str
    datasets: tuple[str, ...]
    """from the easiest to the one of Figure 5 and of ResNet50"""
    widths: Mapping[str, tuple[int, ...]]
    """of Figure 5, by model"""
    rules: Rules = ()
    seeds: Seeds = ()
    """Without any, each experiment runs once, with the default seed."""
    judged: bool = True
    """Whether its runs can say anything about the paper's claims."""

    def seeded(self, experiments: Sequence[Experiment], asked: Sequence[int] = ()) -> list[Experiment]:
        """Each experiment once per seed: those asked for, or else the scale's own.

        >>> [run.name for run in SCALES["reduced"].seeded([Experiment("mnist")], [3, 4])]
        ['mnist-resnet18-sgd-seed3', 'mnist-resnet18-sgd-seed4']
        """
        found = []
        for experiment in experiments:
            seeds: Sequence[int | None] = [None]
            for wanted, given in self.seeds:
                if experiment.matches(wanted):
                    seeds = given
            found += [dataclasses.replace(experiment, seed=seed) for seed in (asked or seeds)]
        return found


_WIDTHS = {"mlp": (10, 20, 40, 80, 160, 320), "resnet18": (2, 4, 8, 16, 32, 64)}

SCALES = {
    "smoke": Scale(
        "embedded digits, narrow networks, two epochs: shows that everything runs, says nothing about the paper",
        ("digits",),
        {"mlp": (10, 20), "resnet18": (2, 4)},
        (
            ({}, {"samples_per_class": 10, "test_samples_per_class": 10, "epochs": 2, "image_size": 32}),
            ({"labels": "true"}, {"width": 8}),
        ),
        judged=False,
    ),
    "reduced": Scale(
        "the paper's networks and epochs (L-BFGS: 30) on 100 images per class, for ResNet50 on 10 in batches of 25",
        ("mnist", "cifar10"),
        _WIDTHS,
        (
            ({}, {"samples_per_class": 100, "test_samples_per_class": "all", "epochs": 200, "measure_every": 20}),
            ({"head": "learned", "decay": "all", "labels": "true"}, {"measure_every": 10}),
            ({"optimizer": "lbfgs"}, {"epochs": 30, "measure_every": 5}),
            ({"labels": "random"}, {"test_samples_per_class": 100, "measure_every": 20}),
            (
                {"model": "resnet50"},
                {"samples_per_class": 10, "batch_size": 25, "test_samples_per_class": 100, "measure_every": 40},
            ),
        ),
    ),
    "narrow": Scale(
        "every image and the paper's batches, epochs and schedule; ResNet18 of width 16 on MNIST and 32 on CIFAR-10, "
        "not 64, the latter in bf16-mixed; L-BFGS for 120 epochs on MNIST and on 200 images per class of CIFAR-10; "
        "ResNet50 of width 16 on 500 images per class, in batches of 32 and in bf16-mixed",
        ("mnist", "cifar10"),
        {"mlp": (*_WIDTHS["mlp"], 640)},
        (
            ({}, {"measure_every": 5}),
            ({"model": "resnet18", "dataset": "mnist"}, {"width": 16}),
            ({"model": "resnet18", "dataset": "cifar10"}, {"width": 32, "precision": "bf16-mixed"}),
            # These would take many hours on one core.
            ({"optimizer": "lbfgs", "dataset": "mnist"}, {"epochs": 120}),
            # On every image, 50 epochs reach 94% training accuracy (one H100), and 200 take ten hours of one core.
            # 2,000 images fit one batch: each line search then sees all of the data.
            ({"optimizer": "lbfgs", "dataset": "cifar10"}, {"samples_per_class": 200, "precision": "32-true"}),
            # In batches of 128, 8,000 steps reach 92% training accuracy with the learned classifier (one H100).
            (
                {"model": "resnet50"},
                {"width": 16, "samples_per_class": 500, "batch_size": 32, "measure_every": 10},
            ),
            (
                {"model": "resnet50"},
                {"precision": "bf16-mixed"},
            ),  # a step: 195 ms of a Xeon core with AMX, 279 in 32-true
        ),
        seeds=(({}, (0,)), ({"model": "resnet18", "optimizer": "sgd", "head": "learned", "decay": "all"}, (0, 1, 2))),
    ),
    "full": Scale("the paper's protocol; the widths of Figure 5 are ours", ("mnist", "cifar10"), _WIDTHS),
}


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper: its title, and its runs at a scale."""

    title: str
    runs: Callable[[Scale], list[Experiment]]


def grid(**choices: Sequence[Any] | Any) -> list[Experiment]:
    """Every combination; a choice is a value or a tuple of values.

    >>> [run.name for run in grid(dataset="mnist", head=("learned", "fixed"))]
    ['mnist-resnet18-sgd', 'mnist-resnet18-sgd-fixed']
    """
    assert choices.keys() <= {field.name for field in fields(Experiment)}
    values = [choice if isinstance(choice, tuple) else (choice,) for choice in choices.values()]
    return [Experiment(**dict(zip(choices, point, strict=True))) for point in itertools.product(*values)]


def _optimizers(scale: Scale) -> list[Experiment]:
    return grid(dataset=scale.datasets, optimizer=("sgd", "adam", "lbfgs"))


FIGURES = {
    "figure3": Figure("Figure 3: neural collapse with three optimizers", _optimizers),
    "figure4": Figure("Figure 4: training and test accuracy with three optimizers", _optimizers),
    "figure5": Figure(
        "Figure 5: random labels, over widths",
        lambda scale: [
            run
            for model, widths in scale.widths.items()
            for run in grid(dataset=scale.datasets[-1], model=model, labels="random", width=widths)
        ],
    ),
    "figure6": Figure(
        "Figure 6: decay of all parameters, or of features and classifier",
        lambda scale: grid(dataset=scale.datasets, decay=("all", "features")),
    ),
    "figure7": Figure(
        "Figure 7: learned and fixed classifiers, large and small features",
        lambda scale: [
            *grid(dataset=scale.datasets, head=("learned", "fixed", "small", "both")),
            *grid(dataset=scale.datasets[-1], model="resnet50", head=("learned", "fixed", "small")),
        ],
    ),
    "savings": Figure("Section 4.3: parameters saved", lambda scale: []),
}


def check_figures(names: Sequence[str]) -> None:
    """Accept names of figures.

    Raises:
        ValueError: naming the first that is unknown.
    """
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise ValueError(f"figure {unknown[0]!r} is unknown: choose {', '.join(FIGURES)} or all")
