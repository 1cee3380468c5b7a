"""Measure, induce, predict and explain neural collapse in deep networks.

The public names are loaded when first used: ``import neuralcollapse`` itself is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "geometry": (
        "ClassStatistics", "CollapseMetrics", "CollapseWarning", "Moments", "collapse_metrics", "etf_distance",
        "measure_features", "nearest_etf", "simplex_etf",
    ),
    "measurement": (
        "Attack", "AttackReport", "CollapseReport", "MultilabelReport", "RegressionReport", "extract_features",
        "measure",
    ),
    "measurement.depth": ("effective_depth",),
    "measurement.language": ("measure_language_model",),
    "measurement.language_report": ("LanguageReport",),
    "measurement.metric": ("NeuralCollapse",),
    "measurement.tracker": ("CollapseTracker",),
    "geometry.grids": ("cdnv", "cdnv_grid", "cdnv_tiles", "cosine_grid", "cosine_tiles"),
    "geometry.many_classes": ("gnc1", "gnc3", "hyperspherical_uniformity", "unc3"),
    "geometry.margin": ("gnc2", "one_vs_rest_margin"),
    "geometry.multilabel": ("multilabel_metrics",),
    "geometry.ood": ("NCI", "NECO"),
    "geometry.regression": ("regression_metrics",),
    "geometry.spectra": ("effective_rank", "numerical_rank", "separation_law", "stable_rank"),
    "nn": (
        "ETFClassifier", "PrototypeClassifier", "Savings", "find_classifier", "fix_classifier", "parameter_savings",
        "set_feature_dim", "use_prototypes",
    ),
    "train": ("NeuralCollapseCallback",),
    "train.huggingface": ("NeuralCollapseTrainerCallback",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "NCI",
    "NECO",
    "Attack",
    "AttackReport",
    "ClassStatistics",
    "CollapseMetrics",
    "CollapseReport",
    "CollapseTracker",
    "CollapseWarning",
    "ETFClassifier",
    "LanguageReport",
    "Moments",
    "MultilabelReport",
    "NeuralCollapse",
    "NeuralCollapseCallback",
    "NeuralCollapseTrainerCallback",
    "PrototypeClassifier",
    "RegressionReport",
    "Savings",
    "cdnv",
    "cdnv_grid",
    "cdnv_tiles",
    "collapse_metrics",
    "cosine_grid",
    "cosine_tiles",
    "effective_depth",
    "effective_rank",
    "etf_distance",
    "extract_features",
    "find_classifier",
    "fix_classifier",
    "gnc1",
    "gnc2",
    "gnc3",
    "hyperspherical_uniformity",
    "measure",
    "measure_features",
    "measure_language_model",
    "multilabel_metrics",
    "nearest_etf",
    "numerical_rank",
    "one_vs_rest_margin",
    "parameter_savings",
    "regression_metrics",
    "separation_law",
    "set_feature_dim",
    "simplex_etf",
    "stable_rank",
    "unc3",
    "use_prototypes",
]

if TYPE_CHECKING:
    from neuralcollapse.geometry import (
        ClassStatistics,
        CollapseMetrics,
        CollapseWarning,
        Moments,
        collapse_metrics,
        etf_distance,
        measure_features,
        nearest_etf,
        simplex_etf,
    )
    from neuralcollapse.geometry.grids import cdnv, cdnv_grid, cdnv_tiles, cosine_grid, cosine_tiles
    from neuralcollapse.geometry.many_classes import gnc1, gnc3, hyperspherical_uniformity, unc3
    from neuralcollapse.geometry.margin import gnc2, one_vs_rest_margin
    from neuralcollapse.geometry.multilabel import multilabel_metrics
    from neuralcollapse.geometry.ood import NCI, NECO
    from neuralcollapse.geometry.regression import regression_metrics
    from neuralcollapse.geometry.spectra import effective_rank, numerical_rank, separation_law, stable_rank
    from neuralcollapse.measurement import (
        Attack,
        AttackReport,
        CollapseReport,
        MultilabelReport,
        RegressionReport,
        extract_features,
        measure,
    )
    from neuralcollapse.measurement.depth import effective_depth
    from neuralcollapse.measurement.language import measure_language_model
    from neuralcollapse.measurement.language_report import LanguageReport
    from neuralcollapse.measurement.metric import NeuralCollapse
    from neuralcollapse.measurement.tracker import CollapseTracker
    from neuralcollapse.nn import (
        ETFClassifier,
        PrototypeClassifier,
        Savings,
        find_classifier,
        fix_classifier,
        parameter_savings,
        set_feature_dim,
        use_prototypes,
    )
    from neuralcollapse.train import NeuralCollapseCallback
    from neuralcollapse.train.huggingface import NeuralCollapseTrainerCallback


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOME_OF[name]}")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        from neuralcollapse.extras import missing

        raise missing(f"{name} and the Hugging Face Trainer", "hf") from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
