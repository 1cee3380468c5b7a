"""The measures against matrix products: features and streams against X'X, all pairs of classes against K x K."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import environment
from rich.console import Console
from rich.table import Table

from neuralcollapse import ClassStatistics, Moments, collapse_metrics, measure_features

RESULTS = Path(__file__).parent / "results" / "geometry.json"


def main() -> None:
    """Time each claim beside its Gram product, alternating, and print the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller features, for a check that it runs")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name}")
    chosen = parser.parse_args()
    quick = chosen.quick
    repeats = 2 if quick else 5
    table = Table(title=f"Cost in matrix products (torch {torch.__version__}, {torch.get_num_threads()} threads)")
    for column in ("claim", "N", "d", "K", "seconds", "product s", "ratio", "bound"):
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

    classes, dim = (6_000, 256) if quick else (20_000, 256)
    moments, weight = many_classes(classes, dim)
    row = compare(lambda: collapse_metrics(moments, weight), moments.means.float(), 1 if quick else 3, pair_product)
    table.add_row(
        "collapse_metrics of many classes, in K x K products", str(classes), *row[1:2], str(classes), *row[3:], "3"
    )
    Console(width=140).print(table)
    if chosen.keep:
        names = [str(column.header) for column in table.columns]
        rows = [dict(zip(names, cells, strict=True)) for cells in zip(*(c.cells for c in table.columns), strict=True)]
        record = {"environment": environment(), "claims": rows}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def collapsed_features(samples: int, dim: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class means plus a tenth of their scale in noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % num_classes
    means = torch.randn(num_classes, dim, generator=generator)
    return means[labels] + 0.1 * torch.randn(samples, dim, generator=generator), labels


def many_classes(num_classes: int, dim: int) -> tuple[Moments, torch.Tensor]:
    """Moments of two samples per class, and a classifier."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2 * num_classes) % num_classes
    features = torch.randn(num_classes, dim, generator=generator)[labels]
    features = features + 0.1 * torch.randn(features.shape, generator=generator)
    return Moments.from_features(features, labels), torch.randn(num_classes, dim, generator=generator)


def gram(features: torch.Tensor) -> None:
    """X'X in float32."""
    _ = features.T @ features


def pair_product(vectors: torch.Tensor) -> None:
    """VV' in float32, some rows at a time."""
    for rows in vectors.split(1024):
        _ = rows @ vectors.T


def compare(
    task: Callable[[], object],
    features: torch.Tensor,
    repeats: int,
    product: Callable[[torch.Tensor], None] = gram,
) -> list[str]:
    """Table cells: N, d, K, the median seconds of both sides, the median of their ratios."""
    pairs = []
    for repeat in range(repeats + 1):
        pair = (seconds(task), seconds(lambda: product(features)))
        if repeat:  # the first round warms up
            pairs.append(pair)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(mine / other for mine, other in pairs)
    return [str(len(features)), str(features.shape[1]), "10", f"{ours:.3f}", f"{theirs:.3f}", f"{ratio:.3f}"]


def seconds(task: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
