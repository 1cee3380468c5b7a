from __future__ import annotations

import copy
import os
import pickle
import socket
from pathlib import Path

import matplotlib
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.wrappers import MetricTracker

from neuralcollapse import CollapseWarning, NeuralCollapse, measure, measure_features
from tests.cases import CASES, Case, draw, oracle

matplotlib.use("Agg")

CASE = draw(sizes=(31, 20, 17), dim=5, spread=1e-3, offset=10.0)


def close(found: dict, expected: dict, rel: float = 2e-6) -> None:
    assert set(found) - {"nc1_balanced"} == set(expected) - {"nc1_balanced"}
    for name in set(found) & set(expected):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=rel, abs=1e-12), name


class MetricTester:
    """What torchmetrics promises of every metric, tried with batches of one case."""

    def __init__(self, case: Case, batch: int = 9) -> None:
        self.case = case
        self.batches = list(zip(case.features.split(batch), case.labels.split(batch), strict=True))
        self.expected = oracle(case.features, case.labels, case.weight, case.bias)

    def metric(self, **options: object) -> NeuralCollapse:
        size = len(self.case.weight), self.case.features.shape[1]
        return NeuralCollapse(*size, classifier=self.case.weight, bias=self.case.bias, allow_missing=True, **options)

    def updated(self, **options: object) -> NeuralCollapse:
        metric = self.metric(**options)
        for batch in self.batches:
            metric.update(*batch)
        return metric

    def check(self, metric: NeuralCollapse) -> None:
        close(metric.compute(), self.expected)


def clones(metric: NeuralCollapse) -> list[NeuralCollapse]:
    """Copies, as torchmetrics makes them."""
    tracker = MetricTracker(metric)
    tracker.increment()
    collection = MetricCollection([metric]).clone(prefix="val_")
    return [metric.clone(), copy.deepcopy(metric.clone()), tracker[-1], collection["NeuralCollapse"]]


@pytest.mark.parametrize("read", [lambda layer: layer, lambda layer: layer.weight], ids=["layer", "weight"])
def test_a_clone_reads_the_layer_as_it_is_trained(read) -> None:
    layer = nn.Linear(5, 3)
    metric = NeuralCollapse(3, 5, classifier=read(layer))
    copies = clones(metric)
    with torch.no_grad():
        layer.weight.copy_(CASE.weight)
        layer.bias.zero_()
    expected = measure_features(CASE.features, CASE.labels, layer.weight)
    for one in (metric, *copies):
        one.update(CASE.features, CASE.labels)
        assert float(one.compute()["nc3"]) == pytest.approx(expected.nc3, rel=1e-12)


@pytest.mark.parametrize("first", ["metric", "layer"])
def test_a_copied_model_s_metric_reads_the_copied_layer(first: str) -> None:
    model = nn.Module()
    layer = nn.Linear(5, 3)
    parts = {"metric": NeuralCollapse(3, 5, classifier=layer), "layer": layer}
    for name in (first, *(parts.keys() - {first})):
        setattr(model, name, parts[name])
    copied = copy.deepcopy(model)
    with torch.no_grad():
        layer.weight.zero_()
    expected = measure_features(CASE.features, CASE.labels, copied.layer.weight, copied.layer.bias)
    fresh = pickle.loads(pickle.dumps(copied))  # before the copy was ever used
    for one in (copied, fresh):
        one.metric.update(CASE.features, CASE.labels)
    assert float(fresh.metric.compute()["nc3"]) == pytest.approx(expected.nc3, rel=1e-12)
    assert float(copied.metric.compute()["nc3"]) == pytest.approx(expected.nc3, rel=1e-12)
    again = pickle.loads(pickle.dumps(copy.deepcopy(copied)))
    assert float(again.metric.compute()["nc3"]) == pytest.approx(expected.nc3, rel=1e-12)


CONTRACT = [MetricTester(case) for case in (*CASES[:4], CASES[7], CASE)]


@pytest.mark.parametrize("tester", CONTRACT, ids=lambda tester: repr(tester.case))
class TestContract:
    def test_update_compute_and_reset(self, tester: MetricTester) -> None:
        metric = tester.updated()
        tester.check(metric)
        close(metric.compute(tester.case.weight, tester.case.bias), tester.expected)
        metric.reset()
        assert metric.statistics.total == 0
        for batch in tester.batches:
            metric.update(*batch)
        tester.check(metric)

    @pytest.mark.filterwarnings("ignore::neuralcollapse.CollapseWarning")
    def test_forward_gives_the_batch_and_keeps_the_whole(self, tester: MetricTester) -> None:
        metric = tester.metric()
        half = len(tester.case.labels) // 2
        for part in (slice(0, half), slice(half, None)):
            x, y = tester.case.features[part], tester.case.labels[part]
            value = metric(x, y)
            direct = measure_features(x, y, tester.case.weight, tester.case.bias, allow_missing=True)
            close(value, {name: number for name, number in direct.to_dict().items() if number is not None}, 1e-5)
        assert metric.update_count == 2
        tester.check(metric)

    def test_merge_state(self, tester: MetricTester) -> None:
        first, second = tester.metric(), tester.metric()
        for index, batch in enumerate(tester.batches):
            (first if index % 3 else second).update(*batch)
        before = second.statistics.state()
        first.merge_state(second)
        tester.check(first)
        for name, tensor in second.statistics.state().items():
            assert torch.equal(tensor, before[name]), name
        third = tester.metric()
        third.merge_state(first.metric_state)
        tester.check(third)

    @pytest.mark.parametrize(
        "narrow", [lambda m: m.to(torch.float16), lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.float()]
    )
    def test_precision_of_the_model_is_not_that_of_the_sums(self, tester: MetricTester, narrow) -> None:
        metric = narrow(tester.updated())
        assert metric.means.dtype == metric.scatter.dtype == torch.float64
        tester.check(metric)
        tester.check(narrow(nn.ModuleList([tester.updated()]))[0])

    def test_copies_are_their_own(self, tester: MetricTester) -> None:
        metric = tester.updated()
        kept = metric.statistics
        states = kept.state()
        for again in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
            tester.check(again)
            again.update(*tester.batches[0])
        metric.update(*tester.batches[0])
        for name, tensor in kept.state().items():
            assert torch.equal(tensor, states[name]), name

    def test_state_dict(self, tester: MetricTester) -> None:
        metric, again = tester.updated(), tester.metric()
        metric.persistent(True)
        again.persistent(True)
        again.load_state_dict(metric.state_dict())
        tester.check(again)

    def test_collection(self, tester: MetricTester) -> None:
        collection = MetricCollection({"head": tester.metric(), "features": NeuralCollapse(*tester.case.weight.shape)})
        for x, y in tester.batches:
            collection.update(x, y)
        found = collection.compute()
        close({name[5:]: value for name, value in found.items() if name.startswith("head_")}, tester.expected)
        assert "features_nc1" in found
        assert "features_nc2" not in found

    def test_plot(self, tester: MetricTester) -> None:
        metric = tester.updated()
        figure, _ = metric.plot()
        results = [measure_features(tester.case.features, tester.case.labels).to_dict(), metric.compute()]
        several, _ = metric.plot(
            [{name: torch.tensor(float(result[name])) for name in ("nc1", "cdnv")} for result in results]
        )
        assert figure is not several
        matplotlib.pyplot.close("all")


def test_the_classifier_is_read_when_computing_and_stays_the_models_own() -> None:
    head = nn.Linear(5, 3)
    metric = NeuralCollapse(3, 5, classifier=head)
    metric.update(CASE.features, CASE.labels)
    with torch.no_grad():
        head.weight.copy_(CASE.weight)
        head.bias.copy_(CASE.bias)
    close(metric.compute(), oracle(CASE.features, CASE.labels, CASE.weight, CASE.bias))
    unbound = NeuralCollapse(3, 5)
    unbound.update(CASE.features, CASE.labels)
    close(unbound.compute(head), {name: float(value) for name, value in metric.compute().items()})
    assert not list(metric.parameters())
    assert not metric.state_dict()
    bare = NeuralCollapse(3, 5, classifier=nn.Linear(5, 3, bias=False))
    bare.update(CASE.features, CASE.labels)
    assert "nc4" in bare.compute()
    assert "bias_spread" not in bare.compute()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"weight has shape \(5, 3\): expected \(3, 5\).*pass weight.T"):
        NeuralCollapse(3, 5, classifier=CASE.weight.T)
    with pytest.raises(TypeError, match="classifier=ReLU is no linear layer"):
        NeuralCollapse(3, 5, classifier=nn.ReLU())
    with pytest.raises(
        TypeError, match=r"classifier='head' is a str: pass the layer itself, such as model\.fc, or its"
    ):
        NeuralCollapse(3, 5, classifier="head")
    with pytest.raises(ValueError, match="num_classes=1"):
        NeuralCollapse(1, 5)
    metric = NeuralCollapse(4, 5)
    with pytest.warns(UserWarning, match="before"), pytest.raises(ValueError, match=r"call update\(\) with some first"):
        metric.compute()
    with pytest.raises(ValueError, match=r"shape \(6, 4\): expected \(B, 5\); these may be logits"):
        metric.update(torch.ones(6, 4), torch.arange(6) % 4)
    metric.update(CASE.features, CASE.labels)
    with pytest.raises(ValueError, match="1 of 4 classes have no samples: 3"):
        metric.compute()
    with pytest.warns(CollapseWarning, match="no samples: 3"):
        close(metric.compute(allow_missing=True), oracle(CASE.features, CASE.labels))


def test_lightning_logs_the_metric_itself() -> None:
    metric = NeuralCollapse(3, 5, classifier=CASE.weight, bias=CASE.bias)
    value = metric(CASE.features.numpy(), CASE.labels.tolist())  # arrays and lists, as everywhere
    assert all(number.ndim == 0 for number in value.values())


def on_rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    metric = NeuralCollapse(3, 5, classifier=CASE.weight, bias=CASE.bias)
    for batch in (slice(rank, 40, 2), slice(40 + rank, None, 2)):
        metric.update(CASE.features[batch], CASE.labels[batch])
    answer = {name: float(value) for name, value in metric.compute().items()}
    own = metric.statistics.total  # unsynchronised again
    torch.save([answer, own], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_answer_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(on_rank, (port, str(tmp_path)), nprocs=2, start_method="spawn")
    for rank in (0, 1):
        answer, own = torch.load(tmp_path / f"{rank}.pt")
        close(answer, oracle(CASE.features, CASE.labels, CASE.weight, CASE.bias))
        assert own == len(CASE.labels) // 2


class Tenfold(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 10 * super().forward(x)


@pytest.mark.parametrize("kind", ["scaled", "pruned", "normalised"])
def test_the_classifier_of_a_metric_is_what_it_computes(kind: str) -> None:
    """``measure`` asks a layer for the weight with which it answers, and so does the metric."""
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5), torch.arange(60) % 3
    layer = Tenfold(5, 3) if kind == "scaled" else torch.nn.Linear(5, 3)
    if kind == "pruned":
        torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.4)
        layer.weight_orig.data.mul_(torch.rand(3, 5) + 1)  # as an optimizer does; no forward pass since
    if kind == "normalised":
        torch.nn.utils.weight_norm(layer)
        layer.weight_g.data.mul_(torch.rand(3, 1) + 1)
    metric = NeuralCollapse(3, 5, classifier=layer)
    metric.update(features, labels)
    found = metric.compute()
    report = measure(torch.nn.Sequential(torch.nn.Identity(), layer), [(features, labels)])
    for name in ("nc2", "nc3", "nc4"):
        assert float(found[name]) == pytest.approx(getattr(report.metrics, name), rel=1e-5)
    asked = layer(torch.eye(5)) - layer(torch.zeros(1, 5))
    torch.testing.assert_close(report.weight.float(), asked.T.detach(), atol=1e-5, rtol=1e-5)
