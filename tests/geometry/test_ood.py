from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from neuralcollapse import NCI, NECO, ClassStatistics, measure, simplex_etf
from tests.cases import CASES, Case, draw


def gather(case: Case) -> ClassStatistics:
    statistics = ClassStatistics(len(case.weight), case.features.shape[1])
    statistics.update(case.features, case.labels)
    return statistics


USUAL = [case for case in CASES if case.name in ("balanced", "unequal", "wide", "float64")]


@pytest.mark.parametrize("case", USUAL, ids=repr)
@pytest.mark.parametrize("standardize", [False, True])
def test_neco_against_scikit_learn(case: Case, standardize: bool) -> None:
    x = case.features.double().numpy()
    scaler = StandardScaler(with_mean=standardize, with_std=standardize).fit(x)
    scaled = scaler.transform(x)
    directions = PCA(len(case.weight) - 1, svd_solver="full").fit(scaled).components_
    other = np.random.default_rng(1).standard_normal((50, x.shape[1]))
    neco = NECO(gather(case), standardize=standardize)
    tolerance = 1e-9 if case.features.dtype == torch.float64 else 1e-3
    for points in (x, other):
        moved = scaler.transform(points)
        wanted = np.linalg.norm(moved @ directions.T, axis=1) / np.linalg.norm(moved, axis=1)
        np.testing.assert_allclose(neco.score(torch.tensor(points)).numpy(), wanted, atol=tolerance)


@pytest.mark.parametrize(("classes", "dim"), [(4, 3), (12, 5)])
def test_neco_of_all_directions_would_say_nothing(classes: int, dim: int) -> None:
    statistics = ClassStatistics(classes, dim)
    features = torch.randn(60, dim, generator=torch.Generator().manual_seed(0))
    statistics.update(features, torch.arange(60) % classes)
    with pytest.raises(ValueError, match="every score would be 1: choose a smaller dimension"):
        NECO(statistics)
    assert NECO(statistics, dimension=dim - 1).score(features).std() > 0.01
    with pytest.raises(ValueError, match=f"dimension={dim} must be between 1 and {dim - 1}"):
        NECO(statistics, dimension=dim)


def test_classes_without_samples_span_no_direction() -> None:
    """Eight classes, four of which occur: three principal directions, by NumPy."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    features = (4 * rng.standard_normal((4, 6)) + 6)[labels] + rng.standard_normal((200, 6))
    statistics = ClassStatistics(8, 6)
    statistics.update(torch.from_numpy(features), torch.from_numpy(labels))
    main = np.linalg.eigh(np.cov(features.T))[1][:, -3:]
    points = rng.standard_normal((5, 6))
    expected = np.linalg.norm(points @ main, axis=1) / np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(NECO(statistics).score(torch.from_numpy(points)), expected, rtol=1e-6)
    single = ClassStatistics(8, 6)
    single.update(torch.from_numpy(features), torch.zeros(200, dtype=torch.long))
    with pytest.raises(ValueError, match="of which there is 1"):
        NECO(single)


def test_neco_on_orthogonal_data() -> None:
    labels = torch.arange(600) % 4
    basis = torch.linalg.qr(torch.randn(20, 20)).Q
    inside = 3 * simplex_etf(4, 20)[labels] @ basis.T + 0.05 * torch.randn(600, 20)
    outside = torch.randn(300, 12) @ basis[:, 8:].T
    statistics = ClassStatistics(4, 20)
    statistics.update(inside, labels)
    neco = NECO(statistics)
    assert neco.score(inside).min() > neco.score(outside).max()
    logits = torch.randn(600, 4)
    torch.testing.assert_close(neco.score(inside, logits), neco.score(inside) * logits.amax(1))
    assert neco.score(torch.zeros(1, 20)).item() == 0


def test_a_coordinate_that_does_not_vary_is_only_centred() -> None:
    case = draw(dim=5, dtype=torch.float64)
    case.features[:, 2] = 7.0
    scores = NECO(gather(case), standardize=True).score(case.features)
    assert bool(scores.isfinite().all())
    assert float(scores.max()) <= 1 + 1e-12


@pytest.mark.parametrize("case", USUAL, ids=repr)
@pytest.mark.parametrize("alpha", [0.0, 1e-2])
def test_nci_against_numpy(case: Case, alpha: float) -> None:
    x, w, b = (part.double().numpy() for part in (case.features, case.weight, case.bias))
    nci = NCI(gather(case), case.weight, case.bias, alpha=alpha)
    centred = x - x.mean(0)
    along = np.einsum("ij,ij->i", w[(x @ w.T + b).argmax(1)], centred) / np.linalg.norm(centred, axis=1)
    wanted = along + alpha * np.abs(x).sum(1)
    np.testing.assert_allclose(nci.score(torch.tensor(x)).numpy(), wanted, rtol=1e-5, atol=1e-6)
    logits = torch.tensor(x @ w.T + b)
    np.testing.assert_allclose(nci.score(torch.tensor(x), logits), nci.score(torch.tensor(x)), rtol=1e-12)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    case = draw()
    statistics = gather(case)
    for dimension in (0, 7):
        with pytest.raises(ValueError, match=f"dimension={dimension}"):
            NECO(statistics, dimension)
    for dimension in (2.0, "2", True):
        with pytest.raises(TypeError, match=f"dimension={dimension!r} is a {type(dimension).__name__}"):
            NECO(statistics, dimension)
    assert NECO(statistics, np.int64(2)).score(case.features).shape == (len(case.labels),)
    traces = ClassStatistics(4, 6, within="traces")
    traces.update(case.features, case.labels)
    with pytest.raises(ValueError, match="within='full'"):
        NECO(traces)
    with pytest.raises(ValueError, match=r"features have shape \(1, 5\): expected \(B, 6\)"):
        NECO(statistics).score(torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"expected \(B, 6\); flatten each sample with features.flatten\(1\)"):
        NECO(statistics).score(torch.zeros(1, 6, 2, 2))
    report = measure(torch.nn.Linear(6, 4), [(case.features, case.labels)])
    for score in (NECO, lambda found: NCI(found, case.weight)):
        with pytest.raises(TypeError, match=r"statistics is a CollapseReport: pass its \.statistics"):
            score(report)
        with pytest.raises(TypeError, match="statistics is a Tensor: pass ClassStatistics of the training features"):
            score(case.features)
    with pytest.raises(ValueError, match="logits have shape"):
        NCI(statistics, case.weight).score(case.features, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="weight has shape"):
        NCI(statistics, case.weight[:2])
    with pytest.raises(ValueError, match="bias has shape"):
        NCI(statistics, case.weight, case.bias[:2])
    with pytest.raises(ValueError, match="seen no samples"):
        NCI(ClassStatistics(4, 6), case.weight)
    for alpha in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="alpha="):
            NCI(traces, case.weight, alpha=alpha)
