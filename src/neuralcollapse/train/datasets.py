"""Image data, each split decoded once into one uint8 tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from neuralcollapse.train.seeds import mix
from neuralcollapse.train.sources import RawSplit, read_source

_RESIDENT_BYTES = 8 << 30
"""Larger splits stay on the host and travel batch by batch."""

_EVALUATED_PIXELS = 2048 * 32 * 32
"""Of the images that an accelerator evaluates at once, per channel."""

FEWEST_TESTED = 100
"""Test images per class that the default keeps, however few there are to train on."""


def most_tested(samples_per_class: int | None) -> int | None:
    """Test images per class that the default keeps at most; None for all, where all are trained on.

    >>> most_tested(20), most_tested(500), most_tested(None)
    (100, 500, None)
    """
    return None if samples_per_class is None else max(samples_per_class, FEWEST_TESTED)


class Split(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels of a split, fetched a batch at a time."""

    def __init__(self, pixels: UInt8[Tensor, "N C H W"], labels: Int[Tensor, " N"]) -> None:
        self.pixels = pixels
        self.labels = labels

    def on(self, device: torch.device) -> Split:
        """The split in the memory of a device, where a batch is then one gather; as it is where it does not fit."""
        if device == self.pixels.device or self.pixels.nbytes > _RESIDENT_BYTES:
            return self
        try:
            return Split(self.pixels.to(device), self.labels.to(device))
        except torch.OutOfMemoryError:
            return self

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pixels[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        # CUDA takes the indices without waiting for the step before to end; on MPS they could be gone by then.
        chosen = torch.tensor(indices).to(self.pixels.device, non_blocking=self.pixels.is_cuda)
        return self.pixels[chosen], self.labels[chosen]


@dataclass(frozen=True)
class ImageData:
    """A data set of small images in memory."""

    train: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def channel_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel over the training images, as shares of 255."""
        totals = torch.zeros(2, self.image_shape[0], dtype=torch.float64)
        for part in self.train.pixels.split(4096):
            values = part.double() / 255
            totals += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        mean, square = totals * self.image_shape[0] / self.train.pixels.numel()
        return mean.float(), (square - mean.square()).clamp(min=1e-12).sqrt().float()


def train_loader(split: Split, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> DataLoader[Any]:
    """Shuffled batches of this rank; the order follows from the seed and the epoch alone."""
    sampler: DistributedSampler[Any] = DistributedSampler(split, num_replicas=world, rank=rank, seed=mix(seed) >> 2)
    size = batch_size // world
    lonely = len(sampler) % size == 1 and len(sampler) > 1  # batch normalisation cannot train on one sample
    return DataLoader(split, size, sampler=sampler, drop_last=lonely, collate_fn=_as_is)


def eval_loader(split: Split, batch_size: int | None = None, rank: int = 0, world: int = 1) -> DataLoader[Any]:
    """All samples in order, each on exactly one rank.

    By default in batches that stay in a host's cache, or that keep an accelerator busy.
    """
    if batch_size is None:
        height, width = split.pixels.shape[2:]
        batch_size = 256 if split.pixels.is_cpu else max(64, min(2048, _EVALUATED_PIXELS // (height * width)))
    return DataLoader(split, batch_size, sampler=_Every(rank, world, len(split)), collate_fn=_as_is)


class _Every(Sampler[int]):
    """Every world-th index from rank on: unlike DistributedSampler it repeats none."""

    def __init__(self, rank: int, world: int, length: int) -> None:
        self._indices = range(rank, length, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def _as_is(batch: Any) -> Any:
    return batch


def load_images(
    dataset: str,
    data_root: str | Path = "data",
    *,
    samples_per_class: int | None = None,
    test_samples_per_class: int | Literal["auto"] | None = None,
    image_size: int | None = None,
    random_labels: bool = False,
) -> ImageData:
    """Load a data set into memory.

    Args:
        dataset: one of ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``,
            ``imagefolder:PATH`` (PATH/train/CLASS/*.png and PATH/test or PATH/val; without these two
            folders a fifth of PATH/CLASS/* is kept for testing) and ``hf:ID_OR_PATH`` (tested on the first of its
            splits test, validation, valid and val that hides no label).
        data_root: folder of torchvision's data sets; what is not there is downloaded.
        samples_per_class: keep the first n training samples of each class.
        test_samples_per_class: keep the first n test samples of each class; ``"auto"``: at most as many as training
            samples, or 100 where those are fewer.
        image_size: side to resize to.
        random_labels: give the training images labels in random order; as many of each class as before.

    Raises:
        ValueError: if the data set is unknown, damaged or hides its labels, or a class has fewer samples than asked
            for, or less than one is asked for.
        FileNotFoundError: if the data is not there and cannot be downloaded.
        ImportError: if ``hf:`` is asked for without the extra.

    >>> load_images("digits", samples_per_class=5).image_shape
    (1, 8, 8)
    """
    splits, rows = _chosen(dataset, data_root, samples_per_class, test_samples_per_class)
    return decoded(dataset, splits, rows, image_size, random_labels=random_labels)


def _chosen(
    dataset: str,
    data_root: str | Path,
    samples_per_class: int | None,
    test_samples_per_class: int | Literal["auto"] | None,
) -> tuple[tuple[RawSplit, RawSplit], tuple[np.ndarray, np.ndarray]]:
    """The training and test split as they are stored, and the rows of each that are asked for."""
    check_samples(samples_per_class=samples_per_class, test_samples_per_class=test_samples_per_class)
    train, test = read_source(dataset, data_root)
    chosen = first_of_each_class(train, samples_per_class, "training")
    if test_samples_per_class == "auto":
        test_rows = _at_most_of_each_class(test, most_tested(samples_per_class))
    else:
        test_rows = first_of_each_class(test, test_samples_per_class, "test", "test_samples_per_class")
    return (train, test), (chosen, test_rows)


def decoded(
    dataset: str,
    splits: tuple[RawSplit, RawSplit],
    rows: tuple[np.ndarray, np.ndarray],
    image_size: int | None,
    *,
    random_labels: bool = False,
) -> ImageData:
    """The chosen rows of the training and test split in memory, as :func:`load_images` gives them.

    Raises:
        ValueError: if an image is damaged.
    """
    (train, test), (chosen, test_rows) = splits, rows
    source = dataset.partition(":")[0]
    if image_size is None and source not in ("digits", "imagefolder", "hf"):
        image_size = 32
    if image_size is None and source in ("imagefolder", "hf"):
        first = train.decode(chosen[:1])
        image_size = 32 if first[0].shape[1:] == (32, 32) else 64
    labels = train.labels[chosen]
    if random_labels:  # part of the data, like the split: the run's seed does not change it
        labels = np.random.default_rng(0).permutation(labels)
    return ImageData(
        Split(_stack(train.decode(chosen), image_size), torch.from_numpy(labels)),
        Split(_stack(test.decode(test_rows), image_size), torch.from_numpy(test.labels[test_rows])),
        tuple(train.classes),
    )


def split_sizes(
    dataset: str,
    data_root: str | Path = "data",
    *,
    samples_per_class: int | None = None,
    test_samples_per_class: int | Literal["auto"] | None = None,
) -> tuple[int, int]:
    """How many training and test images :func:`load_images` would give; no image is decoded. It raises the same.

    >>> split_sizes("digits", test_samples_per_class=5)
    (1437, 50)
    """
    chosen, test_rows = _chosen(dataset, data_root, samples_per_class, test_samples_per_class)[1]
    return len(chosen), len(test_rows)


def check_samples(**asked: int | str | None) -> None:
    """Refuse to keep less than one sample of each class.

    Raises:
        ValueError: naming the argument.
    """
    for name, samples in asked.items():
        if isinstance(samples, int) and samples < 1:
            raise ValueError(f"{name}={samples} must be at least 1")


def first_of_each_class(
    split: RawSplit, samples: int | None, kind: Literal["training", "test"], argument: str = "samples_per_class"
) -> np.ndarray:
    """Rows of the first n samples of each class, or of all.

    Args:
        split: to choose from.
        samples: n.
        kind: of the samples, for errors.
        argument: that says n, for errors.

    Raises:
        ValueError: if a class has fewer.
    """
    rows = np.arange(len(split.labels))
    if samples is None:
        return rows
    keep = []
    for index, name in enumerate(split.classes):
        members = rows[split.labels == index]
        if len(members) < samples:
            raise ValueError(f"{argument}={samples}, but class {name!r} has only {len(members)} {kind} samples")
        keep.append(members[:samples])
    return np.sort(np.concatenate(keep))


def _at_most_of_each_class(split: RawSplit, samples: int | None) -> np.ndarray:
    kept = [np.flatnonzero(split.labels == index)[:samples] for index in range(len(split.classes))]
    return np.sort(np.concatenate(kept))


def _stack(images: Tensor | list[Tensor], size: int | None) -> Tensor:
    from torchvision.transforms.v2 import functional

    if size is not None and not (isinstance(images, Tensor) and images.shape[2:] == (size, size)):
        if isinstance(images, Tensor):
            parts = [functional.resize(part, [size, size]) for part in images.split(4096)]
            return torch.cat(parts)
        images = [functional.resize(image, [size, size]) for image in images]
    return images if isinstance(images, Tensor) else torch.stack(images)
