from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcollapse import effective_rank, numerical_rank, separation_law, stable_rank


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 12), d=st.integers(1, 12), seed=st.integers(0, 10**6), scale=st.sampled_from([1e-200, 1.0, 1e200])
)
def test_ranks_against_numpy(n: int, d: int, seed: int, scale: float) -> None:
    matrix = np.random.default_rng(seed).standard_normal((n, d))
    singular = np.linalg.svd(matrix, compute_uv=False)
    shares = singular / singular.sum()
    tensor = torch.tensor(scale * matrix)
    assert effective_rank(tensor) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-10)
    assert stable_rank(tensor) == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-10)
    assert numerical_rank(tensor) == min(n, d)
    assert 1 <= stable_rank(tensor) <= min(n, d) + 1e-12
    assert 1 <= effective_rank(tensor) <= min(n, d)


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_of_a_matrix_of_low_rank(rank: int, dtype: torch.dtype) -> None:
    matrix = torch.randn(40, rank, dtype=dtype) @ torch.randn(rank, 20, dtype=dtype)
    assert numerical_rank(matrix) == rank
    assert numerical_rank(matrix, 0.9999) <= rank
    assert effective_rank(matrix) < rank + 0.01


def test_the_law_of_separation() -> None:
    rng = np.random.default_rng(0)
    values = 50 * 0.3 ** np.arange(8) * np.exp(0.05 * rng.standard_normal(8))
    slope, intercept = np.polyfit(np.arange(8), np.log(values), 1)
    law = separation_law(values.tolist())
    assert law.rate == pytest.approx(math.exp(slope), rel=1e-10)
    assert law.start == pytest.approx(math.exp(intercept), rel=1e-10)
    assert law.correlation == pytest.approx(np.corrcoef(np.arange(8), np.log(values))[0, 1], rel=1e-10)
    assert separation_law(torch.tensor(7 * values)).rate == pytest.approx(law.rate, rel=1e-10)
    still = separation_law([2.0, 2.0, 2.0])
    assert still.rate == 1
    assert math.isnan(still.correlation)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    for rank in (effective_rank, stable_rank, numerical_rank):
        for bad in (torch.zeros(2, 2), torch.ones(3), torch.zeros(0, 2), torch.full((2, 2), torch.inf)):
            with pytest.raises(ValueError, match="matrix"):
                rank(bad)
    for tolerance in (-1e-3, 1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance="):
            numerical_rank(torch.eye(2), tolerance)
    with pytest.raises(ValueError, match="at least 2 layers"):
        separation_law([1.0])
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"separations\[1\]"):
            separation_law([1.0, bad])
