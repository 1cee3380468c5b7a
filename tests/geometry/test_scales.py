"""The measures beside NC1 to NC4 at scales whose squares are no numbers, against NumPy at scale one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from neuralcollapse import (
    NCI,
    NECO,
    ClassStatistics,
    Moments,
    cdnv,
    cdnv_grid,
    collapse_metrics,
    effective_rank,
    gnc3,
    multilabel_metrics,
    one_vs_rest_margin,
    regression_metrics,
    separation_law,
    stable_rank,
    unc3,
)
from neuralcollapse.geometry.angles import class_mean_angles
from tests.cases import draw

POWERS = [-980, -560, -340, 0, 340, 560, 980]
CASE = draw(sizes=(25, 20, 15), dim=8, spread=0.8, dtype=torch.float64)
X, LABEL, W, B = (part.numpy() for part in (CASE.features, CASE.labels, CASE.weight, CASE.bias))
T = np.random.default_rng(1).standard_normal((60, 3)) @ np.diag([1.0, 2.0, 3.0])


def at(array: np.ndarray, power: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(np.ldexp(array, power)).to(dtype)


def statistics(power: int) -> ClassStatistics:
    found = ClassStatistics(3, 8)
    found.update(at(X, power), torch.tensor(LABEL))
    return found


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("standardize", [False, True])
def test_neco(power: int, standardize: bool) -> None:
    shift, scale = (X.mean(0), X.std(0)) if standardize else (np.zeros(8), np.ones(8))
    moved = (X - shift) / scale
    vectors = np.linalg.eigh(np.cov(moved.T, bias=True)).eigenvectors
    wanted = np.linalg.norm(moved @ vectors[:, -2:], axis=1) / np.linalg.norm(moved, axis=1)
    found = NECO(statistics(power), standardize=standardize).score(at(X, power))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    if not standardize:  # the subspace is that of the training features, whatever the scale of others
        for other in (-700, 0, 700):
            np.testing.assert_allclose(NECO(statistics(power)).score(at(X, other)).numpy(), wanted, rtol=1e-9)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("of_weight", [-560, 0, 560])
def test_nci(power: int, of_weight: int) -> None:
    both = max(min(power + of_weight, 1000), -1000)  # the bias in the unit of W h, as near as a number gets
    bias = np.ldexp(B, both - power - of_weight)
    centred = X - X.mean(0)
    wanted = np.einsum("ij,ij->i", W[(X @ W.T + bias).argmax(1)], centred) / np.linalg.norm(centred, axis=1)
    nci = NCI(statistics(power), at(W, of_weight), at(B, both))
    np.testing.assert_allclose(np.ldexp(nci.score(at(X, power)).numpy(), -of_weight), wanted, rtol=1e-9, atol=1e-12)


def test_nci_of_half_precision_does_not_overflow() -> None:
    features = torch.full((6, 4096), 40.0)
    features[::2] *= -1
    found = ClassStatistics(2, 4096, within="traces")
    found.update(features, torch.arange(6) % 2)
    scores = NCI(found, torch.eye(2, 4096), alpha=1.0).score(features.half())
    assert bool((scores > 160_000).all())
    assert bool(scores.isfinite().all())


@pytest.mark.parametrize(("of_features", "of_targets", "of_weight"), [
    *((power, 0, 0) for power in POWERS), *((0, power, 0) for power in POWERS), *((0, 0, power) for power in POWERS),
    (560, -560, 980), (-980, 980, -560),
])  # fmt: skip
def test_regression(of_features: int, of_targets: int, of_weight: int) -> None:
    weight = W.copy()
    centred, targets = X - X.mean(0), T - T.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    projector = np.linalg.pinv(weight) @ weight
    values, vectors = np.linalg.eigh(targets.T @ targets / len(targets))
    root = (vectors * np.sqrt(values)) @ vectors.T
    gram = weight @ weight.T
    cosine = (gram * root).sum() / np.linalg.norm(gram) / np.linalg.norm(root)
    shifts = np.linspace(0, np.sqrt(values[0]) * (1 - 1e-9), 2000)
    others = root - shifts[:, None, None] * np.eye(3)
    others /= np.linalg.norm(others, axis=(1, 2), keepdims=True)
    distances = ((gram / np.linalg.norm(gram) - others) ** 2).sum((1, 2))
    found = regression_metrics(at(X, of_features), at(T, of_targets), at(weight, of_weight))
    assert found.nrc1 == pytest.approx(1 - (np.linalg.norm(unit @ rows[:3].T, axis=1) ** 2).mean(), rel=1e-9)
    assert found.nrc2 == pytest.approx(1 - np.einsum("ij,jk,ik->i", unit, projector, unit).mean(), rel=1e-9)
    assert found.nrc3 == pytest.approx(distances.min(), rel=1e-5)
    assert found.alignment == pytest.approx(1 - cosine, rel=1e-9)
    assert found.stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-9)
    best = shifts[distances.argmin()] ** 2
    unit_of_gamma = 2.0 ** (2 * of_targets) if abs(of_targets) < 500 else math.inf if of_targets > 0 else 0.0
    assert found.gamma == pytest.approx(best * unit_of_gamma if best else 0.0, rel=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_regression_of_float32(scale: float) -> None:
    plain = regression_metrics(*(torch.tensor(part) for part in (X, T, W)))
    found = regression_metrics(*(torch.tensor(part * scale, dtype=torch.float32) for part in (X, T, W)))
    for name in ("nrc1", "nrc2", "nrc3", "alignment", "stable_rank"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-5)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e300, 1e-300, -70.7])
def test_a_constant_does_not_vary_though_its_mean_is_rounded(value: float) -> None:
    constant = torch.full((61, 3), value, dtype=torch.float64)
    free = torch.randn(61, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="features do not vary"):
        regression_metrics(constant, free)
    with pytest.raises(ValueError, match="targets do not vary"):
        regression_metrics(free, constant)
    one = torch.cat([constant, free], 1)  # constant columns add nothing, whatever their size
    assert regression_metrics(one, free).stable_rank == pytest.approx(regression_metrics(free, free).stable_rank)


HOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 0, 1, 1]]).repeat(12, 0)
SETS = np.random.default_rng(2).standard_normal((76, 6)) * 0.2
SETS = SETS[:72] + HOT @ SETS[72:] * 5


def of_tags() -> tuple[dict[int, float], dict[int, float]]:
    """Angles and scales of the two sets of several labels."""
    tags = SETS[:48].reshape(4, 12, 6).mean(1)
    angles, scales = {}, {}
    for start in (48, 60):
        mean = SETS[start : start + 12].mean(0) - tags.mean(0)
        total = (tags[HOT[start] == 1] - tags.mean(0)).sum(0)
        lengths = np.linalg.norm(mean), np.linalg.norm(total)
        size = int(HOT[start].sum())
        angles[size] = np.degrees(np.arccos(mean @ total / lengths[0] / lengths[1]))
        scales[size] = lengths[0] / lengths[1]
    return angles, scales


@pytest.mark.parametrize("power", [*POWERS, 1015])
def test_tag_angles(power: int) -> None:
    found = multilabel_metrics(at(SETS, power), torch.tensor(HOT))
    angles, scales = of_tags()
    assert found.angles == pytest.approx(angles, rel=1e-8)
    assert found.scales == pytest.approx(scales, rel=1e-12)


@pytest.mark.parametrize("power", [-600, -340, -200, -110, 0, 110, 200, 340, 600])
@pytest.mark.parametrize("exponent", [1, 2])
def test_cdnv(power: int, exponent: int) -> None:
    means = np.stack([X[k == LABEL].mean(0) for k in range(3)])
    traces = [((X[k == LABEL] - means[k]) ** 2).sum(1).mean() for k in range(3)]
    pairs = {
        (i, j): (traces[i] + traces[j]) / 2 / ((means[i] - means[j]) ** 2).sum() ** exponent
        for i, j in itertools.combinations(range(3), 2)
    }
    try:
        factor = 2.0 ** (power * (2 - 2 * exponent))
    except OverflowError:
        factor = math.inf
    moments = Moments.from_features(at(X, power), torch.tensor(LABEL))
    assert cdnv(moments, exponent=exponent) == pytest.approx(np.mean(list(pairs.values())) * factor, rel=1e-9)
    grid = cdnv_grid(moments, exponent=exponent)
    assert [float(grid[pair]) for pair in pairs] == pytest.approx([v * factor for v in pairs.values()], rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (-560, -560), (560, 560), (-560, 560), (980, -980), (0, 980)])
def test_angles_of_class_means(first: int, second: int) -> None:
    """Seen from the centre of the means before, which is as good as zero beside much larger means."""
    other = X + np.random.default_rng(4).standard_normal(X.shape)
    before, after = (np.stack([part[k == LABEL].mean(0) for k in range(3)]) for part in (X, other))
    gap = min(max(second - first, -1000), 1000)
    a = before - before.mean(0)
    b = after - np.ldexp(before.mean(0), -gap) if gap >= 0 else np.ldexp(after, gap) - before.mean(0)
    wanted = np.degrees(np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))
    moments = [
        Moments.from_features(at(part, power), torch.tensor(LABEL)) for part, power in ((X, first), (other, second))
    ]
    np.testing.assert_allclose(class_mean_angles(*moments).numpy(), wanted, rtol=1e-8)


@pytest.mark.parametrize("power", POWERS)
def test_distances_to_a_geometry(power: int) -> None:
    class Wanted:
        weight = at(W + 1, -power)
        class_means = at(X[:3], power)

    def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
        return float(np.linalg.norm(ours / np.linalg.norm(ours) - theirs / np.linalg.norm(theirs)))

    means = np.stack([X[k == LABEL].mean(0) for k in range(3)])
    means, theirs, w = means - means.mean(0), X[:3] - X[:3].mean(0), W + 1
    moments = Moments.from_features(at(X, power), torch.tensor(LABEL))
    found = collapse_metrics(moments, at(W, power), target=Wanted())
    assert found.geometry_weights == pytest.approx(distance(W @ W.T, w @ w.T), rel=1e-9)
    assert found.geometry_means == pytest.approx(distance(means @ means.T, theirs @ theirs.T), rel=1e-9)
    assert found.geometry_duality == pytest.approx(distance(W @ means.T, w @ theirs.T), rel=1e-9)


@pytest.mark.parametrize("power", POWERS)
def test_rows_and_spectra(power: int) -> None:
    singular = np.linalg.svd(X, compute_uv=False)
    shares = singular / singular.sum()
    assert stable_rank(at(X, power)) == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-9)
    assert effective_rank(at(X, power)) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    products = (W * X[:3]).sum(1)
    assert unc3(at(W, power), at(X[:3], -power)) == pytest.approx(products.var(), rel=1e-9)
    cosines = products / np.linalg.norm(W, axis=1) / np.linalg.norm(X[:3], axis=1)
    assert gnc3(at(W, power), at(X[:3], power)) == pytest.approx(1 - cosines.mean(), rel=1e-9)
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])  # each corner is 1 from the diagonal of the others
    found = one_vs_rest_margin(at(square, power), normalize=False)
    np.testing.assert_allclose(np.ldexp(found.distances.numpy(), -power), np.ones(4), rtol=1e-9)


def test_variances_that_are_no_numbers_are_infinite_or_zero_and_never_nan() -> None:
    assert unc3(at(W, 600), at(X[:3], 600)) == math.inf
    assert unc3(at(W, -600), at(X[:3], -600)) == 0


def test_a_law_whose_rate_is_no_number_does_not_break() -> None:
    assert separation_law([1e-308, 1e308]).rate == math.inf
    assert separation_law([1e308, 1e-308]).rate == 0
    assert separation_law([1e308, 1e307, 1e-308]).start == math.inf
