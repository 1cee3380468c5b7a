"""A training step of ResNet18 on MNIST, replayed as a graph, against the usual step on the same accelerator.

Needs an accelerator of CUDA or ROCm, and MNIST in torchvision's layout: NEURALCOLLAPSE_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from neuralcollapse.train import ImageData, TrainConfig, load_images
from neuralcollapse.train.datasets import train_loader
from neuralcollapse.train.graphs import can_capture
from neuralcollapse.train.module import ClassifierModule, build_network

ROOT = Path(os.environ.get("NEURALCOLLAPSE_DATA", "../shared/data"))
WARM_UP = 20
"""Steps before the clock starts."""


def main() -> None:
    """Alternate the two, print the medians and the ratio, and how far the weights of both trainings are apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="width 16 alone, two repeats of 40 steps")
    parser.add_argument("--json", type=Path, help="file for the table")
    chosen = parser.parse_args()
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not can_capture(accelerator):
        print("no accelerator of CUDA or ROCm: nothing to compare")
        return
    data = load_images("mnist", ROOT)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = []
    for width in (16,) if chosen.quick else (16, 64):
        for precision in ("32-true", "bf16-mixed"):
            rows.append(compare(data, width, precision, *(2, 40) if chosen.quick else (3, 120)))
    table = Table(title=f"A step of ResNet18 on {torch.cuda.get_device_name()} (torch {torch.__version__})")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)
    if chosen.json:
        record = {"device": torch.cuda.get_device_name(), "torch": str(torch.__version__), "rows": rows}
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")


def compare(data: ImageData, width: int, precision: str, repeats: int, steps: int) -> dict[str, Any]:
    """Milliseconds per step of both; and the relative distance of their weights, beside that of two usual trainings."""
    usual, captured, weights = [], [], {}
    for _ in range(repeats):
        for capture, times in ((False, usual), (True, captured)):
            milliseconds, found = trained(data, width, precision, steps, capture)
            times.append(milliseconds)
            weights.setdefault(capture, []).append(found)
    return {
        "width": width,
        "precision": precision,
        "usual ms": statistics.median(usual),
        "captured ms": statistics.median(captured),
        "times faster": statistics.median(a / b for a, b in zip(usual, captured, strict=True)),
        "captured - usual": distance(weights[True][0], weights[False][0]),
        "usual - usual again": distance(weights[False][1], weights[False][0]),
    }


def trained(data: ImageData, width: int, precision: str, steps: int, capture: bool) -> tuple[float, torch.Tensor]:
    """Milliseconds per step after the first ones, and the weights at the end."""
    options: dict[str, Any] = {"width": width, "precision": precision, "capture": capture}
    config = TrainConfig(dataset="mnist", **options).resolved()
    module = ClassifierModule(build_network(config, data), config)
    trainer = L.Trainer(
        devices=1, precision=config.precision, max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock := Clock()],
    )  # fmt: skip
    trainer.fit(module, train_loader(data.train.on(trainer.strategy.root_device), int(config.batch_size or 1), 0))
    torch.cuda.synchronize()
    milliseconds = 1e3 * (time.perf_counter() - clock.start) / (steps - WARM_UP)
    return milliseconds, torch.cat([weight.detach().double().flatten() for weight in module.parameters()]).cpu()


class Clock(L.Callback):
    """Starts after the first steps."""

    start = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Note the time."""
        if trainer.global_step == WARM_UP:
            torch.cuda.synchronize()
            self.start = time.perf_counter()


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Relative to the length of the second."""
    return float((first - second).norm() / second.norm())


if __name__ == "__main__":
    main()
