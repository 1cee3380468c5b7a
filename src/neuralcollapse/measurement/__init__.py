"""Collapse of a real model over real data, or of features on disk.

``metric`` is loaded apart: torchmetrics imports half of the ecosystem.
"""

from neuralcollapse.measurement.embeddings import load_embeddings
from neuralcollapse.measurement.model import CollapseReport, measure

__all__ = ["CollapseReport", "load_embeddings", "measure"]
