"""measure_features and ClassStatistics against one float32 Gram product X'X of the same features."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from neuralcollapse import ClassStatistics, measure_features


def main() -> None:
    """Time each claim beside its Gram product, alternating, and print the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller features, for a check that it runs")
    quick = parser.parse_args().quick
    repeats = 2 if quick else 5
    table = Table(title=f"Cost in Gram products (torch {torch.__version__}, {torch.get_num_threads()} threads)")
    for column in ("claim", "N", "d", "K", "seconds", "Gram s", "ratio", "bound"):
        table.add_column(column)

    samples, dim = (10_000, 512) if quick else (50_000, 2048)
    features, labels = collapsed_features(samples, dim, 10)
    claims = [("measure_features", features, lambda: measure_features(features, labels), 0.15)]
    for name, data, task, bound in claims:
        table.add_row(name, *compare(task, data, repeats), f"{bound}")

    samples, dim = (12_800, 256) if quick else (60_000, 512)
    streamed, streamed_labels = collapsed_features(samples, dim, 10)

    def stream() -> None:
        gathered = ClassStatistics(10, dim)
        for x, y in zip(streamed.split(256), streamed_labels.split(256), strict=True):
            gathered.update(x, y)
        gathered.within_covariance.sum()

    table.add_row("ClassStatistics, batches of 256", *compare(stream, streamed, repeats), "1.5")
    Console(width=120).print(table)


def collapsed_features(samples: int, dim: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class means plus a tenth of their scale in noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % num_classes
    means = torch.randn(num_classes, dim, generator=generator)
    return means[labels] + 0.1 * torch.randn(samples, dim, generator=generator), labels


def compare(task: Callable[[], object], features: torch.Tensor, repeats: int) -> list[str]:
    """Table cells: N, d, K, the median seconds of both sides, the median of their ratios."""
    pairs = []
    for repeat in range(repeats + 1):
        pair = (seconds(task), seconds(lambda: features.T @ features))
        if repeat:  # the first round warms up
            pairs.append(pair)
    ours, gram = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    return [str(len(features)), str(features.shape[1]), "10", f"{ours:.3f}", f"{gram:.3f}", f"{ratio:.3f}"]


def seconds(task: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
