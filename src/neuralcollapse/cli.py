"""The command line: parses, calls, prints."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from neuralcollapse.cli_paper import reproduce_parser, run_reproduce
from neuralcollapse.cli_ufm import add_tasks, numbers, run_ufm, ufm_parser, words

if TYPE_CHECKING:
    from torch import nn

    from neuralcollapse.measurement import CollapseReport
    from neuralcollapse.train.datasets import ImageData
    from neuralcollapse.train.module import ImageNetwork


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``neuralcollapse``. Exits with 1 after an error, 2 after bad usage, 130 after Ctrl-C."""
    # Before torch is loaded: threads that spin while they wait make a small network ten times slower as soon
    # as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    parsers = _parsers()
    parser = ArgumentParser(
        prog="neuralcollapse", description=_DESCRIPTION, version=_version(), formatter_class=_Formatter
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (subparser, _, summary) in parsers.items():
        commands.add_subcommand(name, subparser, help=summary)
    add_tasks(parsers["ufm"][0])
    for subparser, _, _ in parsers.values():
        _spell_as_users_do(subparser)
    options = parser.parse_args(None if arguments is None else list(arguments))
    warnings.showwarning = _show_warning
    try:
        parsers[options.command][1](options[options.command])
    except KeyboardInterrupt:
        kept = {
            "train": ". Finished epochs are kept: the same command with --resume continues",
            "reproduce": ". Finished runs and epochs are kept: the same command continues",
        }
        _fail("stopped" + kept.get(options.command, ""), 130)
    except Exception as error:
        if os.environ.get("NEURALCOLLAPSE_DEBUG"):
            raise
        expected = isinstance(error, ValueError | TypeError | OSError | ImportError | ArithmeticError)
        kind = "" if expected else f"{type(error).__name__}: "
        _fail(f"error: {kind}{error}" + ("" if expected else " (NEURALCOLLAPSE_DEBUG=1 shows where)"), 1)


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def _spell_as_users_do(parser: ArgumentParser) -> None:
    """``--data-root`` for ``--data_root`` (both are understood), and ``--resume`` for ``--resume true``."""
    for action in parser._actions:
        for inner in (getattr(action, "_name_parser_map", None) or {}).values():
            _spell_as_users_do(inner)
        dashed = [option.replace("_", "-") for option in action.option_strings]
        parser._option_string_actions.update(dict.fromkeys(dashed, action))
        action.option_strings = dashed
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const, action.metavar = "?", True, "BOOL"


_DESCRIPTION = """Measure, induce and explain neural collapse in deep networks.

  neuralcollapse train                      train on handwritten digits until the network collapses
  neuralcollapse report runs/RUN            one page that shows it
  neuralcollapse measure --run runs/RUN     measure its last checkpoint
  neuralcollapse measure --features F.npz   measure features you have stored
  neuralcollapse savings resnet50           what a fixed head and smaller features save
  neuralcollapse ufm solve                  the theory's global minimum, certified
  neuralcollapse reproduce all --scale smoke  the paper's figures, in a minute and in small
  neuralcollapse COMMAND --help             everything about a command
"""


def _version() -> str:
    from neuralcollapse import __version__

    return __version__


def _fail(message: str, code: int) -> None:
    print(f"neuralcollapse: {message}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any, **keywords: Any) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"neuralcollapse: warning: {message}", file=sys.stderr)


def _parsers() -> dict[str, tuple[ArgumentParser, Callable[[Namespace], None], str]]:
    return {
        "train": (_train_parser(), _train, "train until collapse, measuring every epoch"),
        "measure": (_measure_parser(), _measure, "measure a model, a run, or stored features"),
        "savings": (_savings_parser(), _savings, "what a fixed head and smaller features save"),
        "ufm": (ufm_parser(), run_ufm, "the theory: solve, certify, landscape, dynamics, conjecture"),
        "reproduce": (reproduce_parser(), run_reproduce, "the paper's figures and tables, judged claim by claim"),
        "report": (_report_parser(), _report, "one offline HTML page of one or more runs"),
    }


# ---- train -----------------------------------------------------------------------------------------


def _train_parser() -> ArgumentParser:
    from neuralcollapse.train.config import TrainConfig

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description="Train a classifier, measure its collapse every epoch, write a report.")
    parser.add_class_arguments(TrainConfig)
    parser.add_argument("--config", action="config", help="a YAML file of these options, such as a run's config.yaml")
    return parser


def _train(options: Namespace) -> None:
    from neuralcollapse.train import TrainConfig, train
    from neuralcollapse.train.record import read_metrics
    from neuralcollapse.train.run import is_first

    values = {name: value for name, value in options.as_dict().items() if name != "config"}
    folder = train(TrainConfig(**values))
    if not is_first():
        return
    rows = read_metrics(folder)
    _print_run(folder, rows)
    from neuralcollapse.report import write_report

    page = write_report([folder], folder / "report.html")
    print(f"\nReport: {page}\nRun:    {folder}")


def _print_run(folder: Path, rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    measured = [row for row in rows if row["nc1"]]
    first, last = measured[0], measured[-1]
    table = Table(title=f"{folder.name}: from epoch {first['epoch']} to {last['epoch']}")
    for column in ("measure", "before", "after", "fell by"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for name in ("nc1", "nc2", "nc3", "nc4", "nc2_means", "cdnv", "ncc_mismatch"):
        if first[name] and last[name]:
            before, after = float(first[name]), float(last[name])
            table.add_row(name.upper(), f"{before:.4g}", f"{after:.4g}", f"{before / after:.3g}x" if after else "")
    for name in ("train_accuracy", "test_accuracy"):
        table.add_row(name.replace("_", " "), f"{float(first[name]):.2%}", f"{float(last[name]):.2%}", "")
    Console().print(table)


# ---- measure ---------------------------------------------------------------------------------------


def _measure_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Measure neural collapse: of a run, of a model over a data set, or of stored features."
    )
    parser.add_argument("--run", type=str | None, help="run folder made by neuralcollapse train")
    parser.add_argument("--features", type=str | None, help=".safetensors or .npz: features, labels[, weight, bias]")
    parser.add_argument("--model", type=str | None, help="torchvision:NAME, timm:NAME, mlp, ... or FILE.py:FUNCTION")
    parser.add_argument("--checkpoint", type=str | None, help="weights of --model: .ckpt, .pt or .safetensors")
    parser.add_argument("--data", type=str | None, help="data set for --model, as train --dataset names it")
    parser.add_argument("--data_root", type=str | None, help="folder of torchvision's data sets")
    parser.add_argument("--samples_per_class", type=int | None, help="measure on the first n of each class")
    parser.add_argument("--image_size", type=int | None, help="side to which images are resized")
    parser.add_argument(
        "--mean",
        type=str,
        default="",
        help="channel means that --model was trained with, on a scale from 0 to 1: 0.485,0.456,0.406; by default those "
        "in the checkpoint of a run, or of the images",
    )
    parser.add_argument("--std", type=str, default="", help="channel standard deviations, likewise: 0.229,0.224,0.225")
    parser.add_argument("--classifier", type=str | None, help="name of the classifier layer, where it cannot be found")
    parser.add_argument("--layers", type=str, default="", help="inner layers to measure too: layer3,layer4")
    parser.add_argument("--allow_missing", type=bool, default=False, help="measure although classes have no samples")
    parser.add_argument("--json", type=str | None, help="write the numbers to this file as well")
    return parser


_OF_A_MODEL = ("checkpoint", "data", "samples_per_class", "image_size", "mean", "std")
_IDLE = {"model": (), "run": _OF_A_MODEL, "features": (*_OF_A_MODEL, "data_root", "classifier", "layers")}
"""Options that say nothing about what is measured."""


def _measure(options: Namespace) -> None:
    given = [name for name in ("run", "features", "model") if options[name]]
    if len(given) != 1:
        raise ValueError(f"give one of --run, --features and --model, not {' and '.join(given) or 'none'}")
    idle = [f"--{name.replace('_', '-')}" for name in _IDLE[given[0]] if options[name]]
    if idle:
        raise ValueError(f"{', '.join(idle)}: --{given[0]} would ignore that, leave it out")
    from rich.console import Console

    if options.features:
        numbers, table = _measure_features(options)
    else:
        report = _measure_network(options)
        numbers, table = report.to_dict(), report.table()
    Console().print(table)
    if options.json:
        import json

        Path(options.json).write_text(json.dumps(numbers, indent=1) + "\n")


def _measure_features(options: Namespace) -> tuple[dict[str, float | None], Any]:
    from rich.table import Table

    from neuralcollapse import measure_features
    from neuralcollapse.measurement import load_embeddings

    stored = load_embeddings(options.features)
    metrics = measure_features(
        stored["features"],
        stored["labels"],
        stored.get("weight"),
        stored.get("bias"),
        allow_missing=options.allow_missing,
    )
    table = Table("measure", "value", title=f"{options.features}: {len(stored['labels']):,} samples")
    for name, value in metrics.to_dict().items():
        if value is not None:
            table.add_row(name, f"{value:.4g}")
    return metrics.to_dict(), table


def _measure_network(options: Namespace) -> CollapseReport:
    import torch

    from neuralcollapse import measure
    from neuralcollapse.train import load_run
    from neuralcollapse.train.datasets import eval_loader

    if options.run:
        run = load_run(options.run, data_root=options.data_root)
        network, data = run.network, run.data
    else:
        network, data = _build(options)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return measure(
        network,
        eval_loader(data.train),
        classifier=options.classifier and _inside(options.classifier),
        layers=[_inside(name) for name in words(options.layers)],
        device=accelerator,
        allow_missing=options.allow_missing,
    )


def _inside(name: str) -> str:
    """A layer's name in the whole network, whether it was given so (as reports print it) or as the model has it."""
    return name if name.startswith("backbone.") else f"backbone.{name}"


def _build(options: Namespace) -> tuple[ImageNetwork, ImageData]:
    from neuralcollapse.train.config import TrainConfig
    from neuralcollapse.train.datasets import load_images
    from neuralcollapse.train.module import ImageNetwork, build_network, check_fit
    from neuralcollapse.train.run import load_weights

    if not options.data:
        raise ValueError("--model needs --data: the data set to measure on")
    data = load_images(
        options.data,
        options.data_root or "data",
        samples_per_class=options.samples_per_class,
        image_size=options.image_size,
    )
    file, separator, function = options.model.rpartition(":")
    if separator and file.endswith(".py"):
        backbone = _user_model(Path(file), function)
        network = ImageNetwork(backbone, *data.channel_moments(), _channels(backbone, data.image_shape[0]))
        check_fit(network, data, options.model)
    else:
        network = build_network(TrainConfig(dataset=options.data, model=options.model), data)
    if options.checkpoint:
        load_weights(network, options.checkpoint)
    else:
        print("neuralcollapse: no --checkpoint: the weights are as the model starts with", file=sys.stderr)
    if options.mean or options.std:
        network.normalise(
            *(numbers(options[name], f"--{name}", "0.5, or 0.485,0.456,0.406", float) for name in ("mean", "std"))
        )
    return network, data


def _channels(backbone: nn.Module, of_images: int) -> int:
    """As many as the images have; where they are grey, as many as the model's first convolution takes."""
    from torch import nn

    first = next((layer.in_channels for layer in backbone.modules() if isinstance(layer, nn.Conv2d)), of_images)
    return first if of_images == 1 else of_images


def _user_model(file: Path, function: str) -> nn.Module:
    import importlib.util

    from torch import nn

    if not file.is_file():
        raise FileNotFoundError(f"--model: no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise ValueError(f"--model: {file} failed when imported: {type(error).__name__}: {error}") from error
    build = getattr(module, function, None)
    if not callable(build):
        raise ValueError(f"--model: {file} has no function {function!r}")
    model = build()
    if not isinstance(model, nn.Module):
        raise TypeError(f"--model: {function}() gave a {type(model).__name__}, not a torch.nn.Module")
    return model


# ---- savings ---------------------------------------------------------------------------------------


def _savings_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Parameters, gradients, optimizer state and memory of a model: as it is, with a fixed ETF head, "
        "with d = K features, and with both."
    )
    parser.add_argument("model", help="torchvision's name (resnet50), timm:NAME, or FILE.py:FUNCTION")
    parser.add_argument("--classes", type=int | None, help="K; 1000, or the model's own for FILE.py:FUNCTION")
    parser.add_argument("--feature_dim", type=int | None, help="of the smaller features; by default K")
    parser.add_argument("--classifier", type=str | None, help="name of the classifier layer, where it cannot be found")
    parser.add_argument("--memory", type=bool, default=False, help="also run training steps and follow their memory")
    parser.add_argument("--image_size", type=int, default=224, help="of the batch for --memory")
    parser.add_argument("--batch_size", type=int, default=8, help="of the batch for --memory")
    parser.add_argument("--json", type=str | None, help="write the numbers to this file as well")
    return parser


def _savings(options: Namespace) -> None:
    import torch
    from rich.console import Console

    from neuralcollapse import parameter_savings
    from neuralcollapse.nn import build_backbone

    if options.classes is not None and options.classes < 2:
        raise ValueError(f"--classes={options.classes} must be at least 2")
    if options.batch_size < 2 or options.image_size < 1:
        raise ValueError("--batch-size must be at least 2 (for batch normalisation), and --image-size at least 1")
    file, separator, function = options.model.rpartition(":")
    shape = (3, options.image_size, options.image_size)
    if separator and file.endswith(".py"):
        if options.classes is not None:
            raise ValueError("--classes belongs to models made by name: FUNCTION chooses its own")
        model = _user_model(Path(file), function)
    else:
        named = separator or options.model in ("mlp", "convnet")
        model = build_backbone(
            options.model if named else f"torchvision:{options.model}", options.classes or 1000, shape
        )
    inputs = torch.randn(options.batch_size, *shape) if options.memory else None
    savings = parameter_savings(model, inputs=inputs, feature_dim=options.feature_dim, classifier=options.classifier)
    Console().print(savings.table())
    if options.json:
        import json

        Path(options.json).write_text(json.dumps(savings.to_dict(), indent=1) + "\n")


# ---- report ----------------------------------------------------------------------------------------


def _report_parser() -> ArgumentParser:
    parser = ArgumentParser(description="One self-contained HTML page (and figures) of one or more runs.")
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--output", type=str | None, help="the page; by default report.html in the first run")
    parser.add_argument("--classes", type=str, default="0,1,2,3", help="two to four classes for the view in space")
    parser.add_argument("--figures", type=str | None, help="folder for PNG or SVG figures as well")
    parser.add_argument("--format", type=str, default="svg", help="of the figures: svg or png")
    return parser


def _report(options: Namespace) -> None:
    from neuralcollapse.report import write_figures, write_report

    folders = [Path(run) for run in options.runs]
    output = Path(options.output) if options.output else folders[0] / "report.html"
    classes = numbers(options.classes, "--classes", "class numbers such as 0,1,2,3", int)
    print(f"Report: {write_report(folders, output, classes=classes)}")
    if options.figures:
        for path in write_figures(folders, Path(options.figures), classes=classes, format=options.format):
            print(f"Figure: {path}")


if __name__ == "__main__":
    main()
