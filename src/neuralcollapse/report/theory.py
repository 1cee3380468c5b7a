"""A run beside the global optimum of the unconstrained feature model, in words and rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neuralcollapse.report.template import number

Certify = Callable[[Path], Mapping[str, Any]]
"""Numbers of a run folder by name, as ``neuralcollapse.paper.optimality.Optimality.to_dict()`` has them."""

_SIZES = {
    "weight": "‖W‖, norm of the classifier",
    "features": "‖H̄‖, norm of the centred class means",
    "loss": "Cross-entropy",
}


def theory_of(folder: Path, certify: Certify) -> dict[str, Any] | None:
    """What the section about the theory shows; None where the run has no prediction."""
    with contextlib.suppress(ValueError, FileNotFoundError):  # no decay, no snapshot, or another program's run
        return section_of(certify(folder))
    return None


def section_of(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The sentence, the rows and what was fitted.

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
        f"With its penalties, the loss of this network is {number(value)}; no network can be below {number(bound)} in "
        "that model, which a dual certificate proves."
    )
    return {"sentence": sentence, "rows": rows, "fitted": numbers["lambda_fitted"]}


def _row(text: str, measured: float, predicted: float) -> tuple[str, str, str, str]:
    difference = f"{measured / predicted - 1:+.1%}".replace("-", "−") if predicted else "–"
    return text, number(measured), number(predicted), difference
