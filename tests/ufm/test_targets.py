from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralcollapse.ufm import LabelSmoothing, collapse_thresholds, target_geometry
from tests.ufm.oracle import multi_start

LOSSES = {
    "cross_entropy": lambda z, y: -(y * torch.log_softmax(z, 0)).sum(0),
    "label_smoothing:0.1": lambda z, y: -((0.9 * y + 0.1 / len(y)) * torch.log_softmax(z, 0)).sum(0),
    "mse": lambda z, y: (z - y).square().sum(0) / 2,
    "binary_cross_entropy": lambda z, y: (torch.nn.functional.softplus(z) - y * z).sum(0),
}


def loss_of(name: str):
    return LabelSmoothing(0.1) if name.startswith("label") else name


def plain(counts: list[int], w: float, h: float, b: float, loss: str, bias: bool = True):
    """The objective with one feature per class, each weighing as much as its samples."""
    eye, sizes = torch.eye(len(counts), dtype=torch.float64), torch.tensor(counts, dtype=torch.float64)

    def objective(weight: torch.Tensor, features: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        logits = weight @ features + (offset[:, None] if bias else 0)
        fit = sizes @ LOSSES[loss](logits, eye) / sizes.sum()
        decay = w * weight.square().sum() + h * (sizes * features.square()).sum() + b * offset.square().sum()
        return fit + decay / 2

    return objective


def oracle(counts: list[int], w: float, h: float, b: float, loss: str, bias: bool = True):
    k = len(counts)
    return multi_start(plain(counts, w, h, b, loss, bias), [(k, k), (k, k), (k,)], starts=2, scale=0.7)


def unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix)


DECAYS = [(5e-3, 1e-3, 1e-2), (2e-2, 3e-2, 0.1), (1e-4, 3e-4, 0.0), (0.1, 0.05, 0.5)]
SETTINGS = [(DECAYS[0], True)] + [
    pytest.param(decays, bias, marks=pytest.mark.exhaustive)
    for decays in DECAYS
    for bias in (True, False)
    if (decays, bias) != (DECAYS[0], True)
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("counts", [[20, 5, 1], [12, 12, 3, 3], [7, 7, 7], [40, 1], [9, 4]])
@pytest.mark.parametrize(("decays", "bias"), SETTINGS)
def test_geometry_against_many_starts(
    counts: list[int], loss: str, decays: tuple[float, float, float], bias: bool
) -> None:
    target = target_geometry(counts, *decays, loss=loss_of(loss), bias=bias)
    value, (weight, features, offset) = oracle(counts, *decays, loss, bias)
    assert target.value == pytest.approx(value, abs=1e-9)
    assert target.value - target.gap <= value + 1e-9
    ours = target.weight @ target.class_means.T + target.bias[:, None]
    theirs = weight @ features + bias * offset[:, None]
    if loss in ("cross_entropy", "label_smoothing:0.1"):  # softmax does not see the mean
        ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    assert np.abs(ours - theirs).max() < 1e-6
    assert np.abs(target.weight_gram - weight @ weight.T).max() < 1e-6 * max(1, np.linalg.norm(weight) ** 2)
    features = features - features.mean(1, keepdims=True)
    gram = features.T @ features
    assert np.abs(target.means_gram - gram).max() < 1e-6 * max(1, np.linalg.norm(gram))


THRESHOLDS = [
    (counts, loss, bias)
    for counts in ([9, 9, 2, 2], [12, 3, 3, 3], [8, 8, 8])
    for loss, bias in (
        ("cross_entropy", True),
        ("label_smoothing:0.1", True),
        ("binary_cross_entropy", True),
        ("mse", True),
    )
] + [([9, 5, 2], "mse", False), ([6, 6, 1], "mse", False), ([4, 4], "mse", False), ([9, 2, 2], "cross_entropy", False)]


@pytest.mark.parametrize(("counts", "loss", "bias"), THRESHOLDS)
def test_both_sides_of_each_threshold(counts: list[int], loss: str, bias: bool) -> None:
    probe = collapse_thresholds(counts, 1e-3, 1e-3, 1e-2, loss=loss_of(loss), bias=bias)
    edge = math.sqrt(probe.largest_decay)
    rare = [i for i in probe.at_risk if counts[i] == min(counts[j] for j in probe.at_risk)]
    for factor in (0.93, 1.02):
        found = collapse_thresholds(counts, edge * factor, edge * factor, 1e-2, loss=loss_of(loss), bias=bias)
        assert (set(rare) <= set(found.lost)) == (factor > 1)
        _, (weight, _, _) = oracle(counts, edge * factor, edge * factor, 1e-2, loss, bias)
        scale = np.linalg.norm(weight, axis=1).max()
        if found.event == "vanish":
            gone = np.linalg.norm(weight[rare], axis=1).max()
            kept = np.linalg.norm(weight[rare], axis=1).min()
        else:
            apart = [np.linalg.norm(weight[i] - weight[j]) for i in rare for j in rare if i < j]
            gone, kept = max(apart), min(apart)
        if factor > 1:
            assert gone < 1e-6
        else:
            assert kept > 0.02 * scale > 0


def test_the_sizes_at_which_rare_classes_merge() -> None:
    for n, apart in ((2, 0.0), (3, 0.186)):
        target = target_geometry([30, 30, 30, n, n, n], 0.0173, 0.0173, 1e-2)
        scale = target.weight_norms.max()
        distance = np.linalg.norm(target.weight[3] - target.weight[4]) / scale
        assert distance == pytest.approx(apart, abs=1e-6 if n == 2 else 5e-4)
        assert target.merged == (((3, 4, 5),) if n == 2 else ())
        assert target.rank == (3 if n == 2 else 5)
        found = collapse_thresholds([30, 30, 30, n, n, n], 0.0173, 0.0173, 1e-2)
        assert found.lost == ((3, 4, 5) if n == 2 else ())
        assert found.keeps_all == 3


def sqrtm(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("counts", [[7, 3, 3, 1], [500, 50, 5], [10, 10, 2, 2], [5, 5, 5]])
def test_the_limit_of_no_decay(counts: list[int], free: bool) -> None:
    k = len(counts)
    target = target_geometry(counts, 0, 0, bias=free)
    size, root, inverse = np.diag(counts), np.diag(np.sqrt(counts)), np.diag(1 / np.sqrt(counts))
    frequencies = np.array(counts) / sum(counts)
    logits = np.eye(k) - (frequencies if free else np.full(k, 1 / k))[:, None]
    expected = sqrtm(logits @ size @ logits.T)
    np.testing.assert_allclose(unit(target.weight_gram), unit(expected), atol=1e-7)
    means = inverse @ sqrtm(root @ logits.T @ logits @ root) @ inverse
    np.testing.assert_allclose(unit(target.class_means @ target.class_means.T), unit(means), atol=1e-6)
    np.testing.assert_allclose(unit(target.weight @ target.class_means.T), unit(logits), atol=1e-10)
    together = target.weight @ target.class_means.T + target.bias[:, None]
    np.testing.assert_allclose(unit(together), unit(np.eye(k) - 1 / k), atol=1e-10)
    errors = [
        np.linalg.norm(unit(target_geometry(counts, decay, decay, bias=free).weight_gram) - unit(expected))
        for decay in (1e-3, 1e-5, 1e-7)
    ]
    assert errors[0] > 1.3 * errors[1] > 1.5 * errors[2] or len(set(counts)) == 1
    if not free:  # the free bias's other limit is SELI again, if the bias decays and logits grow without end
        assert target.source == target_geometry(counts, 0, 0, 1e-2).source == "SELI"
        np.testing.assert_allclose(target_geometry(counts, 0, 0, 1e-2).weight_gram, target.weight_gram)


def test_class_sizes_of_other_kinds() -> None:
    for counts in ((30, 30, 2, 2), np.array([30, 30, 2, 2]), np.array([30, 30, 2, 2], dtype=np.int32)):
        assert target_geometry(counts, 0.03, 0.03, 1e-2).merged == ((2, 3),)
        assert collapse_thresholds(counts, 0.03, 0.03).lost == (2, 3)


def test_words_and_numbers() -> None:
    target = target_geometry([30, 30, 2, 2], 0.03, 0.03, 1e-2)
    assert "classes 2, 3 merge into one point" in str(target)
    assert target.to_dict()["merged"] == [[2, 3]]
    assert "everything collapses to the origin" in str(target_geometry([3, 3], 1.0, 1.0))
    assert target_geometry([5, 5, 5], 1e-3, 1e-3).source == "closed form"
    found = collapse_thresholds([9, 9], 1.0, 1.0)
    assert found.nothing_learned
    assert found.lost == (0, 1)
    assert "erases everything" in str(found)
    alone = collapse_thresholds([500, 50, 5], 1e-3, 1e-3)
    assert alone.lost == alone.at_risk == ()
    assert "target_geometry" in str(alone)
    relu = collapse_thresholds([500, 50, 5], 1e-3, 1e-3, bias=False, nonnegative=True)
    assert relu.samples == pytest.approx(555**2 * 1e-6 * 3 / 2)


@pytest.mark.parametrize("counts", [[30, 30, 2, 2], [100, 1, 1, 1], [50, 40, 3, 3, 3]])
@pytest.mark.parametrize("decay", [1e-3, 2e-2])
def test_keeps_all_is_the_least_size(counts: list[int], decay: float) -> None:
    needed = collapse_thresholds(counts, decay, decay).keeps_all
    rare = min(counts)
    sizes = range(1, 40)
    survives = [not set(collapse_thresholds([n if c == rare else c for c in counts], decay, decay).lost) for n in sizes]
    assert needed == (survives.index(True) + 1 if any(survives) else None)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    for counts in ([3], [3, 0], [3.5, 2], [[3, 2]], []):
        with pytest.raises(ValueError, match=r"class_counts|num_classes|samples_per_class"):
            target_geometry(counts, 1e-3, 1e-3)
    for arguments, match in (
        (((3, 2), 0, 1e-3), "lambda_w=0"),
        (((3, 2), 1e-3, 0), "lambda_h=0"),
        (((3, 2), -1e-3, 1e-3), "lambda_w"),
        (((3, 2), 1e-3, math.inf), "lambda_h"),
    ):
        with pytest.raises(ValueError, match=match):
            target_geometry(*arguments)
        with pytest.raises(ValueError, match=match):
            collapse_thresholds(*arguments)
    with pytest.raises(ValueError, match="limit of no decay"):
        target_geometry([3, 2], 0, 0, loss="mse")
    with pytest.raises(ValueError, match="not convex"):
        collapse_thresholds([3, 2], 1e-3, 1e-3, loss="focal")
    with pytest.raises(ValueError, match="bias=False only"):
        collapse_thresholds([3, 2], 1e-3, 1e-3, nonnegative=True)


def test_a_solve_without_a_certificate_says_so() -> None:
    focal = target_geometry([20, 5, 1], 1e-2, 1e-3, loss="focal:3")
    assert (focal.source, focal.gap) == ("solve without a proof", None)
    assert "target geometry (solve without a proof)" in str(focal)
    assert target_geometry([20, 5, 1], 1e-2, 1e-3).source == "certified solve"


def test_nothing_is_said_of_groups_where_everything_is_erased() -> None:
    said = str(collapse_thresholds([3, 2, 1], 1.0, 1.0))
    assert said.endswith("the optimum is W = 0, H = 0.")
