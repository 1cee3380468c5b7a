"""What a model returned: logits, features, or records and tuples that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: a tensor, or a record (Hugging Face, torchvision) that holds them.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    found = getattr(output, "logits", output[0] if isinstance(output, tuple | list) else None)
    if not isinstance(found, Tensor):
        raise ValueError(f"the model returned a {type(output).__name__} without logits")
    return found


def logits_in(returned: Any, samples: int, num_classes: int) -> list[Tensor]:
    """Tensors of the shape of logits in what a model returned, however nested."""
    if isinstance(returned, Tensor):
        fits = returned.shape == (samples, num_classes) and returned.is_floating_point()
        return [returned] if fits else []
    if isinstance(returned, Mapping):
        parts = list(returned.values())
    elif isinstance(returned, tuple | list):
        parts = list(returned)
    else:
        parts = list(vars(returned).values()) if hasattr(returned, "__dict__") else []
        parts = [part for part in parts if isinstance(part, Tensor | tuple | list | Mapping)]
    return [tensor for part in parts for tensor in logits_in(part, samples, num_classes)]


def main_output(returned: Any) -> Tensor | None:
    """The tensor that a model returned as its result: the only one, or that under the name ``logits``."""
    if isinstance(returned, Mapping):
        returned = returned.get("logits")
    found = returned if isinstance(returned, Tensor) else getattr(returned, "logits", None)
    return found if isinstance(found, Tensor) else None


def as_features(output: Any, samples: int) -> Tensor:
    """(samples, d) of a model that gives features and no logits.

    Raises:
        ValueError: if its output is something else.
    """
    found = getattr(output, "pooler_output", None)
    found = output if found is None else found
    found = found[0] if isinstance(found, tuple | list) and found else found
    if isinstance(found, Tensor) and found.ndim > 2 and math.prod(found.shape[2:]) == 1:
        found = found.reshape(found.shape[:2])
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != samples:
        shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"features_only=True: the model gave {shape}, not one feature vector for each of {samples} samples: pass "
            "forward=, a function of (model, inputs) that returns them"
        )
    return found.detach().clone()
