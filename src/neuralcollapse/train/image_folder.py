"""A folder of images, one folder per class, read as what it is: each file once, each pixel at its own brightness."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TEST_SPLITS = ("test", "validation", "valid", "val")
"""Names of what to test on: a folder beside train/, or a split of the Hub. The first that is there counts."""


def split_folders(root: Path) -> tuple[Path, Path] | None:
    """The folders to train and to test on; None where there are not both."""
    test = next((root / name for name in TEST_SPLITS if (root / name).is_dir()), None)
    return None if test is None or not (root / "train").is_dir() else (root / "train", test)


def image_files(root: Path) -> tuple[list[str], list[str], list[int]]:
    """Classes, files and their classes' numbers, in the order of their names.

    Raises:
        FileNotFoundError: if there is no folder per class, or a class has no image.
        ValueError: if links lead to the same folder twice.
    """
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise FileNotFoundError(f"imagefolder: {root} holds no folder per class")
    names: list[str] = []
    labels: list[int] = []
    seen = {os.path.realpath(root): str(root)}
    for number, name in enumerate(classes):
        found = sorted(_images(root / name, seen))
        if not found:
            raise FileNotFoundError(f"imagefolder: class {name!r} has no image in {root / name}")
        names += found
        labels += [number] * len(found)
    return classes, names, labels


def _images(folder: Path, seen: dict[str, str]) -> Iterator[str]:
    """Image files below a folder; links are followed, but nowhere twice."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    real = os.path.realpath(folder)
    if real in seen:
        raise ValueError(
            f"imagefolder: {folder} is the same folder as {seen[real]}: its images would count twice, remove the link"
        )
    seen[real] = str(folder)
    for path in folder.iterdir():
        if path.is_dir():
            yield from _images(path, seen)
        elif path.is_file() and path.name.lower().endswith(IMG_EXTENSIONS):
            yield str(path)


def split_rows(labels: list[int], classes: list[str], root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and a fifth of each class to test on; always the same.

    Raises:
        ValueError: if a class has a single image, or there are too few to test every class.
    """
    from sklearn.model_selection import train_test_split

    counts = np.bincount(labels, minlength=len(classes))
    way_out = f"add images, or make folders {root}/train and {root}/test"
    if counts.min() < 2:
        raise ValueError(
            f"imagefolder: class {classes[int(counts.argmin())]!r} has one image, and a fifth of each class is for "
            f"testing: {way_out}"
        )
    if -(-len(labels) // 5) < len(classes):
        raise ValueError(
            f"imagefolder: a fifth of {len(labels)} images cannot test each of {len(classes)} classes: {way_out}"
        )
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return np.sort(train), np.sort(test)


def read_image(name: str) -> Tensor:
    """An image file as uint8 (3, H, W).

    Raises:
        ValueError: if it is no image, claims far too many pixels, or its pixels have no known scale.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as image:
                return rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"imagefolder: {name} claims more than {Image.MAX_IMAGE_PIXELS:,} pixels: it may be made to fill the "
            "memory, so it is not decoded"
        ) from error
    except Exception as error:  # a damaged file raises whatever its decoder runs into
        raise ValueError(f"imagefolder: {name} is not a readable image: {error}") from error


def rgb(image: Any) -> Tensor:
    """A PIL image as uint8 (3, H, W). Sixteen bits per pixel are scaled to eight, white to white.

    Raises:
        ValueError: if its pixels are floating point or wider than 16 bits, so that white is unknown.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.array(image, dtype=np.int64)  # Pillow itself would cut everything above 255 to white
        grey = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return torch.from_numpy(grey).expand(3, -1, -1)
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are {'32-bit' if image.mode == 'I' else 'floating point'}: white is unknown")
    opaque = image.convert("RGBA") if "transparency" in image.info else image
    return torch.from_numpy(np.array(opaque.convert("RGB"))).permute(2, 0, 1)
