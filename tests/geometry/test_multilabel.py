from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from neuralcollapse import measure_features, multilabel_metrics, simplex_etf
from neuralcollapse.geometry.multilabel import label_set_means, merge_label_sets


def draw(k: int, d: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every set of one, two and three labels, four samples of each, around scaled sums of tags; shifted."""
    rng = np.random.default_rng(seed)
    sets = [subset for m in (1, 2, 3) for subset in itertools.combinations(range(k), m)]
    labels = np.repeat(np.array([[tag in subset for tag in range(k)] for subset in sets]), 4, axis=0).astype(int)
    frame = simplex_etf(k, d, dtype=torch.float64).numpy()
    scale = np.array([0, 1, 0.7, 0.6])[labels.sum(1)]
    features = scale[:, None] * (labels @ frame) + noise * rng.standard_normal((len(labels), d)) + 2
    return features, labels, frame


def test_collapsed_features_read_zero() -> None:
    features, labels, frame = draw(4, 6, 0.0)
    found = multilabel_metrics(torch.tensor(features), torch.tensor(labels), torch.tensor(frame))
    assert max(found.nc1, found.nc2, found.nc3, found.nc2_means) < 1e-12
    assert found.tag_angle < 1e-6
    assert found.scales == pytest.approx({2: 0.7, 3: 0.6})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_measures_against_numpy(seed: int) -> None:
    features, labels, frame = draw(5, 7, 0.3, seed)
    found = multilabel_metrics(torch.tensor(features), torch.tensor(labels), torch.tensor(frame))
    single = labels.sum(1) == 1
    plain = measure_features(
        torch.tensor(features[single]), torch.tensor(labels[single].argmax(1)), torch.tensor(frame)
    )
    assert (found.nc1, found.nc2, found.nc3) == pytest.approx((plain.nc1, plain.nc2, plain.nc3))
    tags = np.stack([features[single & (labels[:, k] == 1)].mean(0) for k in range(5)])
    centre = tags.mean(0)
    angles = {2: [], 3: []}
    for row in np.unique(labels[~single], axis=0):
        mean = features[(labels == row).all(1)].mean(0) - centre
        total = (tags[row == 1] - centre).sum(0)
        cosine = mean @ total / np.linalg.norm(mean) / np.linalg.norm(total)
        angles[int(row.sum())].append(np.degrees(np.arccos(cosine)))
    assert found.angles == pytest.approx({m: np.mean(values) for m, values in angles.items()}, abs=1e-6)
    assert found.tag_angle == pytest.approx(np.mean(angles[2] + angles[3]), abs=1e-6)
    assert found.tag_angle > 1


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_means_by_set_of_labels(dtype: torch.dtype) -> None:
    features, labels, _ = draw(3, 4, 0.5)
    groups = label_set_means(torch.tensor(features), torch.tensor(labels).to(dtype))
    assert len(groups.sets) == 7
    for row, mean, count in zip(groups.sets.numpy(), groups.means.numpy(), groups.counts.tolist(), strict=True):
        alike = (labels == row).all(1)
        assert count == alike.sum()
        np.testing.assert_allclose(mean, features[alike].mean(0), rtol=1e-12)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    features, labels, _ = (torch.tensor(part) for part in draw(3, 4, 0.5))
    several = labels.sum(1) > 1
    for bad, match in (
        ((features[0], labels), "features have shape"),
        ((features, labels[:, 0]), "labels have shape"),
        ((features, labels[:-1]), "labels have shape"),
        ((features, 2 * labels), "0 or 1"),
        ((features, 0 * labels), "carry no label"),
        ((features * torch.nan, labels), "NaN"),
        ((features[several], labels[several]), "no sample carries class 0, 1, 2 alone"),
    ):
        with pytest.raises(ValueError, match=match):
            multilabel_metrics(*bad)


@pytest.mark.parametrize("bare", [[0], [1, 4], [0, 2, 5]])
def test_samples_without_a_label_are_counted(bare: list[int]) -> None:
    labels = torch.eye(3)[torch.arange(7) % 3]
    labels[bare] = 0
    with pytest.raises(ValueError, match=f"{len(bare)} of 7 samples carry no label"):
        multilabel_metrics(torch.randn(7, 4), labels)


def collapsed(sets: list[list[int]], shift: float, noise: float = 0.05, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Twenty samples of each set of labels around the sum of its tags."""
    labels = np.repeat(np.array(sets), 20, axis=0)
    frame = simplex_etf(labels.shape[1], d, dtype=torch.float64).numpy()
    return labels @ frame + noise * np.random.default_rng(0).standard_normal((len(labels), d)) + shift, labels


THREE = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize("shift", [0.0, 7.0, 70.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_set_of_all_labels_is_left_out(shift: float, dtype: torch.dtype) -> None:
    """The centred tags sum to zero, so that rounding would be reported as an angle."""
    features, labels = (torch.tensor(part) for part in collapsed([*THREE, [1, 1, 1]], shift))
    found = multilabel_metrics(features.to(dtype), labels)
    without = multilabel_metrics(features[:80].to(dtype), labels[:80])
    assert found.tag_angle == without.tag_angle
    assert list(found.angles) == list(found.scales) == [2]
    if dtype == torch.float64:
        x = features.numpy() - shift
        tags = x[:60].reshape(3, 20, 8).mean(1)
        mean, total = x[60:80].mean(0) - tags.mean(0), tags[0] + tags[1] - 2 * tags.mean(0)
        angle = np.degrees(np.arccos(mean @ total / np.linalg.norm(mean) / np.linalg.norm(total)))
        assert found.tag_angle == pytest.approx(angle, rel=1e-5)


def test_nothing_is_left_where_the_only_pair_is_all_labels() -> None:
    features, labels = (torch.tensor(part) for part in collapsed([[1, 0], [0, 1], [1, 1]], 3.0))
    found = multilabel_metrics(features, labels)
    assert found.tag_angle is None
    assert found.angles == found.scales == {}


@pytest.mark.filterwarnings("ignore::neuralcollapse.CollapseWarning")
def test_all_labels_that_some_sample_carries_alone_are_left_out() -> None:
    sets = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    features, labels = collapsed(sets, 0.5)
    found = multilabel_metrics(torch.tensor(features), torch.tensor(labels), allow_missing=True)
    assert list(found.angles) == [2]
    tags = features[:60].reshape(3, 20, 8).mean(1)
    mean, total = features[60:80].mean(0) - tags.mean(0), tags[0] + tags[1] - 2 * tags.mean(0)
    angle = np.degrees(np.arccos(mean @ total / np.linalg.norm(mean) / np.linalg.norm(total)))
    assert found.tag_angle == pytest.approx(angle, rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 7.3, 70.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_other_sums_without_a_direction_are_left_out(shift: float, dtype: torch.dtype) -> None:
    """Two tags that are opposite, and a set whose mean is the centre."""
    tags = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    labels = np.repeat(np.array([*np.eye(4), [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]), 20, axis=0)
    features = labels @ tags + 0.1 * np.random.default_rng(0).standard_normal((140, 2)) * (labels.sum(1) > 1)[:, None]
    features[120:] = 0
    found = multilabel_metrics(torch.tensor(features + shift).to(dtype), torch.tensor(labels))
    mean = features[100:120].mean(0)
    angle = np.degrees(np.arccos(mean.sum() / np.linalg.norm(mean) / 2**0.5))
    assert found.tag_angle == pytest.approx(angle, rel=1e-9 if dtype == torch.float64 else 1e-3)
    assert found.scales == pytest.approx({2: np.linalg.norm(mean) / 2**0.5 / 2}, rel=1e-4)  # the mean at the centre: 0


def test_means_of_batches_merge_to_those_of_all() -> None:
    features, labels, _ = draw(3, 4, 0.5)
    for power in (0, 1015, -900):
        scaled = torch.tensor(np.ldexp(features, power))
        parts = [label_set_means(x, y) for x, y in zip(scaled.split(5), torch.tensor(labels).split(5), strict=True)]
        merged = merge_label_sets(parts)
        for row, mean in zip(merged.sets.numpy(), merged.means.numpy(), strict=True):
            np.testing.assert_allclose(np.ldexp(mean, -power), features[(labels == row).all(1)].mean(0), rtol=1e-12)
