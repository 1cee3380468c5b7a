"""The ways out of common mistakes in features and labels, for the errors that refuse them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

CLASS_INDICES = "turn each name into its class index, as in [classes.index(name) for name in labels]"
"""The way out of labels that are names."""


def not_numbers(values: Any, name: str) -> str:
    """What something without numbers is; and where it should be labels, how names become class indices."""
    kind = f"a {type(values).__name__}"
    if isinstance(values, str):
        return f"{kind}: expected numbers"
    if not holds_strings(values):
        return f"{kind} of {np.asarray(values).dtype}: expected numbers"
    return f"{kind} of strings: " + (CLASS_INDICES if name == "labels" else "expected numbers")


def holds_strings(values: Any) -> bool:
    """Whether something that is no tensor holds strings."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    return array.dtype.kind in "US" or any(isinstance(item, str) for item in array.flat)


def as_integers(values: Any, tensor: Tensor) -> str:
    """How whole numbers of another kind, given as ``values``, become the integers that labels are."""
    if tensor.is_complex() or not bool((tensor.double().frac() == 0).all()):
        return ""
    ways = {Tensor: "pass labels.long()", np.ndarray: "pass labels.astype(int)"}
    return "; " + next((way for kind, way in ways.items() if isinstance(values, kind)), "pass whole numbers")


def to_matrix(features: Tensor) -> str:
    """How features with more axes than two become one row per sample."""
    if features.ndim < 3:
        return ""
    return "; flatten each sample with features.flatten(1), or average over its positions"
