"""Folders of images: every pixel at its own brightness, every image once, hostile files refused with a sentence."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuralcollapse.train import load_images
from neuralcollapse.train.image_folder import image_files, read_image


def grey(value: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, dtype=dtype))


def folder(root: Path, per_class: int = 5, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            grey(40 * index).save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (40000, 156), (65535, 255), (257, 1), (128, 0), (129, 1)])
def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path, suffix: str, value: int, expected: int) -> None:
    path = tmp_path / f"deep.{suffix}"
    grey(value, np.uint16).save(path)
    pixels = read_image(str(path))
    assert pixels.shape == (3, 4, 4)
    assert pixels.unique().tolist() == [expected]
    assert expected == round(value * 255 / 65535)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_scale_are_refused(tmp_path: Path, dtype: type) -> None:
    grey(70000, dtype).save(tmp_path / "scientific.tif")
    with pytest.raises(ValueError, match=r"scientific\.tif is not a readable image: its pixels are .*white is unknown"):
        read_image(str(tmp_path / "scientific.tif"))


def test_other_kinds_of_image_are_as_pillow_has_them(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 4, 4), dtype=np.uint8)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        image = Image.fromarray(colours, "RGBA").convert(mode)
        image.save(tmp_path / f"{mode}.png")
        expected = np.array(image.convert("RGB")).transpose(2, 0, 1)
        assert (read_image(str(tmp_path / f"{mode}.png")).numpy() == expected).all()


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_a_bomb_is_not_decoded(tmp_path: Path, side: int) -> None:
    """A few bytes that claim 100, 400 and more megapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"bomb\.png claims more than [\d,]+ pixels"):
        read_image(str(tmp_path / "bomb.png"))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\xff" * 20])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png is not a readable image"):
        read_image(str(tmp_path / "x.png"))


@pytest.mark.parametrize(
    ("link", "target"), [("cat/loop", ".."), ("cat/self", "."), ("bird", "cat"), ("cat/of", "../dog")]
)
def test_links_that_count_images_twice_are_refused(tmp_path: Path, link: str, target: str) -> None:
    os.symlink(target, folder(tmp_path) / link)
    with pytest.raises(ValueError, match=r"is the same folder as .* remove the link"):
        load_images(f"imagefolder:{tmp_path}")


def test_links_to_elsewhere_and_nested_folders_are_followed(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos")
    grey(9).save(tmp_path / "other.png")
    (tmp_path / "more" / "deep").mkdir(parents=True)
    grey(9).save(tmp_path / "more" / "deep" / "one.PNG")
    os.symlink(tmp_path / "other.png", root / "cat" / "linked.png")
    os.symlink(tmp_path / "more", root / "cat" / "more")
    (root / "cat" / "notes.txt").write_text("no image")
    classes, names, labels = image_files(root)
    assert classes == ["cat", "dog"]
    assert np.bincount(labels).tolist() == [7, 5]
    assert names[:7] == sorted(names[:7])


@pytest.mark.parametrize(
    ("per_class", "classes", "message"),
    [
        (1, ("cat", "dog"), "class 'cat' has one image, and a fifth of each class is for testing"),
        (2, ("a", "b", "c"), "a fifth of 6 images cannot test each of 3 classes"),
        (0, ("cat", "dog"), "class 'cat' has no image"),
        (3, (), "holds no folder per class"),
    ],
)
def test_too_few_images(tmp_path: Path, per_class: int, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_images(f"imagefolder:{folder(tmp_path, per_class, classes)}")


def test_a_mistyped_data_root_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*typo: correct data_root"):
        load_images("mnist", tmp_path / "typo")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dataset", ["mnist", "cifar100"])
def test_a_download_that_fails_leaves_nothing(tmp_path: Path, monkeypatch, dataset: str) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:9/cifar.tar.gz")
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path("data")):  # the default folder is made where it is absent
        with pytest.raises(FileNotFoundError, match="could not be downloaded"):
            load_images(dataset, root)
        assert not list(tmp_path.iterdir())
