"""One epoch of ResNet18 on MNIST, trained and measured, against the loop that published scripts run.

The published loop, written anew: per-sample torchvision transforms in a DataLoader, default memory format, an
extra evaluation pass a step for the running accuracy (it records a graph, as theirs does), then two measuring
passes, the second with an outer product a sample. The script of Zhu et al. loads with one worker process when it
trains on some samples a class; the second row spares the published loop that process, which costs more than it
gives at 1,000 images. Needs MNIST in torchvision's layout: NEURALCOLLAPSE_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

from neuralcollapse import measure
from neuralcollapse.train import TrainConfig, load_images
from neuralcollapse.train.datasets import ImageData, eval_loader, train_loader
from neuralcollapse.train.module import ClassifierModule, build_network

ROOT = Path(os.environ.get("NEURALCOLLAPSE_DATA", "../shared/data"))


def main() -> None:
    """Alternate the two, print the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 samples a class, one repeat")
    quick = parser.parse_args().quick
    if not (ROOT / "MNIST" / "raw").is_dir():
        raise SystemExit(f"no MNIST under {ROOT}: set NEURALCOLLAPSE_DATA")
    samples, repeats = (20, 1) if quick else (100, 5)
    config = TrainConfig(dataset="mnist", model="resnet18").resolved()
    data = load_images("mnist", ROOT, samples_per_class=samples)
    transform = transforms.Compose(
        [
            transforms.Grayscale(3),
            transforms.Resize(32),
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,)),
        ]
    )
    published = Subset(torchvision.datasets.MNIST(ROOT, transform=transform), chosen_rows(samples))
    table = Table(
        title=f"One epoch of ResNet18 on MNIST (torch {torch.__version__}, {torch.get_num_threads()} threads)"
    )
    for column in ("published loop", "samples", "ours s", "published s", "times faster", "bound"):
        table.add_column(column)
    for name, workers in (("one worker, as published", 1), ("no worker", 0)):
        pairs = []
        for repeat in range(repeats + 1):
            pair = (our_epoch(config, data), published_epoch(published, workers))
            if repeat:  # the first round warms up
                pairs.append(pair)
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(slow / fast for fast, slow in pairs)
        table.add_row(name, str(10 * samples), f"{ours:.2f}", f"{theirs:.2f}", f"{ratio:.2f}", "3")
    Console(width=120).print(table)


def chosen_rows(samples: int) -> list[int]:
    """The first samples of each class, as --samples-per-class takes them."""
    targets = torchvision.datasets.MNIST(ROOT).targets
    rows = [(targets == label).nonzero().flatten()[:samples] for label in range(10)]
    return torch.cat(rows).sort().values.tolist()


def our_epoch(config: TrainConfig, data: ImageData) -> float:
    """Seconds of an epoch of this package's module, and of measure()."""
    module = ClassifierModule(build_network(config, data), config)
    network = module.network.train()
    optimizer = module.configure_optimizers()["optimizer"]
    start = time.perf_counter()
    for pixels, labels in train_loader(data.train, 128, seed=0):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pixels), labels).backward()
        optimizer.step()
    measure(network, eval_loader(data.train), progress=False)
    return time.perf_counter() - start


def published_epoch(data: Subset, workers: int) -> float:
    """Seconds of an epoch as published scripts train and measure it."""
    network = torchvision.models.resnet18(num_classes=10)
    captured: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0].detach()))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    start = time.perf_counter()
    for images, labels in DataLoader(data, 128, shuffle=True, num_workers=workers):
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        network.eval()
        (network(images).argmax(1) == labels).float().mean()  # the running accuracy
    network.eval()
    sums, count = torch.zeros(10, 512), torch.zeros(10)
    with torch.no_grad():
        for images, labels in DataLoader(data, 128, num_workers=workers):
            captured.clear()
            network(images)
            for feature, label in zip(captured[0], labels, strict=True):
                sums[label] += feature
                count[label] += 1
        means = sums / count[:, None]
        within = torch.zeros(512, 512)
        for images, labels in DataLoader(data, 128, num_workers=workers):
            captured.clear()
            network(images)
            for feature, label in zip(captured[0], labels, strict=True):
                centred = feature - means[label]
                within += torch.outer(centred, centred)
        centred_means = means - means.mean(0)
        between = centred_means.T @ centred_means / 10
        (within / len(data) @ torch.linalg.pinv(between)).trace()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
