"""Which images of a data set are measured: its training split, its test split, or all."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

import torch

from neuralcollapse.train.datasets import ImageData, Split, check_samples, decoded, first_of_each_class
from neuralcollapse.train.image_folder import split_folders
from neuralcollapse.train.sources import read_source

Choice = Literal["train", "test", "all"]


def has_splits(dataset: str) -> bool:
    """Whether the data set says itself what is for training: a folder without train/ and test/ does not."""
    source, _, path = dataset.partition(":")
    if source != "imagefolder":
        return True
    return split_folders(Path(os.path.expanduser(path))) is not None


def load_split(
    dataset: str,
    data_root: str | Path = "data",
    *,
    choice: Choice,
    samples_per_class: int | None = None,
    image_size: int | None = None,
) -> tuple[ImageData, Split]:
    """Load a data set, and the images of it that are chosen.

    Args:
        dataset: as :func:`~neuralcollapse.train.load_images` names it.
        data_root: folder of torchvision's data sets.
        choice: ``all`` is both splits together; the data set that is returned then holds all for training.
        samples_per_class: choose n of each class.
        image_size: side to resize to.

    Raises:
        ValueError: as :func:`~neuralcollapse.train.load_images`.
        FileNotFoundError: if the data is not there and cannot be downloaded.
        ImportError: if ``hf:`` is asked for without the extra.
    """
    check_samples(samples_per_class=samples_per_class)
    train, test = read_source(dataset, data_root)
    rows = (
        first_of_each_class(train, samples_per_class if choice == "train" else None, "training"),
        first_of_each_class(test, samples_per_class if choice == "test" else None, "test"),
    )
    data = decoded(dataset, (train, test), rows, image_size)
    if choice != "all":
        return data, getattr(data, choice)
    both = joined(data, samples_per_class)
    return dataclasses.replace(data, train=both), both


def joined(data: ImageData, samples_per_class: int | None = None) -> Split:
    """Both splits as one, or n samples of each class of it.

    Raises:
        ValueError: if a class has fewer samples, or less than one is asked for.
    """
    check_samples(samples_per_class=samples_per_class)
    pixels = torch.cat([data.train.pixels, data.test.pixels])
    labels = torch.cat([data.train.labels, data.test.labels])
    if samples_per_class is None:
        return Split(pixels, labels)
    kept = []
    for index, name in enumerate(data.classes):
        members = (labels == index).nonzero().flatten()
        if len(members) < samples_per_class:
            raise ValueError(
                f"samples_per_class={samples_per_class}, but class {name!r} has only {len(members)} samples"
            )
        kept.append(members[:samples_per_class])
    rows = torch.cat(kept).sort().values
    return Split(pixels[rows], labels[rows])
