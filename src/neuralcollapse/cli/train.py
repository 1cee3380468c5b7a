"""``neuralcollapse train``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from neuralcollapse.cli.config_file import ConfigFile
from neuralcollapse.cli.options import writable
from neuralcollapse.names import check_dataset, check_model
from neuralcollapse.run_files import REPORT
from neuralcollapse.train.config import TrainConfig


def train(
    *,
    choices: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008  (it is frozen)
    config: ConfigFile = None,
    print_config: Annotated[bool, Parameter(group="Configuration")] = False,
) -> None:
    """Train a classifier until it collapses, measure every epoch, and draw a report.

    The run folder holds config.yaml, metrics.csv, provenance.json, snapshots, checkpoints and report.html. If you
    leave out an option, its value depends on the data set and the optimizer: digits train for half a minute, everything
    else trains as in the paper.

    For example:
      neuralcollapse train                                              # handwritten digits: half a minute
      neuralcollapse train --dataset mnist --model resnet18 --width 16  # downloads MNIST if it is not there
      neuralcollapse train --optimizer adam --lr 0.0005 --epochs 60     # --lr is short for --learning-rate
      neuralcollapse train --head etf --feature-dim 10                  # the head is a fixed simplex ETF
      neuralcollapse train --config runs/digits-mlp-sgd-seed0/config.yaml --seed 1 --output runs/seed1
      neuralcollapse train --epochs 300 --resume                        # continue a run that was stopped

    Args:
        config: Read options from this YAML file, such as a run's config.yaml. The command line overrides it.
        print_config: Print the options as YAML that --config reads, and train nothing.
    """
    check_dataset(choices.dataset)
    resolved = choices.resolved()
    check_model(str(resolved.model))
    if print_config:
        _print_config(choices, resolved)
        return
    writable(resolved.output, "--output", folder=True)
    from neuralcollapse.measurement.ranks import first_process
    from neuralcollapse.measurement.run_folder import read_metrics
    from neuralcollapse.train import train as train_run

    folder = train_run(choices)
    if not first_process():
        return
    from rich.console import Console

    from neuralcollapse.report import write_report
    from neuralcollapse.train.snapshot import last_snapshot
    from neuralcollapse.train.summary import summary_table

    Console().print(summary_table(folder.name, read_metrics(folder), last_snapshot(folder).lowest))
    page = write_report([folder], folder / REPORT)
    print(f"\nReport: {page}\nRun:    {folder}")


def _print_config(choices: TrainConfig, resolved: TrainConfig) -> None:
    """The options as given, so that one changed later still decides what follows from it."""
    import yaml

    follows = resolved.to_dict()
    for name, value in choices.to_dict().items():
        line = yaml.safe_dump({name: value}).strip()
        print(line if value is not None or follows[name] is None else f"{line}  # {follows[name]}")
