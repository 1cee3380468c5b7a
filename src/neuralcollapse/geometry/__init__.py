"""Pure linear algebra of neural collapse: the simplex ETF, class moments, the published measures."""

from neuralcollapse.geometry.collapse import CollapseMetrics, CollapseWarning, collapse_metrics, measure_features
from neuralcollapse.geometry.etf import etf_distance, nearest_etf, simplex_etf
from neuralcollapse.geometry.moments import Moments
from neuralcollapse.geometry.ncc import ncc_mismatch
from neuralcollapse.geometry.statistics import ClassStatistics

__all__ = [
    "ClassStatistics",
    "CollapseMetrics",
    "CollapseWarning",
    "Moments",
    "collapse_metrics",
    "etf_distance",
    "measure_features",
    "ncc_mismatch",
    "nearest_etf",
    "simplex_etf",
]
