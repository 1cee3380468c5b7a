"""The command that repeats a run: only what differs from the defaults, without this machine's folders."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuralcollapse.train.config import PLACE_OF_A_RUN, TrainConfig, made_by_train

DATA = "DATA"
"""Stands for the folder of the data sets, wherever the reader has it."""

_WITHOUT_FOLDER = ("digits",)
"""Data sets that come with a package."""

_UNNEEDED = PLACE_OF_A_RUN - {"data_root", "loggers"}
"""Fields that a command leaves out: another machine has its own."""


def command_of(config: Mapping[str, Any], name: str) -> str:
    """The command; empty where ``neuralcollapse train`` did not make the run.

    Args:
        config: all fields of the run's resolved configuration.
        name: of the run; the command writes to runs/NAME.

    >>> command_of(TrainConfig(epochs=5, seed=3).resolved().to_dict(), "mine")
    'neuralcollapse train --epochs 5 --seed 3 --output runs/mine'
    """
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    if not (made_by_train(config) and config.keys() <= fields):
        return ""
    dataset = str(config["dataset"])
    in_root = dataset not in _WITHOUT_FOLDER and ":" not in dataset
    placed = {**config, "dataset": elsewhere(dataset), "data_root": DATA if in_root else TrainConfig().data_root}
    try:
        chosen = _chosen(placed)
    except (TypeError, ValueError):
        return ""
    words = ["neuralcollapse", "train"]
    for field, value in chosen.items():
        words.append(f"--{field.replace('_', '-')}")
        words += [] if value is True else [_word(value)]
    return shlex.join([*words, "--output", f"runs/{name}"])


def elsewhere(dataset: str) -> str:
    """A data set without the folder that this machine has it in; a name on the Hub stays as it is.

    >>> elsewhere("hf:../shared/data/cifar10"), elsewhere("hf:uoft-cs/cifar10"), elsewhere("mnist")
    ('hf:DATA/cifar10', 'hf:uoft-cs/cifar10', 'mnist')
    """
    kind, separator, place = dataset.rpartition(":")
    is_path = place.startswith((".", "/", "~")) or (bool(separator) and Path(place).is_dir())
    return f"{kind}{separator}{DATA}/{Path(place).name}" if is_path else dataset


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
