"""Collapse of a real model over real data, or of features on disk.

``metric`` is loaded apart: torchmetrics imports half of the ecosystem.
"""

from neuralcollapse.measurement.embeddings import load_embeddings
from neuralcollapse.measurement.model import ExtractedFeatures, extract_features, measure
from neuralcollapse.measurement.report import CollapseReport

__all__ = ["CollapseReport", "ExtractedFeatures", "extract_features", "load_embeddings", "measure"]
