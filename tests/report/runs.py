"""Run folders that collapse before one's eyes, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralcollapse.measurement.run_folder import write_config, write_metrics
from neuralcollapse.measurement.snapshots import write_snapshot


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    epochs: int = 4,
    classes: int = 5,
    config: dict[str, Any] | None = None,
    columns: dict[str, float] | None = None,
    snapshots: bool = True,
) -> Path:
    """A run whose NC1 falls tenfold per epoch and whose means go to the simplex; NC4 rises."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal((classes, classes + 2))
    end = np.eye(classes, classes + 2)
    labels = np.repeat(np.arange(classes), 6)
    noise = rng.standard_normal((len(labels), classes + 2))
    rows = []
    folder.mkdir(parents=True)
    for epoch in range(epochs + 1):
        share = epoch / epochs
        rows.append(
            {"epoch": epoch, "learning_rate": 0.1 if epoch < 3 else 0.01, "train_accuracy": 0.2 + 0.8 * share,
             "nc1": (1 + seed / 10) * 10.0**-epoch, "nc2": 0.5 - 0.4 * share, "nc3": 1 - 0.9 * share,
             "nc4": 0.1 + share}
            | {name: value * 2.0**-epoch for name, value in (columns or {}).items()}
        )  # fmt: skip
        if snapshots:
            means = (1 - share) * start + share * end
            centre = means.mean(0)
            features = means[labels] + 0.5 * (1 - share) * noise
            tensors = {
                "weight": (1 - share) * start[::-1] + share * end, "bias": np.zeros(classes), "class_means": means,
                "global_mean": centre, "sample_products": (features - centre) @ (means - centre).T,
                "sample_labels": labels,
            }  # fmt: skip
            write_snapshot(folder, epoch, {name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    write_metrics(folder, rows)
    if config is not None:
        write_config(folder, config)
    return folder
