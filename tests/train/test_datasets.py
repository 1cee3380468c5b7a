from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from neuralcollapse.train import load_images
from neuralcollapse.train.datasets import eval_loader, split_sizes, train_loader
from neuralcollapse.train.image_folder import TEST_SPLITS
from neuralcollapse.train.module import ImageNetwork, pad_crop_flip
from neuralcollapse.train.splits import has_splits, joined, load_split


def test_digits_are_scikit_learns() -> None:
    data = load_images("digits")
    assert data.image_shape == (1, 8, 8)
    assert len(data.train) + len(data.test) == 1797
    original = {image.round().astype(int).tobytes() for image in load_digits().images}
    restored = (torch.cat([data.train.pixels, data.test.pixels])[:, 0].double() / 255 * 16).round().long()
    assert {image.numpy().tobytes() for image in restored} == original
    mean, std = data.channel_moments()
    values = data.train.pixels.double() / 255
    assert float(mean) == pytest.approx(float(values.mean()), rel=1e-6)
    assert float(std) == pytest.approx(float(values.std(correction=0)), rel=1e-6)


def test_samples_per_class_keeps_the_first_of_each() -> None:
    whole, few = load_images("digits"), load_images("digits", samples_per_class=7)
    assert torch.bincount(few.train.labels).tolist() == [7] * 10
    for label in range(10):
        first = whole.train.pixels[whole.train.labels == label][:7]
        assert torch.equal(few.train.pixels[few.train.labels == label], first)
    assert torch.equal(whole.test.pixels, few.test.pixels)


def test_mnist_is_torchvisions_resized(data_root: Path) -> None:
    data = load_images("mnist", data_root, samples_per_class=3)
    assert data.image_shape == (1, 32, 32)
    assert len(data.test) == 10_000
    raw = torchvision.datasets.MNIST(data_root, train=False)
    expected = np.asarray(raw[5][0].resize((32, 32), Image.Resampling.BILINEAR), dtype=int)
    assert np.abs(data.test.pixels[5, 0].numpy().astype(int) - expected).max() <= 2
    assert int(data.test.labels[5]) == raw[5][1]


def test_cifar10_from_a_hub_folder(data_root: Path) -> None:
    pytest.importorskip("datasets")
    data = load_images(f"hf:{data_root / 'cifar10'}", samples_per_class=2)
    assert data.image_shape == (3, 32, 32)
    assert torch.bincount(data.train.labels).tolist() == [2] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.classes[0] == "airplane"


def of_the_hub(monkeypatch: pytest.MonkeyPatch, **labels: list[int | None]) -> None:
    """Every data set of the Hub is this one, of three classes; each image is as bright as its place in its split."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    splits = {
        split: datasets.Dataset.from_dict(
            {"image": [Image.new("RGB", (4, 4), (row,) * 3) for row in range(len(found))], "label": found}, features
        )
        for split, found in labels.items()
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda path: datasets.DatasetDict(splits))


@pytest.mark.parametrize("hidden", [[-1, -1], [0, -1], [2, None]])
def test_a_test_split_with_hidden_labels_is_passed_over(hidden: list[int | None], monkeypatch) -> None:
    """ImageNet's are all -1: an accuracy on them is 0, and a test set of so many per class is empty."""
    of_the_hub(monkeypatch, train=[0, 1, 2, 0], validation=[2, 1, 0], test=hidden, val=[1])
    for samples in (None, 1):
        data = load_images("hf:x", samples_per_class=samples, test_samples_per_class="auto", image_size=4)
        assert data.test.labels.tolist() == [2, 1, 0]
        assert data.test.pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert split_sizes("hf:x") == (4, 3)
    assert len(load_split("hf:x", choice="test", image_size=4)[1]) == 3


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"train": [0, 1, 2], "test": [-1]}, "test"),
        ({"train": [0, 1, 2], "test": [-1], "val": [0, None]}, "test and val"),
        ({"train": [0, -1, 2], "test": [1]}, "train"),
    ],
)
def test_labels_that_are_hidden_everywhere_are_refused(labels: dict, named: str, monkeypatch) -> None:
    of_the_hub(monkeypatch, **labels)
    for load in (load_images, split_sizes):
        with pytest.raises(ValueError, match=rf"'x' hides labels of split {named}, where each must lie in \[0, 3\): "):
            load("hf:x")


def image_folder(root: Path, splits: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")


def test_image_folders(tmp_path: Path) -> None:
    image_folder(tmp_path / "a", ("train", "val"))
    image_folder(tmp_path / "b", ("",))
    both, one = (
        load_images(f"imagefolder:{tmp_path / 'a'}"),
        load_images(f"imagefolder:{tmp_path / 'b'}", image_size=16),
    )
    assert (len(both.train), len(both.test), both.image_shape) == (20, 20, (3, 64, 64))
    assert (len(one.train), len(one.test), one.image_shape) == (16, 4, (3, 16, 16))
    assert both.classes == ("cat", "dog")
    (tmp_path / "a" / "train" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png is not a readable image"):
        load_images(f"imagefolder:{tmp_path / 'a'}")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("imagenet", ValueError, "unknown dataset 'imagenet': did you mean imagefolder"),
        ("digits:x", ValueError, "unknown dataset"),
        ("hf:", ValueError, "unknown dataset"),
        ("mnist", FileNotFoundError, r"no MNIST under \S+, and .* refused\. .* point data_root at .* MNIST/raw$"),
        ("cifar100", FileNotFoundError, r"no CIFAR100 under .* refused\. .* folder that holds cifar-100-python$"),
        ("imagefolder:/absent", FileNotFoundError, "no folder /absent"),
        ("hf:/absent", FileNotFoundError, "cannot load '/absent': .* Check the name .* hf:FOLDER reads"),
    ],
)
def test_missing_and_unknown_data(name: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/", "http://127.0.0.1:9/other"])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:9/cifar.tar.gz")
    with pytest.raises(error, match=message):
        load_images(name, tmp_path)


@pytest.mark.parametrize("name", TEST_SPLITS)
def test_every_name_of_a_test_folder_is_known_to_all(name: str, tmp_path: Path) -> None:
    image_folder(tmp_path, ("train", name))
    dataset = f"imagefolder:{tmp_path}"
    assert has_splits(dataset)
    assert split_sizes(dataset) == (20, 20)


def test_more_samples_than_there_are() -> None:
    with pytest.raises(ValueError, match="samples_per_class=500, but class '0' has only 142"):
        load_images("digits", samples_per_class=500)


@pytest.mark.parametrize(("choice", "kind"), [("train", "training "), ("test", "test "), ("all", "")])
def test_too_many_samples_of_a_split_are_refused_in_the_callers_words(choice: str, kind: str) -> None:
    message = rf"^samples_per_class=1000, but class '0' has only \d+ {kind}samples$"
    with pytest.raises(ValueError, match=message):
        load_split("digits", choice=choice, samples_per_class=1000)


def test_a_split_has_so_many_samples_of_each_class_as_asked_for() -> None:
    for choice in ("train", "test", "all"):
        data, split = load_split("digits", choice=choice, samples_per_class=4)
        assert split.labels.bincount().tolist() == [4] * 10
        assert split is (data.test if choice == "test" else data.train)
    assert torch.equal(split.pixels, joined(load_images("digits"), 4).pixels)


@pytest.mark.parametrize("asked", [{"samples_per_class": -1}, {"samples_per_class": 0}, {"test_samples_per_class": 0}])
def test_less_than_one_sample_is_refused(asked: dict[str, int]) -> None:
    """-1 would be all but the last of each class."""
    message = "samples_per_class=.* must be at least 1"
    for load in (load_images, split_sizes):
        with pytest.raises(ValueError, match=message):
            load("digits", **asked)
    with pytest.raises(ValueError, match=message):
        load_split("digits", choice="all", samples_per_class=min(asked.values()))
    with pytest.raises(ValueError, match=message):
        joined(load_images("digits"), min(asked.values()))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    image_folder(tmp_path / "a", ("train", "val"))
    assert len(load_images("imagefolder:~/a").train) == 20
    assert has_splits("imagefolder:~/a")
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path / 'absent'}"):
        load_images("mnist", "~/absent")


def test_loaders_cover_all_samples() -> None:
    split = load_images("digits", samples_per_class=13).train
    seen = torch.cat([y for rank in (0, 1, 2) for _, y in eval_loader(split, 10, rank, 3)])
    assert torch.equal(seen.sort().values, split.labels.sort().values)
    batches = [y for _, y in train_loader(split, 43, seed=0)]  # 130 = 3 * 43 + 1: a lonely sample is left out
    assert [len(y) for y in batches] == [43, 43, 43]


def test_augmentation_moves_and_mirrors_but_invents_nothing() -> None:
    pixels = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(200, 2, 8, 8)
    torch.manual_seed(0)
    moved = pad_crop_flip(pixels, margin=2)
    assert moved.shape == pixels.shape
    assert torch.equal(moved[:, 0], moved[:, 1])
    padded = torch.nn.functional.pad(pixels[0, 0], (2,) * 4)
    windows = [padded[i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    allowed = {tuple(w.flatten().tolist()) for window in windows for w in (window, window.flip(1))}
    found = {tuple(image[0].flatten().tolist()) for image in moved}
    assert found <= allowed
    assert len(found) > 30


def test_normalisation_is_torchvisions() -> None:
    data = load_images("digits", samples_per_class=5)
    network = ImageNetwork(torch.nn.Identity(), *data.channel_moments(), 3)
    mean, std = data.channel_moments()
    transform = torchvision.transforms.Normalize(mean.repeat(3), std.repeat(3))
    expected = transform(data.train.pixels.float().div(255).repeat(1, 3, 1, 1))
    torch.testing.assert_close(network(data.train.pixels).contiguous(), expected)
