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
    ('NC1', 'NC1, test set', 'training accuracy')
    """
    if name.startswith("test_nc"):
        return f"{title(name.removeprefix('test_'))}, test set"
    words = {"train": "training", "nc4_relative": "NC4, relative to the logits"}
    if name in MEASURES or name in words:
        return words.get(name, name.upper())
    return " ".join(words.get(word, word) for word in name.split("_"))
