"""What goes into a pass over the data and what each batch of it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from neuralcollapse.measurement.attack import Attack
from neuralcollapse.measurement.labels import Task
from neuralcollapse.measurement.pooling import Pooling


@dataclass(frozen=True)
class Captured:
    """One batch, on the device it was computed on."""

    features: Tensor
    """(B, d), what enters the head"""
    labels: Tensor
    """(B,) of class indices; (B, K) of booleans with several labels per sample, (B, n) of targets in regression"""
    logits: Tensor | None
    """(B, K), the head's own; None where features alone are measured"""
    layers: dict[str, Tensor] = field(default_factory=dict)
    """(B, width) of each inner layer asked for"""
    attacked: Captured | None = None
    """the same samples under attack; None without one"""


@dataclass(frozen=True)
class Options:
    """How to run a model. See :func:`neuralcollapse.measure`."""

    classifier: str | None = None
    layers: Sequence[str] | Literal["all"] | None = None
    pooling: Pooling | Mapping[str, Pooling] | None = None
    forward: Callable[..., Any] | None = None
    batch: Callable[[Any], tuple[Any, Any]] | None = None
    device: torch.device | str | None = None
    features_only: bool = False
    progress: bool | None = None
    task: Task = "classification"
    attack: Attack | None = None
