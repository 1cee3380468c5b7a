"""Torch modules, and the anatomy of models that users bring."""

from neuralcollapse.nn.backbones import build_backbone
from neuralcollapse.nn.surgery import find_classifier

__all__ = ["build_backbone", "find_classifier"]
