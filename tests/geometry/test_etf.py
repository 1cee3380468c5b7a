from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.linalg import orthogonal_procrustes

from neuralcollapse import etf_distance, nearest_etf, simplex_etf
from neuralcollapse.geometry.etf import lowest_frame_distance


@settings(max_examples=50, deadline=None)
@given(k=st.integers(2, 12), extra=st.integers(-1, 6), rotation=st.sampled_from(["canonical", "random"]))
def test_gram_matrix_is_the_simplex(k: int, extra: int, rotation: str) -> None:
    etf = simplex_etf(k, k + extra, rotation=rotation, dtype=torch.float64).numpy()
    ideal = k / (k - 1) * (np.eye(k) - 1 / k)
    np.testing.assert_allclose(etf @ etf.T, ideal, atol=1e-13)


def test_canonical_is_the_papers_footnote_14() -> None:
    etf = simplex_etf(4, 6, dtype=torch.float64)
    lift = torch.eye(6, 4, dtype=torch.float64)
    expected = (4 / 3) ** 0.5 * lift @ (torch.eye(4, dtype=torch.float64) - 0.25)
    torch.testing.assert_close(etf, expected.T)


def test_random_rotation_follows_its_generator() -> None:
    drawn = [simplex_etf(3, 5, rotation="random", generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("k", "d"), [(5, 9), (40, 6), (3, 2), (1500, 30)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_distance_is_equation_8(k: int, d: int, scale: float) -> None:
    weight = np.random.default_rng(0).standard_normal((k, d))
    gram = weight @ weight.T
    ideal = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    expected = np.linalg.norm(gram / np.linalg.norm(gram) - ideal)
    assert etf_distance(torch.tensor(weight * scale)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [7, 11])
def test_distance_keeps_its_digits_near_collapse(d: int) -> None:
    etf = simplex_etf(8, d, dtype=torch.float64)
    step = torch.randn(etf.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (etf_distance(etf + size * step) for size in (1e-7, 1e-9))
    assert first / second == pytest.approx(100, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(k=st.integers(3, 14), d=st.integers(1, 14), seed=st.integers(0, 99))
def test_no_matrix_is_nearer_than_the_lowest_distance_and_a_truncated_simplex_is_as_near(
    k: int, d: int, seed: int
) -> None:
    lowest = lowest_frame_distance(k, d)
    assert etf_distance(np.random.default_rng(seed).standard_normal((k, d))) >= lowest - 1e-9
    left, singular, _ = np.linalg.svd(np.eye(k) - 1 / k)
    kept = min(d, k - 1)
    assert etf_distance(left[:, :kept] * singular[:kept]) == pytest.approx(lowest, abs=1e-6)
    assert (lowest == 0) is (d >= k - 1)


def test_nearest_etf_agrees_with_scipys_procrustes() -> None:
    weight = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ideal = simplex_etf(5, 8, dtype=torch.float64).numpy()
    rotation, total = orthogonal_procrustes(ideal, weight.numpy())
    expected = total / (ideal**2).sum() * ideal @ rotation
    found = nearest_etf(weight)
    assert etf_distance(found) < 1e-13
    error = np.linalg.norm(found.numpy() - weight.numpy())
    assert error == pytest.approx(np.linalg.norm(expected - weight.numpy()), rel=1e-12)


@pytest.mark.parametrize("rotation", ["canonical", "random"])
@pytest.mark.parametrize("shape", [(10**6, 10**6), (10**6, 10**6 - 1)])
def test_a_frame_beyond_memory_is_refused_with_its_size(shape: tuple[int, int], rotation: str) -> None:
    with pytest.raises(MemoryError, match=r"num_classes=1000000 .* 8,000 GB .* choose fewer classes or features"):
        simplex_etf(*shape, rotation=rotation)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simplex_etf(10, 8), "feature_dim=8 cannot hold a simplex ETF of 10 classes: pass at least 9"),
        (lambda: simplex_etf(1, 8), "num_classes=1"),
        (lambda: simplex_etf(3, 8, rotation="haar"), "rotation='haar' is unknown"),
        (lambda: etf_distance(torch.ones(3)), "must be K x d"),
        (lambda: etf_distance(torch.full((3, 2), torch.nan)), "non-finite"),
        (lambda: nearest_etf(torch.ones(4, 2)), "at least 3"),
    ],
)  # fmt: skip
def test_bad_input_names_argument_and_constraint(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
