"""Image data, each split decoded once into one uint8 tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from neuralcollapse.extras import missing
from neuralcollapse.names import check_dataset
from neuralcollapse.train.image_folder import image_files, read_image, rgb, split_rows
from neuralcollapse.train.seeds import mix

_RESIDENT_BYTES = 8 << 30
"""Larger splits stay on the host and travel batch by batch."""

FEWEST_TESTED = 100
"""Test images per class that the default keeps, however few there are to train on."""


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
        chosen = torch.tensor(indices, device=self.pixels.device)
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
    size = max(1, batch_size // world)
    lonely = len(sampler) % size == 1 and len(sampler) > 1  # batch normalisation cannot train on one sample
    return DataLoader(split, size, sampler=sampler, drop_last=lonely, collate_fn=_as_is)


def eval_loader(split: Split, batch_size: int = 256, rank: int = 0, world: int = 1) -> DataLoader[Any]:
    """All samples in order, each on exactly one rank."""
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
            folders a fifth of PATH/CLASS/* is kept for testing) and ``hf:ID_OR_PATH``.
        data_root: folder of torchvision's data sets; what is not there is downloaded.
        samples_per_class: keep the first n training samples of each class.
        test_samples_per_class: keep the first n test samples of each class; ``"auto"``: at most as many as training
            samples, or 100 where those are fewer.
        image_size: side to resize to.
        random_labels: give the training images labels in random order; as many of each class as before.

    Raises:
        ValueError: if the data set is unknown, damaged, or a class has fewer samples than asked for.
        FileNotFoundError: if the data is not there and cannot be downloaded.
        ImportError: if ``hf:`` is asked for without the extra.
    """
    source = dataset.partition(":")[0]
    if image_size is None and source not in ("digits", "imagefolder", "hf"):
        image_size = 32
    train, test = _read(dataset, data_root)
    chosen = _first_of_each_class(train, samples_per_class)
    if test_samples_per_class == "auto":
        test_rows = _at_most_of_each_class(test, samples_per_class and max(samples_per_class, FEWEST_TESTED))
    else:
        test_rows = _first_of_each_class(test, test_samples_per_class, "test_samples_per_class")
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
    test_samples_per_class: int | None = None,
) -> tuple[int, int]:
    """How many training and test images :func:`load_images` would give; no image is decoded. It raises the same.

    >>> split_sizes("digits", test_samples_per_class=5)
    (1437, 50)
    """
    train, test = _read(dataset, data_root)
    test_rows = _first_of_each_class(test, test_samples_per_class, "test_samples_per_class")
    return len(_first_of_each_class(train, samples_per_class)), len(test_rows)


def _read(dataset: str, data_root: str | Path) -> tuple[_Raw, _Raw]:
    """Training and test split of a data set by its name."""
    check_dataset(dataset)
    source, _, path = dataset.partition(":")
    readers: dict[str, Callable[[], Iterator[_Raw]]] = {
        "digits": _digits,
        "mnist": lambda: _torchvision("MNIST", data_root),
        "fashion-mnist": lambda: _torchvision("FashionMNIST", data_root),
        "cifar10": lambda: _torchvision("CIFAR10", data_root),
        "cifar100": lambda: _torchvision("CIFAR100", data_root),
        "imagefolder": lambda: _imagefolder(path),
        "hf": lambda: _hugging_face(path),
    }
    train, test = readers[source]()
    return train, test


@dataclass(frozen=True)
class _Raw:
    """A split before its images are decoded."""

    decode: Callable[[np.ndarray], Tensor | list[Tensor]]
    """uint8 images (C, H, W) of the rows asked for; one tensor (N, C, H, W) where they share a size."""
    labels: np.ndarray
    classes: Sequence[str]


def _first_of_each_class(split: _Raw, samples: int | None, option: str = "samples_per_class") -> np.ndarray:
    rows = np.arange(len(split.labels))
    if samples is None:
        return rows
    keep = []
    for index, name in enumerate(split.classes):
        members = rows[split.labels == index]
        if len(members) < samples:
            raise ValueError(
                f"{option}={samples}, but class {name!r} has only {len(members)} "
                f"{'test' if option.startswith('test') else 'training'} samples"
            )
        keep.append(members[:samples])
    return np.sort(np.concatenate(keep))


def _at_most_of_each_class(split: _Raw, samples: int | None) -> np.ndarray:
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


def _from_tensor(pixels: Tensor, labels: Any, classes: Sequence[str]) -> _Raw:
    return _Raw(lambda rows: pixels[torch.from_numpy(rows)], np.asarray(labels, dtype=np.int64), classes)


def _digits() -> Iterator[_Raw]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels = torch.from_numpy((data.images * (255 / 16)).round().astype(np.uint8))[:, None]
    classes = [str(name) for name in data.target_names]
    # The split is part of the data set: it does not follow the run's seed.
    parts = train_test_split(np.arange(len(pixels)), test_size=0.2, stratify=data.target, random_state=0)
    for rows in parts:
        yield _from_tensor(pixels[torch.from_numpy(rows)], data.target[rows], classes)


def _torchvision(name: str, root: str | Path) -> Iterator[_Raw]:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    if not Path(root).is_dir() and Path(root) != Path("data"):
        raise FileNotFoundError(
            f"there is no folder {Path(root).resolve()}: correct --data-root, or make that folder to download {name}"
        )
    for train in (True, False):
        try:
            try:
                data = kind(root, train=train, download=False)
            except RuntimeError:  # torchvision's word for "not there"
                data = _downloaded(kind, root, train)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise FileNotFoundError(
                f"no {name} under {Path(root).resolve()} and it could not be downloaded ({reason}). "
                "Point --data-root at a folder in torchvision's layout"
            ) from error
        except ValueError as error:
            raise ValueError(f"the {name} files under {Path(root).resolve()} are damaged: {error}") from error
        pixels = torch.as_tensor(data.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        yield _from_tensor(pixels, data.targets, data.classes)


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
        with contextlib.suppress(OSError):
            for folder in (Path(root) / kind.__name__ / "raw", Path(root) / kind.__name__, *([Path(root)] * made)):
                folder.rmdir()  # what a failed download leaves empty


def _imagefolder(path: str) -> Iterator[_Raw]:
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"imagefolder: there is no folder {root.resolve()}")
    test = next((root / name for name in ("test", "val", "validation") if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test is not None:
        folders = [image_files(root / "train"), image_files(test)]
        if folders[0][0] != folders[1][0]:
            raise ValueError(f"imagefolder: the classes of {root}/train and {test} differ")
        parts = [(*folder, np.arange(len(folder[1]))) for folder in folders]
    else:
        classes, names, labels = image_files(root)
        parts = [(classes, names, labels, rows) for rows in split_rows(labels, classes, root)]
    for classes, names, labels, kept in parts:
        files = [names[row] for row in kept]
        yield _Raw(_file_decoder(files), np.asarray(labels, dtype=np.int64)[kept], classes)


def _file_decoder(names: list[str]) -> Callable[[np.ndarray], list[Tensor]]:
    return lambda rows: [read_image(names[row]) for row in rows]


def _hugging_face(path: str) -> Iterator[_Raw]:
    try:
        import datasets
    except ImportError as error:
        raise missing("hf: data sets", "hf") from error
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(path)
    except Exception as error:  # the Hub client raises dozens of kinds; all mean that there is no data
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(f"hf: cannot load {path!r}: {first_line}") from error
    test = next((name for name in ("test", "validation", "valid", "val") if name in loaded), None)
    if "train" not in loaded or test is None:
        raise ValueError(f"hf: {path!r} has splits {', '.join(loaded)}: expected train, and test or validation")
    features = loaded["train"].features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = [name for name in ("label", "labels", "fine_label") if name in labels] or labels
    if len(images) != 1 or not labels:
        raise ValueError(
            f"hf: {path!r} has columns {', '.join(features)}: expected one of images and one of class labels"
        )
    for name in ("train", test):
        split = loaded[name]
        decode = _hf_decoder(split, images[0])
        yield _Raw(decode, np.asarray(split[labels[0]], dtype=np.int64), features[labels[0]].names)


def _hf_decoder(split: Any, column: str) -> Callable[[np.ndarray], list[Tensor]]:
    return lambda rows: [rgb(row[column]) for row in split.select(rows)]
