"""The canonical fixed head against nn.Linear: K = d = 10,000, a batch of 256, forward and backward."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuralcollapse import ETFClassifier

BOUND = 50


class LargestTensor(TorchDispatchMode):
    """The most elements any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at its results."""
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, torch.Tensor):
                self.largest = max(self.largest, part.untyped_storage().nbytes() // part.element_size())
        return result


def main() -> None:
    """Time both heads, alternating, and follow what they allocate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="K = d = 2,000, for a check that it runs")
    quick = parser.parse_args().quick
    size = 2_000 if quick else 10_000
    heads = [nn.Linear(size, size), ETFClassifier(size, size)]
    features = torch.randn(256, size)
    upstream = torch.randn(256, size)
    times: list[list[float]] = [[], []]
    for repeat in range(4 if quick else 8):
        for head, kept in zip(heads, times, strict=True):
            seconds = step(head, features, upstream)
            if repeat:  # the first round warms up
                kept.append(seconds)
    table = Table(title=f"forward + backward, K = d = {size:,}, batch 256, {torch.get_num_threads()} threads")
    for column in ("head", "median s", "largest tensor", "ratio", "bound"):
        table.add_column(column)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    for head, kept in zip(heads, times, strict=True):
        with LargestTensor() as seen:
            step(head, features, upstream)
        fixed = isinstance(head, ETFClassifier)
        cells = [f"{ratio:.0f}x", "" if quick else f"{BOUND}x"] if fixed else ["", ""]
        table.add_row(type(head).__name__, f"{statistics.median(kept):.5f}", f"{seen.largest:,}", *cells)
        if fixed and seen.largest >= size * size:
            raise SystemExit(f"the fixed head allocated {seen.largest:,} numbers: a K x d matrix")
    Console(width=120).print(table)
    if not quick and ratio < BOUND:
        raise SystemExit(f"{ratio:.0f} times, under {BOUND}")


def step(head: nn.Module, features: torch.Tensor, upstream: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    leaf = features.clone().requires_grad_()
    head.zero_grad()
    start = time.perf_counter()
    head(leaf).backward(upstream)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
