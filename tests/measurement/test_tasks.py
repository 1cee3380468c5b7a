"""Several labels per sample, and continuous targets, through measure(): held, streamed, and refused with a hint."""

from __future__ import annotations

import html
import itertools
import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn

from neuralcollapse import extract_features, measure, multilabel_metrics, regression_metrics
from neuralcollapse.geometry.collapse import CollapseWarning
from neuralcollapse.geometry.measures import MEASURES
from neuralcollapse.measurement import model as measuring
from neuralcollapse.measurement import multilabel

GENERATOR = torch.Generator().manual_seed(0)
SETS = torch.tensor(
    [[k in chosen for k in range(4)] for m in (1, 2, 3) for chosen in itertools.combinations(range(4), m)]
)
LABELS = SETS.repeat(6, 1)[torch.randperm(84, generator=GENERATOR)]
INPUTS = LABELS.float() @ torch.randn(4, 8, generator=GENERATOR) + 0.3 * torch.randn(84, 8, generator=GENERATOR) + 1
TARGETS = INPUTS[:, :3] @ torch.randn(3, 3, generator=GENERATOR) + 0.1 * torch.randn(84, 3, generator=GENERATOR)


def network(outputs: int) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, outputs))


def batches(labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(INPUTS.split(20), labels.split(20), strict=True))


def by_hand(model: nn.Sequential) -> tuple[Tensor, Tensor, Tensor]:
    """First layer, last features and outputs, without hooks."""
    with torch.no_grad():
        return model[0](INPUTS), model[:-1](INPUTS), model(INPUTS)


def assert_alike(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True)), name


@pytest.mark.parametrize("hold", [1 << 30, 1500, 0])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_label_sets_give_the_measures_of_their_features(
    hold: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_RETAINED_BYTES", hold)
    model = network(4)
    first, last, logits = by_hand(model)
    report = measure(model, batches(LABELS.to(dtype)), task="multilabel", layers=["0"])
    expected = multilabel_metrics(last, LABELS, model[-1].weight.detach(), model[-1].bias.detach())
    assert_alike(report.to_dict(), expected.to_dict())
    assert report.metrics.angles == pytest.approx(expected.angles, rel=1e-5)
    assert report.metrics.scales == pytest.approx(expected.scales, rel=1e-5)
    assert_alike(report.layers["0"].to_dict(), multilabel_metrics(first, LABELS).to_dict())
    right = [
        set(np.argsort(-row)[: int(hot.sum())]) == set(np.flatnonzero(hot))
        for row, hot in zip(logits.numpy(), LABELS.numpy(), strict=True)
    ]
    assert 0 < np.mean(right) < 1
    assert report.set_accuracy == pytest.approx(np.mean(right))
    assert (report.samples, report.moments.total) == (84, 24)


def test_means_of_many_sets_are_merged_batch_by_batch_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.cat([torch.eye(12).repeat(3, 1), (torch.rand(5000, 12, generator=generator) < 0.5).float()])
    labels = labels[labels.any(1)][torch.randperm(int(labels.any(1).sum()), generator=generator)]
    inputs = labels @ torch.randn(12, 8, generator=generator) + torch.randn(len(labels), 8, generator=generator)
    model = network(12)
    data = list(zip(inputs.split(300), labels.split(300), strict=True))
    with torch.no_grad():
        expected = multilabel_metrics(model[:-1](inputs), labels)
    found = measure(model, data, task="multilabel")
    assert len(found.sets.sets) > 2000
    assert found.metrics.tag_angle == pytest.approx(expected.tag_angle, rel=1e-6)
    monkeypatch.setattr(multilabel, "_SETS_BYTES", 1000)
    with pytest.warns(CollapseWarning, match="tag_angle is left out"):
        less = measure(model, data, task="multilabel")
    assert less.metrics.tag_angle is None
    assert less.metrics.nc1 == pytest.approx(found.metrics.nc1)


def test_a_class_that_is_never_alone() -> None:
    kept = ~((LABELS.sum(1) == 1) & LABELS[:, 2])
    data = [(INPUTS[kept], LABELS[kept])]
    with pytest.raises(ValueError, match=r"no sample carries class 2 alone.*pass allow_missing=True"):
        measure(network(4), data, task="multilabel")
    with pytest.warns(CollapseWarning, match="1 of 4 classes have no samples: 2"):
        found = measure(network(4), data, task="multilabel", allow_missing=True)
    without = kept & ~LABELS[:, 2]
    columns = [0, 1, 3]
    with torch.no_grad():
        expected = multilabel_metrics(network(4)[:-1](INPUTS[without]), LABELS[without][:, columns])
    assert found.metrics.tag_angle == pytest.approx(expected.tag_angle, rel=1e-6)
    assert found.metrics.nc1 == pytest.approx(expected.nc1, rel=1e-5)


def test_classes_that_are_never_alone_are_named_once_and_other_warnings_of_each_layer() -> None:
    kept = ~((LABELS.sum(1) == 1) & LABELS[:, 2])
    labels = LABELS[kept]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure(network(4), [(torch.ones(len(labels), 8), labels)], task="multilabel", layers=["0"], allow_missing=True)
    said = [str(found.message) for found in caught if found.category is CollapseWarning]
    assert sum("have no samples" in one for one in said) == 1
    assert sum("coincide" in one for one in said) == 2


@pytest.mark.parametrize("hold", [1 << 30, 3000, 0])
@pytest.mark.parametrize("outputs", [1, 3])
def test_targets_give_the_measures_of_their_features(hold: int, outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_RETAINED_BYTES", hold)
    model, targets = network(outputs), TARGETS[:, :outputs]
    first, last, predicted = by_hand(model)
    given = targets[:, 0] if outputs == 1 else targets
    report = measure(model, batches(given), task="regression", layers=["0"])
    assert_alike(report.to_dict(), regression_metrics(last, targets, model[-1].weight.detach()).to_dict())
    assert_alike(report.layers["0"].to_dict(), regression_metrics(first, targets).to_dict())
    assert report.layers["0"].nrc3 is None
    assert report.r_squared == pytest.approx(r2_score(targets.numpy(), predicted.numpy()), rel=1e-5)
    assert (report.samples, report.targets, report.feature_dim) == (84, outputs, 12)


def test_an_iterator_of_too_many_features_leaves_out_what_needs_a_second_pass() -> None:
    model = network(3)
    with pytest.warns(CollapseWarning, match="read only once: .*NRC1 and NRC2 are left out"):
        report = measure(model, iter(batches(TARGETS)), task="regression", ncc=False)
    full = measure(model, batches(TARGETS), task="regression", ncc=False)
    assert report.metrics.nrc1 is report.metrics.nrc2 is None
    assert report.metrics.nrc3 == pytest.approx(full.metrics.nrc3)
    assert full.metrics.nrc1 > 0


def test_features_alone() -> None:
    body = network(3)[:4]
    found = measure(body, batches(TARGETS), task="regression", features_only=True)
    assert found.metrics.nrc3 is found.r_squared is None
    with torch.no_grad():
        assert found.metrics.nrc1 == pytest.approx(regression_metrics(body(INPUTS), TARGETS).nrc1, rel=1e-5)
    several = measure(body, batches(LABELS), task="multilabel", features_only=True)
    assert several.metrics.nc2 is several.set_accuracy is None


@pytest.mark.parametrize(("task", "labels", "outputs"), [("multilabel", LABELS, 4), ("regression", TARGETS, 3)])
def test_every_row_says_what_it_is_at_collapse(task: str, labels: Tensor, outputs: int) -> None:
    report = measure(network(outputs), batches(labels), task=task, layers=["0"])
    lines = str(report).splitlines()
    for name, value in report.to_dict().items():
        (line,) = (line for line in lines if line.strip(" │|").startswith(f"{name} "))
        assert f"{value:.4g}" in line
        assert ("≤ 3" if name == "stable_rank" else MEASURES[name].goal()) in line
    words = report.explain()
    for name in report.headline:
        assert f"{MEASURES[name].title} is " in words
        assert MEASURES[name].meaning in words
    found = json.loads(report.to_json())
    assert found["task"] == task
    assert found["layers"]["0"].keys() == report.layers["0"].to_dict().keys()
    assert [float(x) for x in report.plot().data[0].x] == [report.to_dict()[name] for name in report.headline]
    assert list(report.plot(by_layer=report.headline[0]).data[0].x) == ["0", "4"]
    assert all(html.escape(MEASURES[name].title) in report._repr_html_() for name in report.to_dict())
    assert f"{next(iter(report.metrics.to_dict().values())):.6g}" in str(report.metrics)


def test_extracted_labels_are_those_of_the_task() -> None:
    assert torch.equal(extract_features(network(4), batches(LABELS), task="multilabel").labels, LABELS)
    torch.testing.assert_close(
        extract_features(network(3), batches(TARGETS), task="regression").labels, TARGETS.double()
    )


def test_the_label_of_three_parts_is_found() -> None:
    index = [torch.arange(84).split(20), INPUTS.split(20)]
    several = zip(INPUTS.split(20), LABELS.split(20), index[0], strict=True)
    assert measure(network(4), list(several), task="multilabel").samples == 84
    targets = zip(INPUTS.split(20), TARGETS.split(20), index[0], strict=True)
    assert measure(network(3), list(targets), task="regression").samples == 84


ONE_HOT = nn.functional.one_hot(torch.arange(84) % 4)
REFUSED = {
    "continuous": ({}, 3, TARGETS, TypeError, 'continuous targets are measured with task="regression"'),
    "one continuous": ({}, 3, TARGETS[:, 0], TypeError, 'continuous targets are measured with task="regression"'),
    "whole floats": ({}, 4, (torch.arange(84) % 4).float(), TypeError, r"pass labels.long\(\)"),
    "one output": ({}, 1, torch.arange(84) % 2, ValueError, 'single output.*task="regression"'),
    "several": ({}, 4, LABELS, ValueError, 'several labels per sample are measured with task="multilabel"'),
    "one-hot": ({}, 4, ONE_HOT, ValueError, r"labels.argmax\(1\); several labels .* task=\"multilabel\""),
    "indices as sets": ({"task": "multilabel"}, 4, torch.arange(84) % 4, ValueError, "task='?\"?classification"),
    "targets as sets": ({"task": "multilabel"}, 3, TARGETS, ValueError, 'task="regression"'),
    "one target as sets": ({"task": "multilabel"}, 3, TARGETS[:, 0], ValueError, 'task="regression"'),
    "one-hot as sets": ({"task": "multilabel"}, 4, ONE_HOT, ValueError, "every sample carries exactly one label"),
    "sets of other sizes": ({"task": "multilabel"}, 5, LABELS, ValueError, "4 columns, and the classifier 5"),
    "no label": ({"task": "multilabel"}, 4, LABELS & False, ValueError, "carry no label: leave them out"),
    "sets as targets": ({"task": "regression"}, 4, LABELS.float(), ValueError, 'task="multilabel"'),
    "booleans as targets": ({"task": "regression"}, 4, LABELS, TypeError, "expects real targets"),
    "indices as targets": ({"task": "regression"}, 4, torch.arange(84) % 4, ValueError, "One class index per sample"),
    "targets of other sizes": ({"task": "regression"}, 4, TARGETS, ValueError, "3 columns, .* gives 4 numbers"),
    "NaN": ({"task": "regression"}, 3, TARGETS * torch.nan, ValueError, "labels hold NaN"),
    "wide targets": ({"task": "regression"}, 14, TARGETS.repeat(1, 5)[:, :14], ValueError, "14 targets need at least"),
    "constant targets": ({"task": "regression"}, 1, torch.ones(84), ValueError, "targets do not vary"),
    "unknown": ({"task": "ranking"}, 4, LABELS, ValueError, "task='ranking' is unknown: choose one"),
    "every layer": ({"task": "regression", "layers": "all"}, 3, TARGETS, ValueError, "name them in a list"),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", REFUSED)
def test_labels_that_look_like_another_task(kind: str) -> None:
    options, outputs, labels, error, message = REFUSED[kind]
    with pytest.raises(error, match=message):
        measure(network(outputs), batches(labels), **options)


def test_nothing_and_a_target_are_refused() -> None:
    etf = SimpleNamespace(weight=torch.eye(3), class_means=torch.eye(3))
    for task, message in (("multilabel", "the loader is empty"), ("regression", "0 samples were seen")):
        with pytest.raises(ValueError, match=message):
            measure(network(3), [], task=task)
        with pytest.raises(ValueError, match="target= is the geometry of classes"):
            measure(network(3), batches(TARGETS), task=task, target=etf)


def test_r_squared_is_nan_where_a_target_does_not_vary() -> None:
    targets = torch.stack([TARGETS[:, 0], torch.full((84,), 2.0)], 1)
    report = measure(network(2), batches(targets), task="regression")
    assert report.r_squared is not None
    assert math.isnan(report.r_squared)


def test_the_stable_rank_of_a_regression_is_at_most_the_number_of_targets() -> None:
    report = measure(network(3), batches(TARGETS), task="regression")
    for text in (str(report), report._repr_html_()):
        assert "≤ 3" in text
        assert "→ 3" not in text


def test_an_empty_batch_of_maps_is_passed_over() -> None:
    body = nn.Sequential(nn.Conv2d(2, 5, 3), nn.AdaptiveAvgPool2d(1))
    x, y = torch.randn(40, 2, 6, 6), torch.arange(40) % 2
    found = measure(body, [(x, y), (x[:0], y[:0])], features_only=True)
    assert found.metrics.nc1 == measure(body, [(x, y)], features_only=True).metrics.nc1
