from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from neuralcollapse import (
    ClassStatistics,
    CollapseMetrics,
    CollapseWarning,
    collapse_metrics,
    measure_features,
    simplex_etf,
)
from neuralcollapse.geometry import ncc_mismatch
from tests.cases import CASES, Case, draw, flattened, oracle


def streamed(case: Case, batch: int = 7, within: str = "full") -> ClassStatistics:
    statistics = ClassStatistics(len(case.weight), case.features.shape[1], within=within)
    for x, y in zip(case.features.split(batch), case.labels.split(batch), strict=True):
        statistics.update(x, y)
    return statistics


def agree(metrics: CollapseMetrics, expected: dict[str, float], rel: float = 2e-6) -> None:
    found = metrics.to_dict()
    assert set(expected) == {name for name, value in found.items() if value is not None} - {"nc1_balanced"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=rel, abs=1e-9), name


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_all_measures_agree_with_the_definitions(case: Case) -> None:
    expected = oracle(case.features, case.labels, case.weight, case.bias)
    agree(measure_features(case.features, case.labels, case.weight, case.bias), expected)
    agree(collapse_metrics(streamed(case), case.weight, case.bias), expected)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("spread", [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_nc1_of_float32_features_at_any_spread_and_offset(spread: float, offset: float) -> None:
    case = draw(sizes=(200,) * 10, dim=64, spread=spread, offset=offset, seed=3)
    expected = oracle(case.features, case.labels)["nc1"]
    assert measure_features(case.features, case.labels).nc1 == pytest.approx(expected, rel=1e-5)
    for batch in (1, 64, 1000):
        assert collapse_metrics(streamed(case, batch)).nc1 == pytest.approx(expected, rel=1e-5)
    parts = [streamed(Case("part", x, y, case.weight, case.bias)) for x, y in
             zip(case.features.split(331), case.labels.split(331), strict=True)]  # fmt: skip
    for order in (range(len(parts)), reversed(range(len(parts)))):
        merged = ClassStatistics(10, 64)
        for index in order:
            merged.merge(parts[index])
        assert collapse_metrics(merged).nc1 == pytest.approx(expected, rel=1e-5)


def test_one_mislabelled_first_sample_costs_no_digits() -> None:
    case = draw(sizes=(100,) * 4, spread=1e-5, offset=1000.0)
    case.labels[0] = (case.labels[0] + 1) % 4
    expected = oracle(case.features, case.labels)["nc1"]
    assert collapse_metrics(streamed(case)).nc1 == pytest.approx(expected, rel=1e-5)
    assert measure_features(case.features, case.labels).nc1 == pytest.approx(expected, rel=1e-5)


def test_a_long_stream_of_several_blocks() -> None:
    case = draw(sizes=(3000,) * 5, dim=700, spread=1e-4, offset=30.0)
    expected = oracle(case.features, case.labels)["nc1"]
    assert collapse_metrics(streamed(case, 512)).nc1 == pytest.approx(expected, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 12), min_size=2, max_size=6),
    dim=st.integers(1, 9),
    log_spread=st.floats(-7, 1),
    offset=st.sampled_from([0.0, 10.0, 1e3]),
    batch=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_nc1_is_never_negative_and_both_paths_agree(
    sizes: list[int], dim: int, log_spread: float, offset: float, batch: int, seed: int
) -> None:
    case = draw(sizes=tuple(sizes), dim=dim, spread=10**log_spread, offset=offset, seed=seed)
    with np.errstate(all="ignore"):
        direct = measure_features(case.features, case.labels, num_classes=len(sizes)).nc1
    through = collapse_metrics(streamed(case, batch)).nc1
    assert direct >= 0
    assert through >= 0
    assert through == pytest.approx(direct, rel=1e-4, abs=1e-20)


@pytest.mark.parametrize("along", [1e-1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("seed", range(3))
def test_nc1_where_variation_lies_across_the_class_means(along: float, seed: int) -> None:
    case = flattened(along, seed)
    expected = oracle(case.features, case.labels)["nc1"]
    assert measure_features(case.features, case.labels).nc1 == pytest.approx(expected, rel=1e-5)
    gathered, exact = streamed(case), ClassStatistics(4, 24)
    exact.update(case.features.double(), case.labels)
    assert collapse_metrics(exact).nc1 == pytest.approx(expected, rel=1e-5)
    if along < 1e-3:  # below what float32 products hold: said, and not negative
        with pytest.warns(CollapseWarning, match="NC1 is lost in rounding where it is below"):
            found = collapse_metrics(gathered).nc1
    else:
        found = collapse_metrics(gathered).nc1
        assert found == pytest.approx(expected, rel=1e-2)
    assert found is not None
    assert found >= 0
    merged = ClassStatistics.from_state(exact.state()).merge(ClassStatistics.from_state(gathered.state()))
    assert merged.rounding == gathered.rounding > exact.rounding


def test_perfect_collapse_is_zero_everywhere() -> None:
    etf = simplex_etf(5, 8, rotation="random", dtype=torch.float64)
    labels = torch.arange(5).repeat(4)
    metrics = measure_features(3 * etf[labels], labels, 2 * etf, torch.zeros(5, dtype=torch.float64))
    for name, value in metrics.to_dict().items():
        assert value == pytest.approx(0, abs=1e-14), name


def test_traces_only_statistics_leave_nc1_out() -> None:
    case = CASES[1]
    expected = oracle(case.features, case.labels, case.weight, case.bias)
    del expected["nc1"]
    agree(collapse_metrics(streamed(case, within="traces"), case.weight, case.bias), expected)


def test_many_classes_use_no_square_matrix_and_keep_the_digits() -> None:
    case = draw(sizes=(2,) * 1500, dim=20)
    expected = oracle(case.features, case.labels, case.weight, case.bias)
    agree(measure_features(case.features, case.labels, case.weight, case.bias), expected)


@pytest.mark.usefixtures("unchecked_shapes")
class TestBadInput:
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    @pytest.mark.parametrize(
        ("features", "labels", "error", "message"),
        [
            (features, torch.tensor([0, 1, 2, 0, 1, 3]), ValueError, r"label 3 is out of.*\[0, 3\);.* 1, subtract 1"),
            (features, torch.tensor([0, 1, -1, 0, 1, 2]), ValueError, r"label -1 .*; leave rows without a label out"),
            (features, labels.float(), TypeError, r"labels have dtype torch.float32: .*; pass labels.long\(\)"),
            (features, labels > 0, TypeError, "labels have dtype torch.bool"),
            (features, labels[:5], ValueError, r"labels have shape \(5,\): expected \(6,\)"),
            (features.long(), labels, TypeError, "features have dtype torch.int64"),
            (features.index_fill(0, torch.tensor(2), math.nan), labels, ValueError, "NaN or infinity in 1 of 6"),
            (features.index_fill(0, torch.tensor(2), math.inf), labels, ValueError, "NaN or infinity in 1 of 6"),
            (features[:, 0], labels, ValueError, r"features have shape \(6,\)"),
            (features[:0], labels[:0], ValueError, "at least 1"),
            (features, torch.tensor([0, 1, 0, 0, 1, 0]), ValueError, "1 of 3 classes have no samples: 2.*allow_miss"),
            (features, torch.zeros(6, dtype=torch.int64), ValueError, "only class 0 has samples"),
        ],
    )  # fmt: skip
    def test_measure_features(
        self, features: torch.Tensor, labels: torch.Tensor, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            measure_features(features, labels, num_classes=3)

    def test_classifier_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"weight has shape \(3, 4\): expected \(3, 3\)"):
            measure_features(self.features, self.labels, torch.ones(3, 4), num_classes=3)
        with pytest.raises(ValueError, match=r"bias has shape \(2,\)"):
            measure_features(self.features, self.labels, torch.ones(3, 3), torch.ones(2))
        with pytest.raises(ValueError, match="weight has non-finite"):
            measure_features(self.features, self.labels, torch.full((3, 3), math.nan))
        with pytest.raises(ValueError, match="without weight"):
            measure_features(self.features, self.labels, None, torch.ones(3))

    def test_one_class_only(self) -> None:
        labels = torch.zeros(6, dtype=torch.int64)
        with pytest.raises(ValueError, match="at least 2"):
            measure_features(self.features, labels, num_classes=1)
        for allowed in (True, False):
            with pytest.raises(ValueError, match="only class 0 has samples: collapse needs at least 2 classes"):
                measure_features(self.features, labels, num_classes=3, allow_missing=allowed)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint16, torch.uint32, torch.uint64])
    def test_labels_of_any_integer_type(self, dtype: torch.dtype) -> None:
        labels = torch.tensor([0, 1, 2, 0, 1, 2])
        expected = measure_features(self.features, labels)
        assert measure_features(self.features, labels.to(dtype)) == expected
        statistics = ClassStatistics(3, 3)
        statistics.update(self.features, labels.to(dtype))
        assert collapse_metrics(statistics).nc1 == pytest.approx(expected.nc1, rel=1e-5)

    def test_a_missing_class_may_be_left_out(self) -> None:
        labels = torch.tensor([0, 2, 0, 2, 0, 2])
        generator = torch.Generator().manual_seed(0)
        weight, bias = torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)
        with pytest.warns(CollapseWarning, match="no samples: 1, 3"):
            found = measure_features(self.features, labels, weight, bias, allow_missing=True)
        agree(found, oracle(self.features, labels, weight[[0, 2]], bias[[0, 2]]))

    def test_a_class_of_one_sample_warns(self) -> None:
        labels = torch.tensor([0, 1, 2, 0, 1, 1])
        with pytest.warns(CollapseWarning, match="one sample.*: 2"):
            found = measure_features(self.features, labels)
        assert found.nc1 == pytest.approx(oracle(self.features, labels)["nc1"], rel=1e-5)

    def test_all_features_equal_are_undefined_not_zero(self) -> None:
        with pytest.warns(CollapseWarning, match="span only 0 of 2"):
            found = measure_features(torch.ones(6, 3), self.labels)
        assert math.isnan(found.nc1)
        assert math.isnan(found.nc1_quotient)
        assert math.isnan(found.nc2_means)

    def test_equal_means_with_spread_are_infinitely_far_from_collapse(self) -> None:
        features = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
        with pytest.warns(CollapseWarning, match="span only 0 of 1"):
            found = measure_features(features, torch.tensor([0, 1, 0, 1]))
        assert found.nc1 == math.inf
        assert found.cdnv == math.inf
        assert found.nc1_quotient == math.inf


def test_ncc_mismatch_counts_the_samples_nearest_to_another_centre() -> None:
    case = draw(sizes=(40,) * 3, dim=2, spread=1.0, offset=100.0)
    x = case.features.double().numpy()
    means = np.stack([x[case.labels.numpy() == c].mean(0) for c in range(3)])
    nearest = ((x[:, None] - means) ** 2).sum(2).argmin(1)
    predictions = torch.randint(0, 3, (120,), generator=torch.Generator().manual_seed(1))
    expected = float((nearest != predictions.numpy()).mean())
    assert ncc_mismatch(case.features, predictions, streamed(case)) == pytest.approx(expected)
    assert math.isnan(ncc_mismatch(case.features[:0], predictions[:0], streamed(case)))
