"""``neuralcollapse train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from neuralcollapse.cli.config_file import ConfigFile
from neuralcollapse.cli.options import writable
from neuralcollapse.names import check_dataset, check_model
from neuralcollapse.train.config import TrainConfig


def train(
    *,
    choices: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008  (it is frozen)
    config: ConfigFile = None,
    print_config: Annotated[bool, Parameter(group="Configuration")] = False,
) -> None:
    """Train a classifier until it collapses, measure every epoch, and draw a report.

    The run folder holds config.yaml, metrics.csv, checkpoints and report.html. What you do not choose follows
    the data set and the optimizer: digits trains for seconds, everything else as in the paper.

    For example:
      neuralcollapse train                                              # handwritten digits: seconds
      neuralcollapse train --dataset mnist --model resnet18 --width 16  # downloads MNIST if it is not there
      neuralcollapse train --optimizer adam --lr 0.0005 --epochs 60     # --lr is short for --learning-rate
      neuralcollapse train --head etf --feature-dim 10                  # the head is a fixed simplex ETF
      neuralcollapse train --config runs/digits-mlp-sgd-seed0/config.yaml --seed 1 --output runs/seed1
      neuralcollapse train --epochs 300 --resume                        # continue a run that was stopped

    Args:
        config: Read options from this YAML file, such as a run's config.yaml; options typed beside it win.
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
    _print_run(folder, read_metrics(folder))
    from neuralcollapse.cli.report import certificate
    from neuralcollapse.report import write_report

    page = write_report([folder], folder / "report.html", certify=certificate)
    print(f"\nReport: {page}\nRun:    {folder}")


def _print_config(choices: TrainConfig, resolved: TrainConfig) -> None:
    """The options as given, so that one changed later still decides what follows from it."""
    import yaml

    follows = resolved.to_dict()
    for name, value in choices.to_dict().items():
        line = yaml.safe_dump({name: value}).strip()
        print(line if value is not None or follows[name] is None else f"{line}  # {follows[name]}")


def _print_run(folder: Path, rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    measured = [row for row in rows if row["nc1"]]
    first, last = measured[0], measured[-1]
    table = Table(title=f"{folder.name}: from epoch {first['epoch']} to {last['epoch']}")
    for column in ("measure", "before", "after", "change"):
        table.add_column(column, justify="left" if column in ("measure", "change") else "right")
    for name in ("nc1", "nc2", "nc3", "nc4", "nc2_means", "cdnv", "ncc_mismatch"):
        if first[name] and last[name]:
            before, after = float(first[name]), float(last[name])
            table.add_row(name.upper(), f"{before:.4g}", f"{after:.4g}", change(before, after))
    for name in ("train_accuracy", "test_accuracy"):
        table.add_row(name.replace("_", " "), f"{float(first[name]):.2%}", f"{float(last[name]):.2%}", "")
    Console().print(table)


def change(before: float, after: float) -> str:
    """How a measure moved, in words.

    >>> change(8.0, 0.5), change(0.027, 1.0), change(2.0, 2.0), change(1.0, 0.0)
    ('fell 16-fold', 'rose 37-fold', 'unchanged', 'fell to 0')
    """
    if before == after:
        return "unchanged"
    if before <= 0 or after <= 0:
        return f"{'fell' if after < before else 'rose'} to {after:.3g}"
    down = after < before
    return f"{'fell' if down else 'rose'} {before / after if down else after / before:.3g}-fold"
