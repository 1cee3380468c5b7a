"""Where images come from: embedded digits, torchvision, folders of files, the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from neuralcollapse.extras import missing
from neuralcollapse.files import remove_empty
from neuralcollapse.names import LAYOUT, check_dataset
from neuralcollapse.train.image_folder import TEST_SPLITS, image_files, read_image, rgb, split_folders, split_rows


@dataclass(frozen=True)
class RawSplit:
    """A split before its images are decoded."""

    decode: Callable[[np.ndarray], Tensor | list[Tensor]]
    """uint8 images (C, H, W) of the rows asked for; one tensor (N, C, H, W) where they share a size."""
    labels: np.ndarray
    classes: Sequence[str]


_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""Torchvision's names."""


def read_source(dataset: str, data_root: str | Path) -> tuple[RawSplit, RawSplit]:
    """Training and test split of a data set by its name, as :func:`neuralcollapse.train.datasets.load_images` takes it.

    Raises:
        ValueError: if the data set is unknown or damaged, or hides its labels.
        FileNotFoundError: if the data is not there and cannot be downloaded.
        ImportError: if ``hf:`` is asked for without the extra.
    """
    check_dataset(dataset)
    source, _, path = dataset.partition(":")
    path, data_root = os.path.expanduser(path), os.path.expanduser(data_root)
    readers: dict[str, Callable[[], Iterator[RawSplit]]] = {
        "digits": _digits,
        **{name: partial(_torchvision, name, data_root) for name in _CLASSES},
        "imagefolder": lambda: _imagefolder(path),
        "hf": lambda: _hugging_face(path),
    }
    train, test = readers[source]()
    return train, test


def _from_tensor(pixels: Tensor, labels: Any, classes: Sequence[str]) -> RawSplit:
    return RawSplit(lambda rows: pixels[torch.from_numpy(rows)], np.asarray(labels, dtype=np.int64), classes)


def _digits() -> Iterator[RawSplit]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels = torch.from_numpy((data.images * (255 / 16)).round().astype(np.uint8))[:, None]
    classes = [str(name) for name in data.target_names]
    # The split is part of the data set: it does not follow the run's seed.
    parts = train_test_split(np.arange(len(pixels)), test_size=0.2, stratify=data.target, random_state=0)
    for rows in parts:
        yield _from_tensor(pixels[torch.from_numpy(rows)], data.target[rows], classes)


def _torchvision(dataset: str, root: str | Path) -> Iterator[RawSplit]:
    import torchvision.datasets

    name = _CLASSES[dataset]
    kind = getattr(torchvision.datasets, name)
    if not Path(root).is_dir() and Path(root) != Path("data"):
        raise FileNotFoundError(
            f"there is no folder {Path(root).resolve()}: correct data_root, or make that folder to download {name}"
        )
    for train in (True, False):
        try:
            try:
                data = kind(root, train=train, download=False)
            except RuntimeError:  # torchvision's word for "not there"
                data = _downloaded(kind, root, train)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"no {name} under {Path(root).resolve()}, and it could not be downloaded: {_reason(error)}. Connect to "
                f"a network for the first use, or point data_root at a folder that holds {LAYOUT[dataset]}"
            ) from error
        except ValueError as error:
            raise ValueError(f"the {name} files under {Path(root).resolve()} are damaged: {error}") from error
        pixels = torch.as_tensor(data.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        yield _from_tensor(pixels, data.targets, data.classes)


def _reason(error: Exception) -> str:
    """Why a download failed: what the network said, without the addresses that were tried."""
    said = " ".join(str(error).split())
    network = re.search(r"<urlopen error (?:\[Errno -?\d+\] )?(.+?)>", said)
    return network[1] if network else said


def _downloaded(kind: Any, root: str | Path, train: bool) -> Any:
    """Download a data set, one process of this machine at a time: the others find it when their turn comes."""
    made = not Path(root).exists()
    Path(root).mkdir(exist_ok=True)
    lock = Path(root) / f".{kind.__name__}.lock"
    try:
        with FileLock(lock):
            return kind(root, train=train, download=True)
    finally:
        lock.unlink(missing_ok=True)
        own = Path(root) / kind.__name__
        remove_empty([own / "raw", own, *([Path(root)] * made)])  # what a failed download leaves


def _imagefolder(path: str) -> Iterator[RawSplit]:
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"imagefolder: there is no folder {root.resolve()}")
    places = split_folders(root)
    if places is not None:
        folders = [image_files(place) for place in places]
        if folders[0][0] != folders[1][0]:
            raise ValueError(f"imagefolder: the classes of {places[0]} and {places[1]} differ")
        parts = [(*folder, np.arange(len(folder[1]))) for folder in folders]
    else:
        classes, names, labels = image_files(root)
        parts = [(classes, names, labels, rows) for rows in split_rows(labels, classes, root)]
    for classes, names, labels, kept in parts:
        files = [names[row] for row in kept]
        yield RawSplit(_file_decoder(files), np.asarray(labels, dtype=np.int64)[kept], classes)


def _file_decoder(names: list[str]) -> Callable[[np.ndarray], list[Tensor]]:
    return lambda rows: [read_image(names[row]) for row in rows]


def _hugging_face(path: str) -> Iterator[RawSplit]:
    try:
        import datasets
    except ImportError as error:
        raise missing("hf: data sets", "hf") from error
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(path)
    except Exception as error:  # the Hub client raises dozens of kinds; all mean that there is no data
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"hf: cannot load {path!r}: {first_line}. Check the name and, for the first use, the network; hf:FOLDER "
            "reads a data set from a folder on disk"
        ) from error
    tests = [name for name in TEST_SPLITS if name in loaded]
    if "train" not in loaded or not tests:
        raise ValueError(f"hf: {path!r} has splits {', '.join(loaded)}: expected train, and test or validation")
    features = loaded["train"].features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = [name for name in ("label", "labels", "fine_label") if name in labels] or labels
    if len(images) != 1 or not labels:
        raise ValueError(
            f"hf: {path!r} has columns {', '.join(features)}: expected one of images and one of class labels"
        )
    yield _labelled(path, {"train": loaded["train"]}, images[0], labels[0])
    yield _labelled(path, {name: loaded[name] for name in tests}, images[0], labels[0])


def _labelled(path: str, splits: Mapping[str, Any], images: str, labels: str) -> RawSplit:
    """The first split that has the class of every image: the Hub hides those of contests.

    Raises:
        ValueError: if none has.
    """
    for split in splits.values():
        classes = split.features[labels].names
        found = np.asarray([-1 if label is None else label for label in split[labels][:]], dtype=np.int64)
        if ((found >= 0) & (found < len(classes))).all():
            return RawSplit(_hf_decoder(split, images), found, classes)
    raise ValueError(
        f"hf: {path!r} hides labels of split {' and '.join(splits)}, where each must lie in [0, {len(classes)}): label "
        "these images, or leave them out, in a copy on disk, and read that with hf:FOLDER"
    )


def _hf_decoder(split: Any, column: str) -> Callable[[np.ndarray], list[Tensor]]:
    return lambda rows: [rgb(row[column]) for row in split.select(rows)]
