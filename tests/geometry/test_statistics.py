from __future__ import annotations

import itertools
import os
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file

from neuralcollapse import ClassStatistics
from neuralcollapse.geometry.block import symmetric_product
from tests.cases import CASES, Case, draw


def gather(case: Case, pieces: list[slice], **options: object) -> list[ClassStatistics]:
    parts = []
    for piece in pieces:
        statistics = ClassStatistics(len(case.weight), case.features.shape[1], **options)
        statistics.update(case.features[piece], case.labels[piece])
        parts.append(statistics)
    return parts


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_moments_agree_with_numpy(case: Case) -> None:
    statistics = gather(case, [slice(None)])[0]
    x, y = case.features.double().numpy(), case.labels.numpy()
    k = len(case.weight)
    means = np.stack([x[y == c].mean(0) for c in range(k)])
    centred = x - means[y]
    covariance = centred.T @ centred / len(x)
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(statistics.means, means, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(statistics.within_covariance, covariance, atol=3e-6 * scale)
    np.testing.assert_allclose(statistics.global_mean, x.mean(0), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(statistics.balanced_mean, means.mean(0), rtol=1e-7, atol=1e-7)
    traces = [(centred[y == c] ** 2).sum(1).mean() for c in range(k)]
    np.testing.assert_allclose(statistics.within_traces, traces, rtol=3e-6)
    assert statistics.counts.tolist() == np.bincount(y).tolist()


@settings(max_examples=40, deadline=None)
@given(cut=st.lists(st.integers(0, 60), max_size=5), data=st.data())
def test_merging_in_any_order_is_one_stream(cut: list[int], data: st.DataObject) -> None:
    case = draw(sizes=(20, 30, 10), spread=1e-3, offset=100.0)
    edges = [0, *sorted(cut), 60]
    pieces = [slice(a, b) for a, b in itertools.pairwise(edges)]
    order = data.draw(st.permutations(range(len(pieces))))
    parts = gather(case, pieces)
    merged = ClassStatistics(3, 6)
    for index in order:
        merged.merge(parts[index])
    whole = gather(case, [slice(None)])[0]
    for name, tensor in whole.state().items():
        scale = float(tensor.abs().max())
        torch.testing.assert_close(merged.state()[name], tensor, rtol=0, atol=1e-6 * scale, msg=name)


def test_traces_only_need_no_covariance() -> None:
    case = CASES[0]
    lean, full = gather(case, [slice(None)], within="traces")[0], gather(case, [slice(None)])[0]
    torch.testing.assert_close(lean.within_traces, full.within_traces)
    assert lean.scatter.numel() == 0
    with pytest.raises(ValueError, match="within='traces' keeps no covariance"):
        _ = lean.within_covariance


def test_the_batch_may_be_overwritten_after_update() -> None:
    case = CASES[0]
    statistics = ClassStatistics(4, 6)
    buffer, labels = torch.empty(60, 6), torch.empty(60, dtype=torch.int32)
    for start in (0, 60):
        buffer.copy_(case.features[start : start + 60])
        labels.copy_(case.labels[start : start + 60])
        statistics.update(buffer, labels)
    whole = gather(case, [slice(None)])[0]
    torch.testing.assert_close(statistics.within_covariance, whole.within_covariance)


def test_dtypes_may_change_along_the_stream() -> None:
    case = CASES[0]
    statistics = ClassStatistics(4, 6)
    statistics.update(case.features[:50].double(), case.labels[:50])
    statistics.update(case.features[50:], case.labels[50:])
    statistics.update(case.features[:0], case.labels[:0])
    whole = gather(case, [slice(None)])[0]
    torch.testing.assert_close(statistics.within_covariance, whole.within_covariance, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("within", ["full", "traces"])
def test_save_and_load(tmp_path: Path, within: str) -> None:
    statistics = gather(CASES[1], [slice(None)], within=within)[0]
    statistics.save(tmp_path / "s.safetensors")
    again = ClassStatistics.load(tmp_path / "s.safetensors")
    assert again.within == within
    for name, tensor in statistics.state().items():
        assert torch.equal(again.state()[name], tensor), name


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input(tmp_path: Path) -> None:
    for arguments, message in [
        ((1, 3), "num_classes=1"),
        ((2, 0), "feature_dim=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            ClassStatistics(*arguments)
    with pytest.raises(ValueError, match="within='diagonal' is unknown"):
        ClassStatistics(2, 3, within="diagonal")
    statistics = ClassStatistics(2, 3)
    with pytest.raises(ValueError, match=r"features have shape \(4, 5\): expected \(B, 3\)"):
        statistics.update(torch.ones(4, 5), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="label 7 is out of range"):
        statistics.update(torch.ones(2, 3), torch.tensor([0, 7]))
    assert statistics.total == 0, "a refused batch leaves nothing behind"
    with pytest.raises(ValueError, match="feature_dim=3 cannot merge with feature_dim=4"):
        statistics.merge(ClassStatistics(2, 4))
    (tmp_path / "bad").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        ClassStatistics.load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        ClassStatistics.load(tmp_path / "absent")


def test_state_dict_and_a_copy_on_a_device() -> None:
    statistics = gather(CASES[1], [slice(None)])[0]
    again = ClassStatistics(4, 6)
    again.load_state_dict(statistics.state_dict())
    moved = statistics.to(statistics.device)
    for copied in (again, moved):
        for name, tensor in statistics.state().items():
            assert torch.equal(copied.state()[name], tensor), name
        copied.update(CASES[1].features, CASES[1].labels)
        assert copied.total == 2 * statistics.total
    with pytest.raises(ValueError, match=r"feature_dim=6, within='full', and these .* 4, 5"):
        ClassStatistics(4, 5).load_state_dict(statistics.state_dict())
    with pytest.raises(ValueError, match="within='full', and these statistics 4, 6, 'traces'"):
        ClassStatistics(4, 6, within="traces").load_state_dict(statistics.state_dict())


def spoilt(name: str, change) -> dict[str, torch.Tensor]:
    state = gather(CASES[1], [slice(None)])[0].state()
    return {**state, name: change(state[name])}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("counts", lambda t: -t, "counts in the state holds values that no features can give"),
        (
            "counts",
            lambda t: t.double() * float("nan"),
            "counts in the state has dtype torch.float64: expected integers",
        ),
        ("counts", lambda t: t[:2], r"counts has shape \(2,\), not \(4,\)"),
        ("counts", lambda t: t * 0, "means in the state holds values|trace_sums in the state holds values"),
        ("means", lambda t: t.T, "has shape"),
        ("means", lambda t: t[0], r"means has shape \(6,\), not \(K, d\)"),
        ("means", lambda t: t.fill_(float("nan")), "means in the state has NaN or infinite entries"),
        ("means", lambda t: t.to(torch.complex64), "means in the state has dtype torch.complex64"),
        ("trace_sums", lambda t: -t, "trace_sums in the state holds values that no features can give"),
        ("scatter", lambda t: t[:3], r"scatter has shape \(3, 6\)"),
        ("scatter", lambda t: t.triu(), "scatter in the state is not symmetric"),
        ("scatter", lambda t: 2 * t, "scatter and trace_sums in the state disagree"),
        ("scatter", lambda t: t.fill_(float("inf")), "scatter in the state has NaN or infinite"),
        ("rounding", lambda t: t - 1, "rounding in the state holds values"),
        ("largest", lambda t: -t, "largest in the state holds values"),
        ("exponent", lambda t: t + 10**6, "exponent in the state holds values"),
        ("exponent", lambda t: t.double(), "exponent in the state has dtype torch.float64"),
        ("exponent", lambda t: None, "exponent in the state is a NoneType: expected a dense tensor"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, name: str, change, message: str) -> None:
    state = spoilt(name, change)
    with pytest.raises(ValueError, match=message):
        ClassStatistics.from_state(state)
    with pytest.raises(ValueError, match=message):
        ClassStatistics(4, 6).load_state_dict(state)
    if state[name] is not None:
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "damaged.safetensors")
        with pytest.raises(ValueError, match=message):
            ClassStatistics.load(tmp_path / "damaged.safetensors")


def test_a_state_that_lacks_a_tensor_is_refused() -> None:
    state = gather(CASES[1], [slice(None)])[0].state()
    del state["means"], state["largest"]
    with pytest.raises(ValueError, match="the state lacks largest, means"):
        ClassStatistics.from_state(state)


def test_an_interrupted_save_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.safetensors"
    before = gather(CASES[0], [slice(None)])[0]
    before.save(path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gather(CASES[0], [slice(0, 50)])[0].save(path)
    assert ClassStatistics.load(path).total == before.total
    assert [file.name for file in tmp_path.iterdir()] == ["s.safetensors"]


def test_narrow_and_wide_batches_in_turn() -> None:
    """A block opened for float64 takes float32 too: precision is never narrowed, whatever comes first."""
    case = draw(sizes=(40,) * 3, dim=5, dtype=torch.float64)
    turns = [case.features[:30], case.features[30:60].float(), case.features[60:90] * 1e300, case.features[90:].half()]
    statistics = ClassStatistics(3, 5)
    for x, y in zip(turns, case.labels.split(30), strict=True):
        statistics.update(x, y)
    exact = np.concatenate([turn.double().numpy() * 1e-300 for turn in turns])
    for k in range(3):
        np.testing.assert_allclose(statistics.means[k] * 1e-300, exact[case.labels.numpy() == k].mean(0), rtol=1e-9)


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 200, 257, 1030])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_symmetric_product_is_the_whole_product(dim: int, dtype: torch.dtype) -> None:
    rows = torch.randn(37, dim, dtype=dtype, generator=torch.Generator().manual_seed(dim))
    exact = rows.numpy().astype(np.float64)
    found = symmetric_product(rows)
    assert found.dtype == torch.float64
    assert torch.equal(found, found.T)
    np.testing.assert_allclose(found.numpy(), exact.T @ exact, rtol=0, atol=300 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("scales", [(1.0, 1e150), (1e150, 1.0), (1e-150, 1.0), (1e130, 1e150), (1e-150, 1e-130)])
def test_what_was_gathered_takes_the_unit_of_much_larger_features(scales: tuple[float, float]) -> None:
    """The first block is complete before the second one asks for another unit."""
    rng = np.random.default_rng(0)
    labels = torch.arange(60) % 3
    parts = [torch.from_numpy(scale * (rng.standard_normal((60, 4)) + 3 * np.eye(3, 4)[labels])) for scale in scales]
    statistics = ClassStatistics(3, 4)
    for part in parts:
        statistics.update(part, labels)
        statistics.moments()  # completes the block
    unit = max(scales)
    together = np.concatenate([part.numpy() / unit for part in parts])
    own = np.concatenate([labels, labels])
    centred = together - np.stack([together[own == label].mean(0) for label in range(3)])[own]
    np.testing.assert_allclose(
        (statistics.within_covariance / unit / unit).numpy(),
        centred.T @ centred / len(together),
        rtol=1e-12,
        atol=1e-16,
    )
