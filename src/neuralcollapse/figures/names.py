"""Short names and one-line meanings of the measures that figures and pages show."""

from __future__ import annotations

MEASURES = {
    "nc1": "Within-class variability",
    "nc2": "Classifier's distance from a simplex ETF",
    "nc3": "Distance from self-duality",
    "nc4": "Bias collapse",
}


def title(name: str) -> str:
    """A column's name as a reader sees it.

    >>> title("nc1"), title("test_nc1"), title("train_accuracy")
    ('NC1', 'NC1, test set', 'train accuracy')
    """
    if name.startswith("test_nc"):
        return f"{title(name.removeprefix('test_'))}, test set"
    return name.upper() if name in MEASURES else name.replace("_", " ")
