"""Features already on disk."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def load_embeddings(path: str | Path) -> dict[str, Tensor]:
    """Read ``features`` (N, d) and ``labels`` (N,), and where stored ``weight`` (K, d) and ``bias`` (K,).

    Args:
        path: a ``.safetensors`` or ``.npz`` file. Neither can execute code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither format, is damaged, or lacks features or labels.
    """
    tensors = load_tensors(path, ("features", "labels"))
    return {name: tensors[name] for name in ("features", "labels", "weight", "bias") if name in tensors}


def load_tensors(path: str | Path, needed: Sequence[str]) -> dict[str, Tensor]:
    """Read all tensors of a ``.safetensors`` or ``.npz`` file by name; neither can execute code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither format, is damaged, or lacks one that is needed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of tensors at {path}")
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    elif path.suffix == ".npz":
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is not a readable .npz file of arrays: it is no zip archive")
        try:
            with np.load(path, allow_pickle=False) as archive:
                tensors = {name: torch.from_numpy(archive[name]) for name in archive.files}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a readable .npz file of arrays: {error}") from error
    else:
        raise ValueError(f"{path}: tensors are read from .safetensors or .npz files, not {path.suffix!r}")
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(tensors) or 'nothing'}")
    return tensors
