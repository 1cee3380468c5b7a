"""Train a classifier until it collapses, and watch it. Loaded when used: Lightning is heavy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcollapse.train.callback import NeuralCollapseCallback
    from neuralcollapse.train.config import TrainConfig
    from neuralcollapse.train.datasets import ImageData, load_images
    from neuralcollapse.train.run import load_run, train

__all__ = [
    "ImageData",
    "NeuralCollapseCallback",
    "TrainConfig",
    "load_images",
    "load_run",
    "train",
]

_HOME_OF = {
    "ImageData": "datasets",
    "NeuralCollapseCallback": "callback",
    "TrainConfig": "config",
    "load_images": "datasets",
    "load_run": "run",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
