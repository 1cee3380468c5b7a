"""Pure linear algebra of neural collapse: the simplex ETF, class moments, the published measures.

Names are loaded when first used: the registry of measures (:mod:`.measures`) needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "collapse": ("collapse_metrics", "measure_features"),
    "etf": ("etf_distance", "nearest_etf", "simplex_etf"),
    "measures": ("MEASURES", "Measure"),
    "metrics": ("CollapseMetrics", "CollapseWarning"),
    "moments": ("Moments",),
    "ncc": ("ncc_mismatch",),
    "statistics": ("ClassStatistics",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "MEASURES",
    "ClassStatistics",
    "CollapseMetrics",
    "CollapseWarning",
    "Measure",
    "Moments",
    "collapse_metrics",
    "etf_distance",
    "measure_features",
    "ncc_mismatch",
    "nearest_etf",
    "simplex_etf",
]

if TYPE_CHECKING:
    from neuralcollapse.geometry.collapse import collapse_metrics, measure_features
    from neuralcollapse.geometry.etf import etf_distance, nearest_etf, simplex_etf
    from neuralcollapse.geometry.measures import MEASURES, Measure
    from neuralcollapse.geometry.metrics import CollapseMetrics, CollapseWarning
    from neuralcollapse.geometry.moments import Moments
    from neuralcollapse.geometry.ncc import ncc_mismatch
    from neuralcollapse.geometry.statistics import ClassStatistics


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
