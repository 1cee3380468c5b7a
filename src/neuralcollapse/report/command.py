"""The command that repeats a run: only what differs from the defaults, without this machine's folders."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from neuralcollapse.train.config import TrainConfig

DATA = "DATA"
"""Stands for the folder of the data sets, wherever the reader has it."""
_WITHOUT_FOLDER = ("digits",)
_UNNEEDED = ("resume", "output", "data_root", "devices", "nodes", "accelerator")


def command_of(config: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The command, and what a reader must know first; empty where ``neuralcollapse train`` did not make the run.

    >>> command_of(TrainConfig(epochs=5, seed=3).resolved().to_dict(), "mine")
    ('neuralcollapse train --epochs 5 --seed 3 --output runs/mine', '')
    """
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    if not {"dataset", "model", "optimizer"} <= config.keys() or not config.keys() <= fields:
        return "", ""
    try:
        chosen = _chosen(config)
    except (TypeError, ValueError):
        return "", ""
    words = ["neuralcollapse", "train"]
    for field, value in chosen.items():
        words.append(f"--{field.replace('_', '-')}")
        words += [] if value is True else [_elsewhere(str(value)) if field == "dataset" else _word(value)]
    dataset = str(config["dataset"])
    words += ["--data-root", DATA] if dataset not in _WITHOUT_FOLDER and ":" not in dataset else []
    words += ["--output", f"runs/{name}"]
    caution = f", where {DATA} is the folder of your data sets" if DATA in " ".join(words) else ""
    return shlex.join(words), caution


def _chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that do not follow from those before them."""
    chosen: dict[str, Any] = {}
    for field, value in config.items():
        if field in _UNNEEDED or value is None:
            continue
        if getattr(TrainConfig(**chosen).resolved(), field) != value:
            chosen[field] = value
    return chosen


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _elsewhere(dataset: str) -> str:
    """``hf:../shared/data/cifar10`` as ``hf:DATA/cifar10``; a name on the Hub stays as it is."""
    kind, separator, place = dataset.rpartition(":")
    if separator and place.startswith((".", "/", "~")):
        return f"{kind}:{DATA}/{place.rstrip('/').rpartition('/')[2]}"
    return dataset
