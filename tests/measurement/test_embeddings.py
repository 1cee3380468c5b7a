from __future__ import annotations

from pathlib import Path

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
