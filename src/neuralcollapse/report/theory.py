"""A run beside the global optimum of the unconstrained feature model, in words and rows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuralcollapse.report.template import number

_SIZES = {
    "weight": "‖W‖, norm of the classifier",
    "features": "‖H̄‖, norm of the centred class means",
    "loss": "Cross-entropy",
}
_DECAY_IN_THE_LOSS = ("sgd", "adam", "lbfgs", "rmsprop", "adagrad", "adadelta")
"""Optimizers whose weight decay is a penalty in the loss, as the model has it. AdamW's is not."""
_MOST_CLASSES = 100
"""Where there is no closed form: with more, the solver would take minutes."""


def theory_of(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section about the theory shows; None where the run has no prediction.

    A prediction needs the run's ``optimizer`` and ``weight_decay``, and a snapshot of its last epoch.

    Args:
        folder: of the run.
        config: plain values that say how it was made.
    """
    if str(config.get("optimizer")).lower() not in _DECAY_IN_THE_LOSS:
        return None
    from neuralcollapse.train.config import TrainConfig
    from neuralcollapse.train.optimality import certify_snapshot
    from neuralcollapse.train.snapshot import last_snapshot

    with contextlib.suppress(ValueError, FileNotFoundError, TypeError):  # no decay, no snapshot, or no number
        decay, on_features = (config.get(f"{name}_decay") for name in ("weight", "feature"))
        last = last_snapshot(folder)
        classes, dim = last.weight.shape
        if classes > _MOST_CLASSES and dim < classes - 1:
            return None
        choices = TrainConfig(
            weight_decay=float(decay or 0),
            feature_decay=None if on_features is None else float(on_features),
            head="etf" if config.get("head") == "etf" else "learned",
        )
        return section_of(certify_snapshot(choices, last).to_dict())
    return None


def section_of(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence, the rows and what was fitted.

    Args:
        numbers: by name, as :meth:`neuralcollapse.train.optimality.Optimality.to_dict` has them.

    >>> sizes = {f"{n}_{k}": 2.0 for n in ("weight", "features", "loss") for k in ("measured", "predicted")}
    >>> section_of(sizes | {"value": 1.1, "lower_bound": 1.0, "gap": 0.1, "lambda_fitted": "nothing"})["rows"][-1]
    ('Loss with penalties, f', '1.1', '1', '+10.0%')
    """
    rows = [
        _row(text, numbers[f"{name}_measured"], numbers[f"{name}_predicted"])
        for name, text in _SIZES.items()
        if numbers.get(f"{name}_measured") is not None
    ]
    value, bound = numbers["value"], numbers["lower_bound"]
    rows.append(_row("Loss with penalties, f", value, bound))
    sentence = (
        f"With its penalties, the loss of this network is {number(value)}. A dual certificate proves that no network "
        f"can be below {number(bound)} in that model."
    )
    return {"sentence": sentence, "rows": rows, "fitted": numbers["lambda_fitted"]}


def _row(text: str, measured: float, predicted: float) -> tuple[str, str, str, str]:
    difference = f"{measured / predicted - 1:+.1%}".replace("-", "−") if predicted else "–"
    return text, number(measured), number(predicted), difference
