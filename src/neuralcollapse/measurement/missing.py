"""Classes without samples are named once, of the features of the classifier."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from neuralcollapse.geometry.collapse import CollapseWarning


@contextlib.contextmanager
def not_said_again(allow_missing: bool) -> Iterator[None]:
    """Around the measures of inner layers: the warning that classes are missing, and no other, is left out.

    Args:
        allow_missing: whether they may be; otherwise nothing is filtered.
    """
    if not allow_missing:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ classes have no samples", CollapseWarning)
        yield
