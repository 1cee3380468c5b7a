"""Torch modules, and the anatomy of models that users bring."""

from neuralcollapse.nn.backbones import build_backbone
from neuralcollapse.nn.conversion import fix_classifier, set_feature_dim, use_prototypes
from neuralcollapse.nn.etf_classifier import ETFClassifier, PrototypeClassifier
from neuralcollapse.nn.savings import Savings, parameter_savings
from neuralcollapse.nn.small_maps import multiply_small_maps
from neuralcollapse.nn.surgery import find_classifier

__all__ = [
    "ETFClassifier",
    "PrototypeClassifier",
    "Savings",
    "build_backbone",
    "find_classifier",
    "fix_classifier",
    "multiply_small_maps",
    "parameter_savings",
    "set_feature_dim",
    "use_prototypes",
]
