"""Labels are copied where they enter, and every array of integers is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import extract_features, measure
from neuralcollapse.measurement.labels import as_labels
from tests.cases import oracle

CLASSES = torch.randint(3, (60,), generator=torch.Generator().manual_seed(1))
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + 2 * CLASSES[:, None]
EVEN = torch.arange(60) % 2 == 0
SETS = torch.stack([CLASSES == 0, (CLASSES == 1) | (EVEN & (CLASSES == 2)), CLASSES == 2], 1)
TARGETS = INPUTS[:, :3].double() + 0.1
HOST = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def reused(labels: Tensor, kind: str) -> Iterator[tuple[Tensor, Any]]:
    """Batches whose labels, and inputs, all lie in the same memory."""
    memory, given = torch.empty_like(labels[:20]), torch.empty(20, 8)
    for x, y in zip(INPUTS.split(20), labels.split(20), strict=True):
        memory.copy_(y)
        given.copy_(x)
        yield given, memory.numpy() if kind == "array" else memory
    memory.zero_()
    given.zero_()


LABELS: dict[str, tuple[Any, Tensor]] = {
    "classification": ("classification", CLASSES),
    "narrow": ("classification", CLASSES.to(torch.uint8)),
    "multilabel": ("multilabel", SETS),
    "multilabel of integers": ("multilabel", SETS.long()),
    "regression": ("regression", TARGETS),
    "regression of one column": ("regression", TARGETS[:, :1]),
    "regression in float32": ("regression", TARGETS.float()),
}


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", ["tensor", "array"])
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("ncc", [True, False], ids=["held", "streamed"])
def test_a_loader_that_reuses_its_memory(name: str, kind: str, ncc: bool) -> None:
    task, labels = LABELS[name]
    model = network() if labels.ndim == 1 else nn.Sequential(*network()[:2], nn.Linear(16, labels.shape[1]))
    plain = list(zip(INPUTS.split(20), labels.split(20), strict=True))
    if task == "regression" and not ncc:
        given: Any = list(plain)  # read twice, which a generator is not
    else:
        given = reused(labels, kind)
    found = measure(model, given, task=task, ncc=ncc).to_dict()
    assert found == measure(model, plain, task=task, ncc=ncc).to_dict()
    extracted = extract_features(model, reused(labels, kind), task=task)
    assert torch.equal(extracted.labels, labels if task != "regression" else labels.double())


def test_reused_labels_give_the_oracle_s_numbers_and_the_report_keeps_its_own() -> None:
    model, labels = network(), CLASSES.clone()
    expected = oracle(model[:2](INPUTS).detach(), CLASSES)["nc1"]
    assert measure(model, reused(CLASSES, "tensor")).metrics.nc1 == pytest.approx(expected, rel=1e-5)
    report = measure(model, [(INPUTS, labels)])
    labels.zero_()  # before the statistics, which are computed when they are asked for
    assert torch.equal(report.labels, CLASSES)
    assert torch.equal(report.statistics.counts, CLASSES.bincount())


ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "reversed": lambda y: y[::-1].copy()[::-1],
    "big-endian": lambda y: y.astype(">i8"),
    "little-endian": lambda y: y.astype("<i2"),
    "uint16": lambda y: y.astype("u2"),
    "uint64": lambda y: y.astype("u8"),
    "every other": lambda y: np.repeat(y, 2)[::2],
    "a column": lambda y: np.stack([y, y + 1], 1)[:, 0],
    "read only": lambda y: np.broadcast_to(y, y.shape),
    "objects": lambda y: y.astype(object),
    "masked nowhere": np.ma.masked_array,
    "scalars": lambda y: [np.int32(value) for value in y],
    "a list": lambda y: y.tolist(),
    "a tuple": lambda y: tuple(y.tolist()),
    "tensors": lambda y: [torch.tensor([value]) for value in y],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_every_array_of_integers_is_labels(kind: str) -> None:
    given = ARRAYS[kind](CLASSES.numpy())
    found = as_labels(given, HOST)
    assert found.dtype == torch.int64
    assert torch.equal(found, CLASSES)
    assert measure(network(), [(INPUTS, given)]).to_dict() == measure(network(), [(INPUTS, CLASSES)]).to_dict()


@pytest.mark.parametrize("order", [">", "<"])
def test_targets_and_sets_in_any_order_of_bytes(order: str) -> None:
    assert torch.equal(as_labels(TARGETS.numpy().astype(f"{order}f8")[::-1], HOST, "regression"), TARGETS.flip(0))
    assert torch.equal(as_labels(SETS.numpy().astype(f"{order}i4")[::-1], HOST, "multilabel"), SETS.flip(0))


def test_a_column_of_a_table_is_read_by_place_not_by_index() -> None:
    pandas = pytest.importorskip("pandas")
    shuffled = pandas.Series(CLASSES.numpy(), index=np.arange(60)[::-1])
    assert torch.equal(as_labels(shuffled, HOST), CLASSES)


@pytest.mark.parametrize("given", [np.ma.masked_array([0, 1], [True, False]), [{}, {}], {"y": 1}])
def test_what_holds_no_integers_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=f"labels are a {type(given).__name__} that holds no integers: pass batch="):
        as_labels(given, HOST)


def uncollated(size: int, kind: str) -> list:
    samples = [(x, y) if kind == "pairs" else {"x": x, "y": y} for x, y in zip(INPUTS, CLASSES, strict=True)]
    return [samples[start : start + size] for start in range(0, 60, size)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["pairs", "mappings"])
def test_samples_that_were_not_collated_are_refused_with_a_sentence(size: int, kind: str) -> None:
    with pytest.raises((ValueError, TypeError), match="pass batch=, a function that takes a batch and returns"):
        measure(network(), uncollated(size, kind))
