from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA

from neuralcollapse import regression_metrics


def draw(n: int, d: int, seed: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((60, n)) @ rng.standard_normal((n, n)) + 5
    weight = rng.standard_normal((n, d))
    features = targets @ np.linalg.pinv(weight).T + noise * rng.standard_normal((60, d)) + 3
    return features, targets, weight


def nrc3(weight: np.ndarray, root: np.ndarray, shift: float) -> float:
    gram, other = weight @ weight.T, root - shift * np.eye(len(root))
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - other / np.linalg.norm(other)) ** 2)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 8), (2, 5), (3, 3), (4, 20), (4, 80)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_measures_against_numpy(n: int, d: int, seed: int) -> None:
    features, targets, weight = draw(n, d, seed)
    found = regression_metrics(*(torch.tensor(part) for part in (features, targets, weight)))
    centred = features - features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    principal = PCA(n, svd_solver="full").fit(features).components_
    kept = np.linalg.norm(unit @ principal.T, axis=1) ** 2
    projector = weight.T @ np.linalg.inv(weight @ weight.T) @ weight
    read = np.einsum("ij,jk,ik->i", unit, projector, unit)
    if n < d:
        assert found.nrc1 == pytest.approx(1 - kept.mean(), abs=1e-10)
        assert found.nrc2 == pytest.approx(1 - read.mean(), abs=1e-10)
    else:  # nothing can be outside the whole space, in any network
        assert [kept.mean(), read.mean()] == pytest.approx([1, 1])
        assert math.isnan(found.nrc1)
        assert math.isnan(found.nrc2)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert found.stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2)
    root = np.real(sqrtm(np.atleast_2d(np.cov(targets.T, bias=True))))
    least = np.linalg.eigvalsh(root)[0]
    best = min(nrc3(weight, root, shift) for shift in np.linspace(0, 0.999999 * least, 400))
    if n > 1:
        refined = minimize_scalar(
            lambda shift: nrc3(weight, root, shift), bounds=(0, least), method="bounded", options={"xatol": 1e-12}
        )
        best = min(best, refined.fun)
        assert nrc3(weight, root, found.gamma**0.5) == pytest.approx(found.nrc3, abs=1e-9)
    if n == 1:  # WW' and Σ^½ are 1 in every network, once scaled
        assert best == 0
        assert all(math.isnan(value) for value in (found.nrc3, found.gamma, found.alignment))
        return
    assert found.nrc3 == pytest.approx(best, abs=1e-6)
    gram = weight @ weight.T
    cosine = (gram * root).sum() / np.linalg.norm(gram) / np.linalg.norm(root)
    assert found.alignment == pytest.approx(1 - cosine, abs=1e-10)


def test_no_shift_is_best_where_every_shift_is_as_good() -> None:
    targets = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    features, weight = (np.random.default_rng(0).standard_normal(shape) for shape in ((4, 3), (2, 3)))
    found = regression_metrics(features, targets, weight)
    root = np.sqrt(0.5) * np.eye(2)
    assert math.isnan(found.gamma)
    assert found.nrc3 == pytest.approx(nrc3(weight, root, 0.0), abs=1e-12)
    assert found.nrc3 == pytest.approx(nrc3(weight, root, 0.3), abs=1e-12)


def test_a_collapsed_network_reads_zero_with_the_shift_it_has() -> None:
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((200, 3)) @ np.diag([1.0, 2.0, 3.0])
    centred = targets - targets.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / 200)
    shift = 0.4
    weight = (vectors * np.sqrt(np.sqrt(values) - shift)) @ np.linalg.qr(rng.standard_normal((10, 3)))[0].T
    features = centred @ np.linalg.pinv(weight).T
    found = regression_metrics(*(torch.tensor(part) for part in (features, targets, weight)))
    assert max(found.nrc1, found.nrc2, found.nrc3) < 1e-12
    assert found.gamma == pytest.approx(shift**2, rel=1e-5)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    features, targets, weight = (torch.tensor(part) for part in draw(2, 4, 0))
    for bad, match in (
        ((features[:1], targets[:1], weight), "N at least 2"),
        ((features, targets[:-1], weight), "targets have shape"),
        ((features, targets[:, 0], weight), "targets have shape"),
        ((features, targets, weight.T), "weight has shape"),
        ((features[:, :1], targets, weight[:, :1]), "at least as many features"),
        ((features * torch.nan, targets, weight), "features has non-finite"),
        ((torch.ones_like(features), targets, weight), "features do not vary"),
        ((features, torch.ones_like(targets), weight), "targets do not vary"),
        ((features, targets, torch.zeros_like(weight)), "weight is zero"),
    ):
        with pytest.raises(ValueError, match=match):
            regression_metrics(*bad)


def test_targets_that_vary_along_one_direction_alone_are_measured() -> None:
    features, targets, weight = draw(2, 5, 0)
    targets[:, 1] = 2 * targets[:, 0]
    found = regression_metrics(*(torch.tensor(part) for part in (features, targets, weight)))
    root = np.real(sqrtm(np.cov(targets.T, bias=True)))
    assert found.nrc3 == pytest.approx(nrc3(weight, root, 0.0), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2])
def test_shares_outside_the_whole_space_are_undefined(n: int) -> None:
    """With as many targets as features both are 0 in every network, trained or not."""
    rng = torch.Generator().manual_seed(0)
    features, targets = torch.randn(50, n, generator=rng), torch.randn(50, n, generator=rng)
    found = regression_metrics(features, targets, torch.randn(n, n, generator=rng))
    assert math.isnan(found.nrc1)
    assert math.isnan(found.nrc2)
    one = torch.zeros(n, n)
    one[0, 0] = 1.0
    assert math.isnan(regression_metrics(features, targets, one).nrc2) == (n == 1)
