"""Features already on disk."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from numpy.lib import format as npy
from safetensors import safe_open
from torch import Tensor

from neuralcollapse.geometry.collapse import measure_features
from neuralcollapse.geometry.inputs import as_tensor
from neuralcollapse.geometry.multilabel import multilabel_metrics
from neuralcollapse.geometry.regression import regression_metrics
from neuralcollapse.geometry.tables import Ideals
from neuralcollapse.geometry.ways_out import CLASS_INDICES
from neuralcollapse.measurement.labels import Task, as_labels
from neuralcollapse.measurement.presentation import ideals_of_classes
from neuralcollapse.measurement.regression_report import ideals_of_regression

_DENSEST = 1100
"""Bytes that one byte of a deflated archive can stand for: 1032, and room for the empty array's header."""


class _Strings(ValueError):
    """A file that can be read holds strings where numbers belong."""


def load_embeddings(path: str | Path) -> dict[str, Tensor]:
    """Read ``features`` (N, d) and ``labels`` (N,), and where stored ``weight`` (K, d) and ``bias`` (K,).

    Args:
        path: a ``.safetensors`` or ``.npz`` file. Neither can execute code; what else it holds is not read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither format, is damaged, claims more than it holds, or lacks features or labels.
    """
    return load_tensors(path, ("features", "labels"), ("weight", "bias"))


def measure_embeddings(
    stored: Mapping[str, Tensor], task: Task = "classification", *, allow_missing: bool = False
) -> dict[str, float | None]:
    """The measures of stored features by name.

    Args:
        stored: what :func:`load_embeddings` read.
        task: what the labels are, as in :func:`neuralcollapse.measure`.
        allow_missing: as in :func:`neuralcollapse.measure`.

    Raises:
        ValueError: if the labels look like another task's, or as the function of the task.
        TypeError: likewise.
    """
    features, weight, bias = stored["features"], stored.get("weight"), stored.get("bias")
    labels = as_labels(stored["labels"], torch.device("cpu"), task, advice="store labels of that kind")
    if task == "regression":
        return regression_metrics(features, labels, weight).to_dict()
    measured = measure_features if task == "classification" else multilabel_metrics
    return measured(features, labels, weight, bias, allow_missing=allow_missing).to_dict()


def ideals_of_embeddings(stored: Mapping[str, Tensor], task: Task = "classification") -> Ideals:
    """Values at collapse that depend on the shape of stored features, once :func:`measure_embeddings` took them.

    Args:
        stored: what :func:`load_embeddings` read.
        task: what the labels are.
    """
    labels = stored["labels"]
    if task == "regression":
        return ideals_of_regression(labels[0].numel())
    if task == "multilabel":  # NC1 to NC3 are those of the samples with one label
        labels = labels[labels.sum(1) == 1].nonzero()[:, 1]
    return ideals_of_classes(len(labels.unique()), stored["features"].shape[1])


def load_tensors(path: str | Path, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read tensors of a ``.safetensors`` or ``.npz`` file by name; neither can execute code.

    Args:
        path: the file.
        needed: names that it has to hold.
        optional: names to read where it holds them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither format, is damaged, claims more than it holds, or lacks one that is needed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of tensors at {path}")
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise ValueError(f"{path}: tensors are read from .safetensors or .npz files, not {path.suffix!r}")
    try:
        held, found = _READERS[kind](path, (*needed, *optional))
    except _Strings as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a hostile file can raise anything: zlib's own errors, MemoryError, RecursionError
        raise ValueError(f"{path} is not a readable {_KINDS[kind]}: {error}") from error
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(held) or 'nothing'}")
    return found


def _from_safetensors(path: Path, names: Sequence[str]) -> tuple[list[str], dict[str, Tensor]]:
    with safe_open(str(path), framework="pt") as file:
        held = list(file.keys())
        return held, {name: file.get_tensor(name) for name in names if name in held}


def _from_npz(path: Path, names: Sequence[str]) -> tuple[list[str], dict[str, Tensor]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive")
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        size = path.stat().st_size
        return list(members), {name: _array(archive, members[name], name, size) for name in names if name in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, size: int) -> Tensor:
    """One array, if the file is large enough to hold what its header claims: nothing is allocated before."""
    if member.file_size > _DENSEST * min(member.compress_size, size):
        raise ValueError(f"{name} claims {member.file_size} bytes, more than the file can hold")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.kind in "US":
            raise _Strings(f"{name} holds strings, not numbers" + (f": {CLASS_INDICES}" if name == "labels" else ""))
        if dtype.kind not in "fiubc":
            raise ValueError(f"{name} holds {dtype}, not numbers")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{name} claims shape {shape}, more than the file can hold")
    with archive.open(member) as file:
        return as_tensor(npy.read_array(file, allow_pickle=False), name)


_KINDS = {".safetensors": "safetensors file", ".npz": ".npz file of arrays"}

_READERS: dict[str, Callable[[Path, Sequence[str]], tuple[list[str], dict[str, Tensor]]]] = {
    ".safetensors": _from_safetensors,
    ".npz": _from_npz,
}
