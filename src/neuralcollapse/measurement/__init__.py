"""Collapse of a real model over real data, or of features on disk.

``metric`` is loaded apart: torchmetrics imports half of the ecosystem.
"""

from neuralcollapse.measurement.attack import Attack, AttackReport
from neuralcollapse.measurement.embeddings import load_embeddings
from neuralcollapse.measurement.extraction import ExtractedFeatures, extract_features
from neuralcollapse.measurement.model import measure
from neuralcollapse.measurement.multilabel import MultilabelReport
from neuralcollapse.measurement.regression_report import RegressionReport
from neuralcollapse.measurement.report import CollapseReport

__all__ = [
    "Attack",
    "AttackReport",
    "CollapseReport",
    "ExtractedFeatures",
    "MultilabelReport",
    "RegressionReport",
    "extract_features",
    "load_embeddings",
    "measure",
]
