from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralcollapse import one_vs_rest_margin
from neuralcollapse.ufm.codes import margin_bounds, softmax_code


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8, 31])
def test_the_plane(k: int) -> None:
    code = softmax_code(k, 2)
    expected = k / (k - 1) if k <= 3 else 1 - math.cos(2 * math.pi / k)
    assert code.exact
    assert abs(code.margin - expected) < 1e-9


@pytest.mark.parametrize(
    ("k", "d", "margin"), [(4, 3, 4 / 3), (9, 8, 9 / 8), (5, 3, 1), (6, 3, 1), (8, 4, 1), (11, 7, 1)]
)
def test_where_theory_has_the_code(k: int, d: int, margin: float) -> None:
    code = softmax_code(k, d)
    assert code.exact
    assert code.vectors.shape == (k, d)
    assert abs(code.margin - margin) < 1e-9
    assert code.lower == code.upper == code.margin


def test_a_searched_code_beats_random_vectors_and_lies_within_the_bounds() -> None:
    code = softmax_code(9, 3, starts=2)
    assert not code.exact
    np.testing.assert_allclose(np.linalg.norm(code.vectors, axis=1), 1, rtol=1e-12)
    assert code.margin == one_vs_rest_margin(torch.tensor(code.vectors)).margin
    assert margin_bounds(9, 3)[0] <= code.margin <= code.upper
    assert code.margin == pytest.approx(2 / 3, abs=1e-9)  # the tricapped prism
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert float(one_vs_rest_margin(torch.tensor(rng.standard_normal((9, 3))))) < code.margin
    nudged = code.vectors + 1e-3 * rng.standard_normal((9, 3))
    assert float(one_vs_rest_margin(torch.tensor(nudged))) < code.margin


def test_the_icosahedron() -> None:
    assert softmax_code(12, 3, starts=1).margin == pytest.approx(1 - 1 / math.sqrt(5), abs=1e-9)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("arguments", "match"), [
    ((1, 3), "num_classes=1"), ((3, 0), "feature_dim=0"), ((3, 1), "=1 holds"), ((4, 2.5), "feature_dim=2.5"),
])  # fmt: skip
def test_bad_input_is_refused(arguments: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        softmax_code(*arguments)
