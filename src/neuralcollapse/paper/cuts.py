"""What a run leaves out of the paper's protocol, in words that stand beside each of its numbers."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.paper.experiments import SCALES
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.train.datasets import most_tested

_WIDTH = 64
"""Of the first stage of the paper's ResNets."""


def cut(run: Outcome) -> str:
    """Such as ``width 16 of 64, 50 of 200 epochs``; empty for the paper's own protocol."""
    paper = run.experiment.config(SCALES["full"], sources={}, data_root="", output=Path())
    config, said = run.config, []
    if config.width != paper.width:
        said.append(f"width {config.width} of {paper.width or _WIDTH}")
    if config.epochs != paper.epochs:
        said.append(f"{config.epochs} of {paper.epochs} epochs")
    if config.samples_per_class is not None:
        said.append(f"{config.samples_per_class} images per class")
    if config.batch_size != paper.batch_size:
        said.append(f"batches of {config.batch_size}")
    if config.precision != paper.precision:
        said.append(config.precision)
    _, tested = images(run)
    if tested is not None:
        said.append(f"{tested} test images per class")
    return ", ".join(said)


def images(run: Outcome) -> tuple[int | None, int | None]:
    """Training and test images per class of a run; None where it has all."""
    trained, tested = run.config.samples_per_class, run.config.test_samples_per_class
    if tested == "auto":
        return trained, most_tested(trained)
    return trained, None if tested == "all" else tested


def named(run: Outcome) -> str:
    """A variant with its cut in brackets."""
    said = cut(run)
    return f"{run.experiment.variant} ({said})" if said else run.experiment.variant
