"""Pure linear algebra of neural collapse: the simplex ETF, class statistics, the published measures."""

from neuralcollapse.geometry.collapse import (
    CollapseMetrics,
    collapse_metrics,
    measure_features,
    ncc_mismatch,
)
from neuralcollapse.geometry.etf import etf_distance, nearest_etf, simplex_etf
from neuralcollapse.geometry.statistics import ClassStatistics

__all__ = [
    "ClassStatistics",
    "CollapseMetrics",
    "collapse_metrics",
    "etf_distance",
    "measure_features",
    "ncc_mismatch",
    "nearest_etf",
    "simplex_etf",
]
