"""Collapse of a real model over real data, or of features on disk."""

from neuralcollapse.measurement.embeddings import load_embeddings
from neuralcollapse.measurement.metric import NeuralCollapse
from neuralcollapse.measurement.model import CollapseReport, measure

__all__ = ["CollapseReport", "NeuralCollapse", "load_embeddings", "measure"]
