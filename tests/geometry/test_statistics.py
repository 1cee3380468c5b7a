from __future__ import annotations

import itertools
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from neuralcollapse import ClassStatistics
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
