"""Measures of the dimension that features use, layer by layer."""

from __future__ import annotations

from neuralcollapse.geometry.measures.record import Measure

_SVD = "O(d³) from a stream's d x d covariance"

DIMENSION = (
    Measure(
        name="effective_rank",
        title="Effective rank",
        group="dimension",
        formula=r"\exp\Bigl(-\sum_i p_i \log p_i\Bigr), \quad p_i = \sigma_i \big/ \sum_j \sigma_j",
        source="Roy and Vetterli 2007 (EUSIPCO)",
        meaning="How many directions the centred features fill, counted by the entropy of their singular values.",
        ideal="min(K - 1, d)",
        direction="near",
        range=(1.0, float("inf")),
        cost=_SVD,
        family="depth",
    ),
    Measure(
        name="stable_rank",
        title="Stable rank",
        group="dimension",
        formula=r"\lVert H \rVert_F^2 / \lVert H \rVert_2^2",
        source="Rudelson and Vershynin 2007 (JACM 54)",
        meaning="How many directions the centred features fill, counted by their variance relative to the largest.",
        ideal="min(K - 1, d), or at most n targets",
        direction="near",
        range=(1.0, float("inf")),
        cost=_SVD,
        family="depth",
    ),
    Measure(
        name="numerical_rank",
        title="Numerical rank",
        group="dimension",
        formula=r"\#\{i : \sigma_i > \varepsilon \sigma_1\}",
        source="Golub and Van Loan, Matrix Computations, Section 5.4",
        meaning="How many singular values of the centred features exceed a share ε of the largest: 1% where layers "
        "are compared.",
        ideal="min(K - 1, d)",
        direction="near",
        range=(1.0, float("inf")),
        cost=_SVD,
        family="depth",
    ),
)
