"""A training step of ResNet18 on images of 28x28, with PyTorch's convolutions and with products on small maps.

The network is the paper's for MNIST (width 64, the stem for large images), the batch has 128 images, and a step is
forward, backward and SGD. Both networks are in channels_last and begin with the same weights. One row for each
precision that the processor computes in.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch
from machine import environment
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neuralcollapse.nn import build_backbone, multiply_small_maps
from neuralcollapse.train.precision import autocast, emulated

HERE = torch.get_default_device()


def main() -> None:
    """Alternate the two networks; print and keep the medians and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="width 8, three steps, for a check that it runs")
    parser.add_argument("--json", type=Path, help="where to write the medians")
    options = parser.parse_args()
    torch.manual_seed(0)
    plain = build_backbone("resnet18", 10, (3, 28, 28), width=8 if options.quick else None)
    plain = plain.to(memory_format=torch.channels_last)
    networks = {"PyTorch": plain, "products": multiply_small_maps(copy.deepcopy(plain))}
    optimizers = {
        name: torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
        for name, network in networks.items()
    }
    images = torch.randn(128, 3, 28, 28).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(128) % 10
    table = Table(title=f"ms per step of ResNet18, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for column in ("precision", *networks, "times faster"):
        table.add_column(column)
    kept = []
    for precision in ("32-true", "bf16-mixed"):
        if emulated(precision, HERE):
            continue
        rounds = []
        for repeat in range(4 if options.quick else 31):
            pair = [step(networks[name], optimizers[name], images, labels, precision) for name in networks]
            if repeat:  # the first round warms up
                rounds.append(pair)
        medians = [1000 * statistics.median(side) for side in zip(*rounds, strict=True)]
        ratio = statistics.median(theirs / ours for theirs, ours in rounds)
        table.add_row(precision, *(f"{median:.1f}" for median in medians), f"{ratio:.2f}")
        kept.append({"precision": precision, "times_faster": ratio} | dict(zip(networks, medians, strict=True)))
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "ms_per_step": kept}, indent=1) + "\n")


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, precision: str) -> float:
    """Seconds of one step."""
    begun = time.perf_counter()
    optimizer.zero_grad()
    with autocast(precision, HERE):
        loss = cross_entropy(network(images).float(), labels)
    loss.backward()
    optimizer.step()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
