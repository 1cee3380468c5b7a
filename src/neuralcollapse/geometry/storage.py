"""The state of class statistics as named tensors: what it holds, whether it is sane, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuralcollapse import files

SHAPES = {
    "counts": "(K,)",
    "means": "(K, d)",
    "trace_sums": "(K,)",
    "scatter": "(d, d), or (0, 0) for within='traces'",
    "rounding": "()",
    "resolution": "()",
    "largest": "()",
    "exponent": "()",
}
"""Accumulators by name: integers for counts and exponent, float64 for the others."""

_INTEGERS = ("counts", "exponent")
_FORMAT = {"format": "neuralcollapse.ClassStatistics"}
_MOST_EXPONENT = 1100


def empty_state(num_classes: int, feature_dim: int, within: str, device: torch.device) -> dict[str, Tensor]:
    """Accumulators of no samples.

    Raises:
        ValueError: if there is no memory for them.
    """
    side = feature_dim if within == "full" else 0
    shapes = {"counts": (num_classes,), "means": (num_classes, feature_dim), "trace_sums": (num_classes,)}
    shapes["scatter"] = (side, side)
    try:
        return {name: torch.zeros(shapes.get(name, ()), dtype=_dtype(name), device=device) for name in SHAPES}
    except (RuntimeError, MemoryError) as error:
        gigabytes = 8 * (num_classes * feature_dim + side * side) / 1e9
        raise ValueError(
            f"num_classes={num_classes} and feature_dim={feature_dim} need {gigabytes:.3g} GB, more than {device} has"
        ) from error


def _dtype(name: str) -> torch.dtype:
    return torch.int64 if name in _INTEGERS else torch.float64


def sizes(state: Mapping[str, Tensor]) -> tuple[int, int, Literal["full", "traces"]]:
    """K, d and ``within`` of a state."""
    num_classes, feature_dim = state["means"].shape
    return num_classes, feature_dim, "full" if state["scatter"].numel() else "traces"


def copied(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The same accumulators in memory of their own, ordinary tensors also where they were made in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return {
            name: torch.empty_like(state[name], dtype=_dtype(name), device=device).copy_(state[name]) for name in SHAPES
        }


def check_state(state: Mapping[str, Tensor]) -> None:
    """Refuse what no stream of features can have left behind.

    Raises:
        ValueError: naming the tensor and what is wrong with it.
        TypeError: if it is no mapping.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state is a {type(state).__name__}: expected the dictionary that state() gives")
    missing = sorted(set(SHAPES) - set(state))
    if missing:
        raise ValueError(f"the state lacks {', '.join(missing)}: it is no state of ClassStatistics")
    for name in SHAPES:
        _check_kind(name, state[name])
    _check_shapes(state)
    _check_values(state)


def _check_kind(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        raise ValueError(f"{name} in the state is a {type(value).__name__}: expected a dense tensor")
    whole = not (value.is_floating_point() or value.is_complex())
    if whole != (name in _INTEGERS) or value.is_complex() or value.dtype == torch.bool:
        expected = "integers" if name in _INTEGERS else "floating point numbers"
        raise ValueError(f"{name} in the state has dtype {value.dtype}: expected {expected}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} in the state has NaN or infinite entries")


def _check_shapes(state: Mapping[str, Tensor]) -> None:
    if state["means"].ndim != 2 or state["means"].shape[0] < 2 or state["means"].shape[1] < 1:
        raise ValueError(f"means has shape {tuple(state['means'].shape)}, not (K, d) with K >= 2 and d >= 1")
    num_classes, feature_dim, within = sizes(state)
    side = feature_dim if within == "full" else 0
    shapes = {"counts": (num_classes,), "means": (num_classes, feature_dim), "trace_sums": (num_classes,)}
    shapes["scatter"] = (side, side)
    for name in SHAPES:
        expected = shapes.get(name, ())
        if tuple(state[name].shape) != expected:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {expected}")


def _check_values(state: Mapping[str, Tensor]) -> None:
    empty = state["counts"] == 0
    faults = {
        "counts": state["counts"] < 0,
        "trace_sums": (state["trace_sums"] < 0) | (empty & (state["trace_sums"] != 0)),
        "means": empty[:, None] & (state["means"] != 0),
        "scatter": state["scatter"].diagonal() < 0,
        "rounding": (state["rounding"] < 0) | (state["rounding"] >= 1),
        "resolution": (state["resolution"] < 0) | (state["resolution"] >= 1),
        "largest": state["largest"] < 0,
        "exponent": state["exponent"].abs() > _MOST_EXPONENT,
    }
    for name, wrong in faults.items():
        if bool(wrong.any()):
            raise ValueError(f"{name} in the state holds values that no features can give: the file is damaged")
    scatter = state["scatter"]
    if scatter.numel():
        size = scatter.abs().max()
        if bool((scatter - scatter.T).abs().max() > 1e-3 * size):
            raise ValueError("scatter in the state is not symmetric: the file is damaged")
        trace, traces = scatter.diagonal().sum(), state["trace_sums"].sum()
        if bool((trace - traces).abs() > 1e-2 * traces):
            raise ValueError("scatter and trace_sums in the state disagree: the file is damaged")


def save_state(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a safetensors file: whole, or not at all.

    Raises:
        WriteError: if it cannot be written; the previous file is then unchanged.
    """
    files.write_bytes(path, save({name: tensor.contiguous() for name, tensor in state.items()}, metadata=_FORMAT))


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a safetensors file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file of class statistics at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
