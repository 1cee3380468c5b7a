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
    "loss": "Cross-entropy in the model",
}
_MOST_CLASSES = 100
"""Where there is no closed form: with more, the solver would take minutes."""


def theory_of(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section about the theory shows; None where the run has no prediction.

    A prediction needs the run's ``optimizer`` and ``weight_decay``, and a snapshot of its last epoch.

    Args:
        folder: of the run.
        config: plain values that say how it was made.
    """
    from neuralcollapse.train.decays import choices_of
    from neuralcollapse.train.optimality import certify_snapshot
    from neuralcollapse.train.snapshot import last_snapshot

    with contextlib.suppress(ValueError, FileNotFoundError):  # no such optimizer, no decay, or no snapshot
        choices, last = choices_of(config), last_snapshot(folder)
        classes, dim = last.weight.shape
        if classes > _MOST_CLASSES and dim < classes - 1:
            return None
        return section_of(certify_snapshot(choices, last).to_dict())
    return None


def section_of(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence, the rows and what was fitted.

    Args:
        numbers: by name, as :meth:`neuralcollapse.train.optimality.Optimality.to_dict` has them.

    >>> sizes = {f"{n}_{k}": 2.0 for n in ("weight", "features", "loss") for k in ("measured", "predicted")}
    >>> numbers = {"value": 1.1, "lower_bound": 1.0, "gap": 0.1, "lambda_fitted": "nothing", "features": "class means"}
    >>> section_of(sizes | numbers)["rows"][-1]
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
        f"Put into that model ({numbers['features']}), this network has a loss with penalties of {number(value)}. A "
        f"dual certificate proves that no point of the model, with these decays, lies below {number(bound)}."
    )
    return {"sentence": sentence, "rows": rows, "fitted": numbers["lambda_fitted"]}


def _row(text: str, measured: float, predicted: float) -> tuple[str, str, str, str]:
    difference = f"{measured / predicted - 1:+.1%}".replace("-", "−") if predicted else "–"
    return text, number(measured), number(predicted), difference
