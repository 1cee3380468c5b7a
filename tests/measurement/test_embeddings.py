from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neuralcollapse.measurement import load_embeddings
from tests.cases import CASES


def test_both_formats(tmp_path: Path) -> None:
    case = CASES[0]
    tensors = {"features": case.features, "labels": case.labels, "weight": case.weight}
    save_file(tensors, tmp_path / "f.safetensors")
    np.savez(tmp_path / "f.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    for name in ("f.safetensors", "f.npz"):
        found = load_embeddings(tmp_path / name)
        assert set(found) == set(tensors)
        for key, tensor in tensors.items():
            assert torch.equal(found[key], tensor)


def test_bad_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", features=np.ones((2, 2)))
    np.savez(tmp_path / "code.npz", features=np.array([object()], dtype=object), labels=np.ones(1))
    for name in ("bad.npz", "bad.safetensors", "f.csv"):
        (tmp_path / name).write_bytes(b"nonsense")
    for name, message in [
        ("half.npz", "lacks labels; it holds features"),
        ("code.npz", "not a readable .npz file of arrays"),
        ("bad.npz", "not a readable .npz file of arrays: it is no zip archive"),
        ("bad.safetensors", "not a readable safetensors"),
        ("f.csv", "tensors are read from .safetensors or .npz files, not '.csv'"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_embeddings(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no file of tensors at"):
        load_embeddings(tmp_path / "absent.npz")


def _claiming(path: Path, shape: tuple[int, ...], descr: str = "<f4", method: int = zipfile.ZIP_STORED) -> Path:
    header = io.BytesIO()
    fields: dict[str, Any] = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("features.npy", header.getvalue() + bytes(8))
    return path


@pytest.mark.parametrize("shape", [(2**40, 4), (2**62, 2**62), (-5, 4), (-5, -4), (3,)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_that_claims_more_than_it_holds(tmp_path: Path, shape: tuple[int, ...], method: int) -> None:
    with pytest.raises(ValueError, match=r"not a readable .npz file"):
        load_embeddings(_claiming(tmp_path / "f.npz", shape, "<f8", method))


@pytest.mark.parametrize("descr", ["|O", "<U4", "<M8[s]", "|V3"])
def test_arrays_without_numbers(tmp_path: Path, descr: str) -> None:
    with pytest.raises(ValueError, match=r"features holds .*, not numbers"):
        load_embeddings(_claiming(tmp_path / "f.npz", (1,), descr))


def test_labels_that_are_names_are_in_a_file_that_can_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.ones((2, 3)), labels=np.array(["cat", "dog"]))
    with pytest.raises(
        ValueError, match=r"f\.npz: labels holds strings, not numbers: turn each name into its class index"
    ):
        load_embeddings(tmp_path / "f.npz")


@pytest.mark.parametrize("dtype", [">f4", "longdouble", ">i8"])
def test_numbers_of_other_machines_and_other_contents(tmp_path: Path, dtype: str) -> None:
    features = np.arange(6).reshape(3, 2)
    np.savez(
        tmp_path / "F.NPZ.npz", features=features.astype(dtype), labels=np.arange(3), names=np.array(["a", {}], object)
    )
    with zipfile.ZipFile(tmp_path / "F.NPZ.npz", "a") as archive:
        archive.writestr("readme.txt", "text")
    (tmp_path / "F.NPZ.npz").rename(tmp_path / "F.NPZ")
    found = load_embeddings(tmp_path / "F.NPZ")
    assert set(found) == {"features", "labels"}
    assert found["features"].tolist() == features.tolist()


@pytest.mark.parametrize("kind", ["npz", "compressed.npz", "safetensors"])
def test_damaged_bytes_are_refused_with_a_sentence(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(0)
    whole, damaged = tmp_path / f"whole.{kind}", tmp_path / f"damaged.{kind}"
    arrays = {"features": random.normal(size=(4, 3)), "labels": np.arange(4) % 2}
    if kind == "safetensors":
        save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, whole)
    else:
        (np.savez_compressed if kind.startswith("c") else np.savez)(whole, **arrays)  # type: ignore[operator]
    good = whole.read_bytes()
    refused = 0
    for _ in range(150):
        content = bytearray(good[: random.integers(1, len(good))] if random.random() < 0.2 else good)
        for place in random.integers(len(content), size=3):
            content[place] = random.integers(256)
        damaged.write_bytes(content)
        try:
            load_embeddings(damaged)
        except ValueError:  # and nothing else
            refused += 1
    assert refused > 30
