"""``neuralcollapse measure``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from neuralcollapse.cli.models import check_file, file_and_function, user_model
from neuralcollapse.cli.options import UsageError, numbers, words, writable
from neuralcollapse.extras import check_pictures
from neuralcollapse.files import write_text
from neuralcollapse.names import check_dataset, check_model
from neuralcollapse.train.config import PATH
from neuralcollapse.valid_json import dumps

if TYPE_CHECKING:
    from torch import nn

    from neuralcollapse.measurement import CollapseReport
    from neuralcollapse.train.datasets import Split
    from neuralcollapse.train.module import ImageNetwork

_WHAT = Parameter(group=Group("What to measure (choose one)", sort_key=1))
_MODEL = Parameter(group=Group("For --model", sort_key=2))
_HOW = Parameter(group=Group("How to measure", sort_key=3))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to measure, and how."""

    run: Annotated[str | None, _WHAT, PATH] = None
    """Run folder made by neuralcollapse train: its last checkpoint on its training data."""
    features: Annotated[str | None, _WHAT, PATH] = None
    """File of features you have stored, .safetensors or .npz, with arrays features (N, d) and labels (N,), and
    weight (K, d) and bias (K,) if you have them."""
    model: Annotated[str | None, _WHAT] = None
    """A model, to be measured on --data: mlp, convnet, resnet18, resnet50, torchvision:NAME, timm:NAME, or
    FILE.py:FUNCTION for a function of yours that returns a torch module."""
    checkpoint: Annotated[str | None, _MODEL, PATH] = None
    """Weights of --model: .ckpt, .pt or .safetensors."""
    checkpoint_key: Annotated[str | None, _MODEL] = None
    """Which network of a --checkpoint that holds several: its key or the prefix of its names, such as model_ema
    or teacher."""
    data: Annotated[str | None, _MODEL] = None
    """Data set to measure on: digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH or hf:ID_OR_PATH."""
    samples_per_class: Annotated[int | None, _MODEL] = None
    """Measure on n samples of each class."""
    image_size: Annotated[int | None, _MODEL] = None
    """Side to which images are resized."""
    mean: Annotated[str, _MODEL] = ""
    """Channel means that the model was trained with, on a scale from 0 to 1: 0.485,0.456,0.406. By default those in
    the checkpoint of a run, otherwise those of the images."""
    std: Annotated[str, _MODEL] = ""
    """Channel standard deviations in the same form: 0.229,0.224,0.225."""
    split: Annotated[Literal["train", "test", "all"] | None, _HOW] = None
    """Which images to measure. By default the training images, or all images of a folder without
            train/ and test/."""
    data_root: Annotated[str | None, _HOW, PATH] = None
    """Folder of torchvision's data sets."""
    classifier: Annotated[str | None, _HOW] = None
    """Name of the classifier layer, if the command cannot find it."""
    layers: Annotated[str, _HOW] = ""
    """Inner layers to measure too, such as layer3,layer4. With all: every block, and how collapse grows
            with depth."""
    task: Annotated[Literal["classification", "multilabel", "regression"], _HOW] = "classification"
    """What the labels of --features are: one class index per sample; zeros and ones (N, K), for several labels per
    sample; or continuous targets (N,) or (N, n)."""
    allow_missing: Annotated[bool, _HOW] = False
    """Measure even if some classes have no samples."""
    json: Annotated[Path | None, _HOW] = None
    """Write the numbers to this file as well."""
    plot: Annotated[Path | None, _HOW] = None
    """Draw them into this .svg or .png as well: with --layers NC1 against depth, otherwise each measure's value. It
    needs the extra 'figures' and Chrome or Chromium."""


_OF_A_MODEL = ("checkpoint", "checkpoint_key", "data", "samples_per_class", "image_size", "mean", "std")
_IGNORED_BY = {
    "run": _OF_A_MODEL,
    "features": (*_OF_A_MODEL, "split", "data_root", "classifier", "layers"),
    "model": (),
}


_PIPED_WIDTH = 240
"""Columns of a table that goes to a file or a pipe, where no terminal is too narrow for names of layers."""


def measure(*, choices: Annotated[Choices, Parameter(name="*")] = Choices()) -> None:
    """Measure neural collapse: of a run, of a model over a data set, or of stored features.

    Prints NC1 to NC4 and the related measures, each with its value at perfect collapse.

    For example:
      neuralcollapse measure --run runs/digits-mlp-sgd-seed0
      neuralcollapse measure --features features.npz --json numbers.json
      neuralcollapse measure --model my_model.py:build --checkpoint weights.pt --data imagefolder:photos
      neuralcollapse measure --model torchvision:resnet18 --data cifar10 --layers layer3,layer4
      neuralcollapse measure --run runs/digits-mlp-sgd-seed0 --layers all --plot depth.svg
    """
    given = [name for name in _IGNORED_BY if getattr(choices, name)]
    if not given:
        raise UsageError("give one of --run, --features and --model: nothing says what to measure")
    if len(given) > 1:
        raise ValueError(f"give one of --run, --features and --model, not {' and '.join(given)}")
    if choices.task != "classification" and not choices.features:
        raise ValueError(
            f"--task {choices.task} is for --features: the data sets of --{given[0]} have one class per image"
        )
    ignored = [f"--{name.replace('_', '-')}" for name in _IGNORED_BY[given[0]] if getattr(choices, name)]
    if ignored:
        raise ValueError(f"{', '.join(ignored)}: --{given[0]} would ignore that, leave it out")
    if choices.model:
        _check_names(choices)
    json, plot = writable(choices.json, "--json"), _picture(choices.plot)
    from rich.console import Console

    draw: Callable[[], Any]
    if choices.features:
        found, table = _measure_features(choices)
        text, draw = dumps(found), partial(_drawn_values, found)
    else:
        report = _measure_network(choices)
        text, table, draw = report.to_json(), report.table(), partial(_drawn, report)
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)
    if json:
        write_text(json, text + "\n")
    if plot:
        from neuralcollapse.report.figures import write_picture

        write_picture(draw(), plot)


def _picture(path: Path | None) -> Path | None:
    """Checked before the work: the name, the folder, and that figures can become files at all."""
    if path is None:
        return None
    if path.suffix.lower() not in (".svg", ".png"):
        raise ValueError(f"--plot {path} must end in .svg or .png")
    check_pictures("pictures (--plot)")
    return writable(path, "--plot")


def _drawn(report: CollapseReport) -> Any:
    """The law of separation where it was fitted, NC1 by layer, or the values."""
    from neuralcollapse.figures import plot_layers

    if report.depth is not None:
        return plot_layers(report.depth)
    return report.plot(by_layer="nc1") if report.layers else report.plot()


def _drawn_values(found: dict[str, float | None]) -> Any:
    from neuralcollapse.figures import plot_values
    from neuralcollapse.geometry.measures import HEADLINE

    headline = [name for name in HEADLINE if found.get(name) is not None]
    return plot_values(found, headline or [name for name, value in found.items() if value is not None])


def _check_names(choices: Choices) -> None:
    """Before torch is loaded."""
    if not choices.data:
        raise UsageError("--model needs --data: the data set to measure on")
    check_dataset(choices.data)
    if choices.checkpoint_key is not None and not choices.checkpoint:
        raise ValueError(f"--checkpoint-key {choices.checkpoint_key} needs --checkpoint: the file that it is a key of")
    own = file_and_function(str(choices.model))
    if own is None:
        check_model(str(choices.model))
    else:
        check_file(own[0])


def _measure_features(choices: Choices) -> tuple[dict[str, float | None], Any]:
    from neuralcollapse.measurement import load_embeddings
    from neuralcollapse.measurement.embeddings import ideals_of_embeddings, measure_embeddings
    from neuralcollapse.measurement.presentation import rich_table

    if not Path(str(choices.features)).is_file():
        raise FileNotFoundError(f"--features {choices.features}: there is no such file")
    stored = load_embeddings(str(choices.features))
    values = measure_embeddings(stored, choices.task, allow_missing=choices.allow_missing)
    title = f"{choices.features}: {len(stored['labels']):,} samples"
    return values, rich_table({"value": values}, title, ideals_of_embeddings(stored, choices.task))


def _measure_network(choices: Choices) -> CollapseReport:
    import torch

    from neuralcollapse import measure
    from neuralcollapse.train import load_run
    from neuralcollapse.train.datasets import eval_loader
    from neuralcollapse.train.splits import joined

    if choices.run:
        run = load_run(choices.run, data_root=choices.data_root)
        network = run.network
        split = joined(run.data) if choices.split == "all" else getattr(run.data, choices.split or "train")
    else:
        network, split = _build(choices)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return measure(
        network,
        eval_loader(split),
        classifier=choices.classifier and _inside(choices.classifier),
        layers="all" if choices.layers == "all" else [_inside(name) for name in words(choices.layers)],
        device=accelerator,
        allow_missing=choices.allow_missing,
    )


def _inside(name: str) -> str:
    """A layer's name in the whole network, whether it was given so (as reports print it) or as the model has it."""
    return name if name.startswith("backbone.") else f"backbone.{name}"


def _build(choices: Choices) -> tuple[ImageNetwork, Split]:
    from neuralcollapse.train.checkpoint import load_weights
    from neuralcollapse.train.config import TrainConfig
    from neuralcollapse.train.module import ImageNetwork, build_network, check_fit
    from neuralcollapse.train.splits import has_splits, load_split

    model, dataset = str(choices.model), str(choices.data)
    data, split = load_split(
        dataset,
        choices.data_root or "data",
        choice=choices.split or ("train" if has_splits(dataset) else "all"),
        samples_per_class=choices.samples_per_class,
        image_size=choices.image_size,
    )
    own = file_and_function(model)
    if own:
        backbone = user_model(*own)
        network = ImageNetwork(backbone, *data.channel_moments(), _channels(backbone, data.image_shape[0]))
        check_fit(network, data, model)
    else:
        network = build_network(TrainConfig(dataset=dataset, model=model), data)
    if choices.checkpoint:
        load_weights(network, choices.checkpoint, choices.checkpoint_key)
    else:
        print("neuralcollapse: no --checkpoint: the weights are as the model starts with", file=sys.stderr)
    if choices.mean or choices.std:
        network.normalise(
            *(
                numbers(getattr(choices, name), f"--{name}", "0.5, or 0.485,0.456,0.406", float)
                for name in ("mean", "std")
            )
        )
    return network, split


def _channels(backbone: nn.Module, of_images: int) -> int:
    """As many as the images have; where they are grey, as many as the model's first convolution takes."""
    from torch import nn

    first = next((layer.in_channels for layer in backbone.modules() if isinstance(layer, nn.Conv2d)), of_images)
    return first if of_images == 1 else of_images
