"""Names of columns as a reader sees them; the measures' own come from their registry."""

from __future__ import annotations

from neuralcollapse.geometry.measures import HEADLINE, MEASURES

_WORDS = {"train": "training"}


def title(name: str) -> str:
    """A column's name as a reader sees it.

    >>> title("nc1"), title("test_nc1"), title("train_accuracy"), title("nc4_relative")
    ('NC1', 'NC1, test set', 'training accuracy', 'NC4 relative to the logits')
    """
    measured = name.removeprefix("test_")
    if measured in HEADLINE:
        found = MEASURES[measured].label
    elif measured in MEASURES and measured != "accuracy":
        found = MEASURES[measured].title
    else:
        return " ".join(_WORDS.get(word, word) for word in name.split("_"))
    return f"{found}, test set" if measured != name else found
