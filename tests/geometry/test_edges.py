"""Where arithmetic is hard: means of low rank, extreme scales, close means, the caller's modes, strange tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import (
    ClassStatistics,
    CollapseWarning,
    Moments,
    collapse_metrics,
    etf_distance,
    measure,
    measure_features,
    multilabel_metrics,
    regression_metrics,
    simplex_etf,
)
from neuralcollapse.geometry import ncc_mismatch
from neuralcollapse.geometry.grids import cosine_grid
from tests.cases import CASES, draw, oracle


def streamed(features: Tensor, labels: Tensor, batch: int = 7, within: str = "full") -> ClassStatistics:
    statistics = ClassStatistics(int(labels.max()) + 1, features.shape[1], within=within)
    for x, y in zip(features.split(batch), labels.split(batch), strict=True):
        statistics.update(x, y)
    return statistics


def both(features: Tensor, labels: Tensor) -> list:
    return [measure_features(features, labels), collapse_metrics(streamed(features, labels))]


# ---- rank ------------------------------------------------------------------------------------------


def normalised(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Six classes behind a LayerNorm of width 3: their means lie in a plane."""
    labels = torch.arange(60) % 6
    torch.manual_seed(0)
    layer = nn.LayerNorm(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.7, 1.3, 0.9]))
        features = torch.randn(6, 3)[labels] * 2 + 0.05 * torch.randn(60, 3)
        return layer.double()(features.double()).to(dtype), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_means_of_low_rank_leave_out_directions_that_are_rounding(dtype: torch.dtype) -> None:
    features, labels = normalised(dtype)
    with pytest.warns(CollapseWarning, match=r"span only 2 of 3 directions"):
        direct, through = both(features, labels)
    exact, _ = normalised(torch.float64)
    reference = oracle_of_rank(exact, labels, 2)
    assert reference == pytest.approx(0.00113, abs=5e-6)
    precision = {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 2e-2)
    assert direct.nc1 == pytest.approx(reference, rel=precision)
    assert through.nc1 == pytest.approx(reference, rel=precision)


def oracle_of_rank(features: Tensor, labels: Tensor, rank: int) -> float:
    x, y = features.double().numpy(), labels.numpy()
    means = np.stack([x[y == k].mean(0) for k in range(y.max() + 1)])
    between = np.cov(means.T, bias=True)
    values, vectors = (part[..., -rank:] for part in np.linalg.eigh(between))
    deviations = x - means[y]
    return float((((deviations @ vectors) ** 2).mean(0) / values).sum() / len(means))


@pytest.mark.parametrize(("classes", "dim", "rank"), [(9, 12, 2), (5, 30, 1), (12, 4, 3), (40, 64, 10)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_narrow_layer_before_the_head(classes: int, dim: int, rank: int, offset: float, dtype: torch.dtype) -> None:
    """Linear of width ``rank`` and then of width ``dim``: the means span ``rank`` directions."""
    case = draw(sizes=(25,) * classes, dim=rank, spread=0.2, dtype=torch.float64, seed=classes)
    mixing = torch.randn(rank, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = case.features @ mixing + (offset if dtype == torch.float32 else 0.0)
    expected = oracle_of_rank(exact, case.labels, rank)
    with pytest.warns(CollapseWarning, match=f"span only {rank} of {min(classes - 1, dim)} directions"):
        found = both(exact.to(dtype), case.labels)
    for metrics in found:
        assert metrics.nc1 == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize(
    ("dtype", "large", "noise"),
    [(torch.bfloat16, 256, 0), (torch.bfloat16, 1024, 0), (torch.float16, 1024, 0), (torch.float16, 1024, 1 / 64)],
)
def test_a_large_coordinate_hides_no_direction_of_the_others(dtype: torch.dtype, large: int, noise: float) -> None:
    """Language models in half precision have a few activations that are far larger than all others."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(50)
    features = torch.zeros(200, 256)
    features[:, :4] = torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0]))[labels]
    features += 0.05 * torch.randn(200, 256, generator=generator)
    features[:, -1] = large * (1 + noise * torch.randn(200, generator=generator))
    rounded = features.to(dtype)
    expected = oracle_of_rank(rounded, labels, 3)
    for metrics in both(rounded, labels):
        assert metrics.nc1 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("large", [0.0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("seed", range(5))
def test_a_large_coordinate_keeps_no_direction_of_rounding_in_float64(large: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(600) % 10
    basis = np.linalg.qr(rng.standard_normal((64, 3)))[0].T
    features = (rng.standard_normal((10, 3)) @ basis)[labels] + 0.1 * rng.standard_normal((600, 3)) @ basis
    features[:, -1] += large * (1 + 0.02 * rng.standard_normal(600))
    features, rank = features / 3, 4 if large else 3
    for moments in (
        Moments.from_features(torch.from_numpy(features), torch.from_numpy(labels)),
        streamed(torch.from_numpy(features), torch.from_numpy(labels)).moments(),
    ):
        assert moments.rank == rank


def test_full_rank_is_not_reported_as_missing() -> None:
    for case in CASES:
        for moments in (
            Moments.from_features(case.features, case.labels),
            streamed(case.features, case.labels).moments(),
        ):
            assert moments.rank == moments.possible_rank, case


# ---- scale -----------------------------------------------------------------------------------------

FLOAT32_SCALES = [1e-38, 1e-30, 1e-24, 1e-23, 1e-22, 1e20, 1e30, 1e37]
FLOAT64_SCALES = [1e-300, 1e-200, 1e-100, 1e100, 1e155, 1e300]


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, s) for s in FLOAT32_SCALES] + [(torch.float64, s) for s in FLOAT64_SCALES],
)
def test_scale_changes_no_measure_of_the_features(dtype: torch.dtype, scale: float) -> None:
    case = draw(sizes=(20, 31, 9), dim=5, dtype=torch.float64)
    features = (case.features * scale).to(dtype)
    unit = features.double() / scale
    weight = case.weight / scale
    expected = oracle(unit, case.labels, case.weight, case.bias)
    statistics = streamed(features, case.labels)
    merged = ClassStatistics(3, 5).merge(streamed(features[:30], case.labels[:30])).merge(
        streamed(features[30:], case.labels[30:])
    )  # fmt: skip
    for found in (
        measure_features(features, case.labels, weight, case.bias),
        collapse_metrics(statistics, weight, case.bias),
        collapse_metrics(merged, weight, case.bias),
    ):
        for name, value in expected.items():
            assert found.to_dict()[name] == pytest.approx(value, rel=2e-5), name


@pytest.mark.parametrize(("dtype", "smallest"), [(torch.float32, 1.4e-45), (torch.float64, 5e-324)])
def test_subnormal_features(dtype: torch.dtype, smallest: float) -> None:
    case = draw(sizes=(20, 31, 9), dim=5, dtype=torch.float64)
    whole = (case.features * 1e4).round()
    features = whole.to(dtype) * smallest
    assert torch.equal(features / smallest, whole.to(dtype))
    expected = oracle(whole, case.labels)
    for found in both(features, case.labels):
        for name, value in expected.items():
            assert found.to_dict()[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    ("dtype", "small", "large"),
    [(torch.float32, 1e-30, 1e30), (torch.float32, 1e-25, 1.0), (torch.float64, 1e-100, 1e100)],
)
def test_classes_of_different_scale(dtype: torch.dtype, small: float, large: float) -> None:
    """The tiny classes are seen: the class-distance normalised variance of their pair is that of large ones."""
    case = draw(sizes=(30,) * 4, dim=5, dtype=torch.float64)
    tiny = case.labels < 2
    features = torch.tensor([large, small], dtype=torch.float64)[tiny.long()][:, None] * case.features
    features = features.to(dtype)
    x, y = features.double().numpy(), case.labels.numpy()
    means = np.stack([x[y == k].mean(0) for k in range(4)])
    traces = np.array([((x[y == k] - means[k]) ** 2).sum(1).mean() for k in range(4)])
    pairs = [(traces[i] + traces[j]) / 2 / ((means[i] - means[j]) ** 2).sum() for i in range(4) for j in range(i)]
    order = case.labels.argsort()
    with pytest.warns(CollapseWarning, match="span only 2 of 3"):
        found = [*both(features, case.labels), *both(features[order], case.labels[order])]
    for metrics in found:
        assert metrics.cdnv == pytest.approx(np.mean(pairs), rel=1e-5)


def test_variation_far_smaller_than_the_means_is_not_zero() -> None:
    """Means of zeros and ones hold deviations of any size: 1e-25 squared is no float32."""
    labels = torch.arange(40) % 2
    deviations = 1e-25 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    features = torch.where(torch.eye(2)[labels] > 0, torch.eye(2)[labels], deviations)
    x = features.double()
    means = torch.stack([x[labels == k].mean(0) for k in range(2)])
    gap = means[0] - means[1]
    shadows = ((x - means[labels]) @ gap / gap.norm()).square().mean()
    for found in both(features, labels):
        assert found.nc1 == pytest.approx(float(shadows / (gap.norm() ** 2 / 4)) / 2, rel=1e-6, abs=0)
        assert found.cdnv > 0
        assert found.nc1_quotient > 0


# ---- close means -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-8, 1e-10])
def test_close_means_are_told_apart(gap: float) -> None:
    case = draw(sizes=(40,) * 3, dim=4, dtype=torch.float64)
    x, y = case.features.clone(), case.labels
    spread = gap * torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    x[y == 1] = x[y == 0].mean(0) + spread
    x[y == 0] = x[y == 0].mean(0) + spread.flip(1) - spread.flip(1).mean(0)
    x[y == 1, 0] += gap
    exact = x.numpy().astype(np.longdouble)
    means = np.stack([exact[y.numpy() == k].mean(0) for k in range(3)])
    traces = np.array([((exact[y.numpy() == k] - means[k]) ** 2).sum(1).mean() for k in range(3)])
    pairs = [(traces[i] + traces[j]) / 2 / ((means[i] - means[j]) ** 2).sum() for i in range(3) for j in range(i)]
    for found in both(x, y):
        assert found.cdnv == pytest.approx(float(np.mean(pairs)), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_equal_means_are_infinite_never_a_number(seed: int, dtype: torch.dtype, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    cloud = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    other = torch.randn(50, 4, generator=generator, dtype=torch.float64) + 5
    features = torch.cat([cloud, cloud[torch.randperm(50, generator=generator)], other]).to(dtype) + offset
    labels = torch.arange(150) // 50
    order = torch.randperm(150, generator=generator)
    with pytest.warns(CollapseWarning, match="coincide"):
        found = both(features[order], labels[order])
    for metrics in found:
        assert metrics.cdnv == math.inf
        assert math.isfinite(metrics.nc1)


def test_equal_means_without_spread_are_undefined() -> None:
    features = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0], [0, 2], [0, 2]])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    with pytest.warns(CollapseWarning, match="coincide"):
        found = both(features, labels)
    for metrics in found:
        assert math.isnan(metrics.cdnv)
        assert metrics.nc1 == 0


# ---- the caller's modes ----------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.1, 1e-4])
def test_autocast_changes_nothing(spread: float) -> None:
    case = draw(sizes=(30,) * 3, dim=64, spread=spread, offset=1.0)
    expected = [measure_features(case.features, case.labels, case.weight, case.bias),
                collapse_metrics(streamed(case.features, case.labels), case.weight, case.bias)]  # fmt: skip
    apart = etf_distance(case.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure_features(case.features, case.labels, case.weight, case.bias) == expected[0]
        assert collapse_metrics(streamed(case.features, case.labels), case.weight, case.bias) == expected[1]
        assert etf_distance(case.weight) == apart


def test_the_precision_of_products_that_the_caller_chose_is_his_again_afterwards() -> None:
    case = CASES[0]
    expected = measure_features(case.features, case.labels)
    torch.set_float32_matmul_precision("medium")
    try:
        assert measure_features(case.features, case.labels) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_inference_mode_inside_and_outside() -> None:
    case = CASES[0]
    expected = measure_features(case.features, case.labels)
    with torch.inference_mode():
        features = case.features * 1
        statistics = streamed(features, case.labels)
        copied = ClassStatistics.from_state(statistics.state())
        assert measure_features(features, case.labels) == expected
    assert measure_features(features, case.labels) == expected
    through = collapse_metrics(statistics)
    for gathered in (statistics, copied):
        gathered.update(features, case.labels)
        assert gathered.total == 2 * len(case.labels)
        assert collapse_metrics(gathered).nc1 == pytest.approx(through.nc1, rel=1e-6)


def test_nothing_that_the_caller_holds_is_changed() -> None:
    case = draw(sizes=(20, 30), dim=4)
    first = streamed(case.features, case.labels)
    state, means, scatter = first.state(), first.means, first.scatter
    kept = {name: tensor.clone() for name, tensor in state.items()}
    before = collapse_metrics(first)
    moments = first.moments()
    copied = ClassStatistics.from_state(state)
    copied.update(1000 * case.features, case.labels)
    assert copied.total == 100
    assert collapse_metrics(first) == before
    for name, tensor in state.items():
        assert torch.equal(tensor, kept[name]), name
    means.zero_()
    scatter.zero_()
    state["means"].zero_()
    moments.means.zero_()
    assert collapse_metrics(first) == before
    first.update(case.features, case.labels)
    assert torch.equal(scatter, torch.zeros_like(scatter))


def test_a_gradient_in_the_input_is_left_alone() -> None:
    case = CASES[0]
    features, weight = case.features.clone().requires_grad_(), nn.Parameter(case.weight)
    found = measure_features(features, case.labels, weight, case.bias)
    assert found == measure_features(case.features, case.labels, case.weight, case.bias)
    assert features.requires_grad
    assert features.grad is None


# ---- input of every kind ---------------------------------------------------------------------------


def test_arrays_and_lists() -> None:
    case = draw(dtype=torch.float64)
    inputs = (case.features, case.labels, case.weight, case.bias)
    expected = measure_features(*inputs)
    arrays = [tensor.numpy() for tensor in inputs]
    assert measure_features(*arrays) == expected
    assert measure_features(*(tensor.tolist() for tensor in inputs)) == expected
    turned = arrays[0].astype(">f8")[::-1]
    turned.setflags(write=False)
    assert measure_features(turned, arrays[1][::-1]).cdnv == pytest.approx(expected.cdnv, rel=1e-12)
    statistics = ClassStatistics(4, 6)
    statistics.update(arrays[0], arrays[1].tolist())
    assert collapse_metrics(statistics, arrays[2], arrays[3]).nc2 == expected.nc2
    assert ncc_mismatch(arrays[0], arrays[1], statistics) == ncc_mismatch(*inputs[:2], statistics)


@pytest.mark.parametrize("gap", [1e-2, 1e-6, 1e-8, 1e-11])
@pytest.mark.parametrize("exponent", [0, 900, -900])
@pytest.mark.parametrize("twins", [2, 3, 6])
def test_the_nearest_of_means_that_nearly_coincide(gap: float, exponent: int, twins: int) -> None:
    """Means much nearer to each other than to zero: a matrix product alone cannot tell which one is nearest."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((6, 4))
    means[:twins] = means[0] + gap * rng.standard_normal((twins, 4))
    labels = np.repeat(np.arange(6), 20)
    features = np.ldexp(means[labels] + gap * rng.standard_normal((120, 4)), exponent)
    exact = np.ldexp(features, -exponent).astype(np.longdouble)
    centres = np.stack([exact[labels == label].mean(0) for label in range(6)])
    distances = ((exact[:, None] - centres) ** 2).sum(2)
    ordered = np.sort(distances, 1)
    decided = ordered[:, 1] - ordered[:, 0] > 1e-3 * ordered[:, 1]
    features, labels, nearest = (part[decided] for part in (features, labels, distances.argmin(1)))
    moments = Moments.from_features(
        *(torch.tensor(part) for part in (np.ldexp(np.float64(exact), exponent), np.repeat(np.arange(6), 20)))
    )
    assert 0 < (nearest != labels).mean() < 1
    assert ncc_mismatch(torch.tensor(features), torch.tensor(nearest), moments) == 0
    assert ncc_mismatch(torch.tensor(features), torch.tensor(labels), moments) == (nearest != labels).mean()


def test_no_bias_has_no_spread_and_counts_as_zero() -> None:
    case = CASES[0]
    found = measure_features(case.features, case.labels, case.weight)
    zero = measure_features(case.features, case.labels, case.weight, torch.zeros(4))
    assert found.bias_spread is None
    assert zero.bias_spread == 0
    assert found.nc4 == zero.nc4
    assert "bias_spread" not in str(found)


@pytest.mark.usefixtures("unchecked_shapes")
class TestRefused:
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    @pytest.mark.parametrize(
        ("features", "error", "message"),
        [
            (None, TypeError, "features are None: expected a tensor"),
            (features.to_sparse(), TypeError, "features are a sparse or nested tensor"),
            (features.to("meta"), TypeError, "features are a tensor on the meta device"),
            (features.to(torch.float8_e4m3fn), TypeError, "features have dtype torch.float8_e4m3fn, too narrow"),
            (features.to(torch.complex64), TypeError, "features have dtype torch.complex64"),
            (np.array([["a", "b"]] * 6), TypeError, "features are a ndarray of strings: expected numbers"),
            ([[1.0], [1.0, 2.0]], TypeError, "features are a list that is no array of numbers"),
            (object(), TypeError, "features are a object of object: expected numbers"),
        ],
    )
    def test_features_that_are_none(self, features: object, error: type[Exception], message: str) -> None:
        for call in (
            lambda: measure_features(features, self.labels),
            lambda: Moments.from_features(features, self.labels),
            lambda: ClassStatistics(3, 3).update(features, self.labels),
            lambda: ncc_mismatch(features, self.labels, streamed(self.features, self.labels)),
        ):
            with pytest.raises(error, match=message):
                call()

    @pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
    def test_quantized(self) -> None:
        quantized = torch.quantize_per_tensor(self.features, 0.1, 0, torch.qint8)
        with pytest.raises(TypeError, match="quantized tensor"):
            measure_features(quantized, self.labels)

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            (None, TypeError, "labels are None"),
            (torch.tensor([0, 1, 2, 0, 1, 10**12]), ValueError, "label 1000000000000 implies 1000000000001 classes"),
            (torch.tensor([0, 1, 2, 0, 1, 2**63], dtype=torch.uint64), ValueError, "label 9223372036854775808"),
            ([0.0, 1, 2, 0, 1, 2], TypeError, "labels have dtype torch.float64: .*; pass whole numbers$"),
            (torch.tensor([0, 1, 2, 0, 1, 2]).to("meta"), TypeError, "labels are a tensor on the meta device"),
            ("012012", TypeError, "labels are a str: expected numbers"),
            (
                list("012012"),
                TypeError,
                r"labels are a list of strings: turn each name into its class index, as in \[cl",
            ),
            (np.array(["cat"] * 6), TypeError, "labels are a ndarray of strings: turn each name into its class index"),
            (np.array([0.0, 1, 2, 0, 1, 2]), TypeError, r"float64: expected integers.*; pass labels\.astype\(int\)"),
            (torch.tensor([0.5, 1, 2, 0, 1, 2]), TypeError, "float32: expected integers, one class index per sample$"),
            (torch.tensor([1, 2, 3, 1, 2, 3]), ValueError, "no samples: 0 .where labels begin with 1, subtract 1"),
        ],
    )
    def test_labels_that_are_none(self, labels: object, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            measure_features(self.features, labels)

    @pytest.mark.parametrize(
        ("weight", "bias", "error", "message"),
        [
            (torch.ones(32, 5), None, ValueError, r"weight has shape \(32, 5\): expected \(5, 32\).*pass weight.T"),
            (torch.ones(5, 32, dtype=torch.complex64), None, TypeError, "weight has dtype torch.complex64"),
            (torch.ones(5, 32).long(), None, TypeError, "weight has dtype torch.int64"),
            (torch.ones(5, 32), torch.ones(5, 1), ValueError, r"bias has shape \(5, 1\): expected \(5,\)"),
            (torch.ones(5, 32), torch.full((5,), math.inf), ValueError, "bias has non-finite"),
            (torch.ones(7, 33), None, ValueError, r"weight has shape \(7, 33\): expected \(7, 32\)"),
        ],
    )
    def test_classifiers(self, weight: object, bias: object, error: type[Exception], message: str) -> None:
        features, labels = torch.randn(20, 32), torch.arange(20) % 5
        with pytest.raises(error, match=message):
            measure_features(features, labels, weight, bias)

    def test_sizes(self) -> None:
        for arguments, message in [
            ((3.0, 4), "num_classes=3.0 must be an integer"),
            ((3, "4"), "feature_dim='4' must be an integer"),
            ((True, 4), "num_classes=True must be an integer"),
        ]:
            with pytest.raises(TypeError, match=message):
                ClassStatistics(*arguments)
        with pytest.raises(ValueError, match="num_classes=1000000000000 and feature_dim=512 need"):
            ClassStatistics(10**12, 512)
        with pytest.raises(TypeError, match="moments is a Tensor: expected Moments or ClassStatistics"):
            collapse_metrics(self.features)

    def test_frames_of_other_than_fractions(self) -> None:
        for dtype in (int, torch.int64, torch.complex64):
            with pytest.raises(TypeError, match="cannot hold the frame's fractions"):
                simplex_etf(3, 4, dtype=dtype)
        with pytest.raises(TypeError, match=r"weight has dtype torch\.complex64"):
            etf_distance(torch.ones(3, 4, dtype=torch.complex64))
        assert etf_distance(simplex_etf(3, 4, dtype=torch.float64).tolist()) < 1e-12


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 5), (6, 4, 1)])
def test_a_stream_takes_features_of_its_own_width_alone(shape: tuple[int, ...], unchecked_shapes: None) -> None:
    way = {3: "; these may be logits: pass the input of the last layer"}.get(shape[-1] if len(shape) == 2 else 0, "")
    way = "; flatten each sample .*" if len(shape) > 2 else way
    with pytest.raises(ValueError, match=rf"features have shape .*: expected \(B, 4\){way}$"):
        ClassStatistics(3, 4).update(torch.ones(shape), torch.arange(6) % 3)


def test_features_of_images_are_refused_with_a_way_out(unchecked_shapes: None) -> None:
    features, labels = torch.ones(6, 3, 4, 4), torch.arange(6) % 2
    for call in (
        lambda: measure_features(features, labels),
        lambda: multilabel_metrics(features, torch.eye(2)[labels]),
        lambda: regression_metrics(features, torch.randn(6, 2)),
    ):
        with pytest.raises(ValueError, match=r"shape \(6, 3, 4, 4\): expected \(N, d\).*; flatten each sample"):
            call()


def test_statistics_without_samples_ask_for_an_update() -> None:
    with pytest.raises(ValueError, match=r"no samples were seen: call update\(\) with some first"):
        collapse_metrics(ClassStatistics(3, 4))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.float32])
def test_labels_that_are_no_integers_are_refused(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(TypeError, match=f"labels have dtype {dtype}: expected integers"):
        measure(model, [(torch.randn(6, 4), (torch.arange(6) % 2).to(dtype))])


def test_the_first_row_without_a_direction_is_named() -> None:
    rows = torch.eye(4)
    rows[1] = rows[3] = 0
    with pytest.raises(ValueError, match=r"vectors has a zero row \(1\)"):
        cosine_grid(rows)
