"""The registry of measures: name, formula, source, ideal value, direction, range and meaning of each.

Tables, column heads, plots, documentation and ``--help`` take their words from here. It imports no torch, so that it
costs nothing where only names are needed.
"""

from __future__ import annotations

from neuralcollapse.geometry.measures.classifier import CLASSIFIER
from neuralcollapse.geometry.measures.dimension import DIMENSION
from neuralcollapse.geometry.measures.features import FEATURES
from neuralcollapse.geometry.measures.many_classes import MANY_CLASSES
from neuralcollapse.geometry.measures.record import GROUPS, HEADLINE, Family, Group, Measure
from neuralcollapse.geometry.measures.tasks import ATTACK, MULTILABEL, REGRESSION

__all__ = ["GROUPS", "HEADLINE", "MEASURES", "Family", "Group", "Measure", "measure_named"]

_ALL = (*FEATURES, *CLASSIFIER, *MANY_CLASSES, *MULTILABEL, *REGRESSION, *DIMENSION, *ATTACK)

MEASURES: dict[str, Measure] = {measure.name: measure for group in GROUPS for measure in _ALL if measure.group == group}
"""Every measure by name, group by group."""


def measure_named(name: str) -> Measure:
    """The record of a measure.

    Raises:
        ValueError: if there is none of that name.

    >>> measure_named("nc1").source
    'Zhu et al. 2021 (arXiv 2105.02375), equation (7)'
    """
    if name not in MEASURES:
        raise ValueError(f"measure {name!r} is unknown: choose one of {', '.join(MEASURES)}")
    return MEASURES[name]
