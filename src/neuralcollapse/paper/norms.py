"""Norms and loss of a network by epoch, beside those of the unconstrained model's optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralcollapse.paper.optimality import Norms, Optimality, certify_snapshot
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.snapshot import read_snapshots


@dataclass(frozen=True)
class Comparison:
    """A run beside the theory."""

    epochs: list[int]
    measured: list[Norms]
    """By epoch; the loss is that of training."""
    last: Optimality | None
    """The last epoch's certificate; None where the run has no λ's: a fixed classifier hardly trained."""


def compare(run: Outcome) -> Comparison:
    """Norms of a run by epoch, and its certificate after the last one.

    Raises:
        FileNotFoundError: if the run has no snapshot.
        ValueError: if a snapshot is damaged.
    """
    losses = {int(row["epoch"]): row.get("train_loss") for row in run.rows}
    found = [snapshot for snapshot in read_snapshots(run.folder) if snapshot.epoch in losses]
    measured = [
        Norms(float(np.linalg.norm(one.weight)), float(np.linalg.norm(one.means)), losses[one.epoch]) for one in found
    ]
    try:
        last = certify_snapshot(run.config, found[-1])
    except ValueError:
        last = None
    return Comparison([one.epoch for one in found], measured, last)
