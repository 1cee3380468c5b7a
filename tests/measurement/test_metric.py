from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from neuralcollapse import NeuralCollapse, measure
from tests.cases import CASES, draw, oracle

CASE = draw(sizes=(31, 20, 17), dim=5, spread=1e-3, offset=10.0)


def close(found: dict, expected: dict, rel: float) -> None:
    assert set(found) - {"nc1_balanced"} == set(expected) - {"nc1_balanced"}
    for name in set(found) & set(expected):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=rel, abs=1e-12), name


@pytest.mark.parametrize("case", CASES[:4], ids=repr)
def test_batches_and_classifier(case) -> None:
    metric = NeuralCollapse(len(case.weight), case.features.shape[1])
    for x, y in zip(case.features.split(9), case.labels.split(9), strict=True):
        metric.update(x, y)
    close(metric.compute(case.weight, case.bias), oracle(case.features, case.labels, case.weight, case.bias), 2e-6)
    close(metric.compute(), oracle(case.features, case.labels), 2e-6)
    metric.reset()
    assert metric.statistics.total == 0


def test_state_survives_half_and_state_dict() -> None:
    metric = NeuralCollapse(3, 5)
    metric.update(CASE.features, CASE.labels)
    metric.persistent(True)
    again = NeuralCollapse(3, 5)
    again.persistent(True)
    again.load_state_dict(metric.state_dict())
    for name, tensor in metric.statistics.state().items():
        assert torch.equal(again.half().statistics.state()[name], tensor), name


def on_rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    x, y = CASE.features[rank::2], CASE.labels[rank::2]
    metric = NeuralCollapse(3, 5)
    metric.update(x, y)
    answer = {name: float(value) for name, value in metric.compute(CASE.weight, CASE.bias).items()}
    model = nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(CASE.weight)
        model.bias.copy_(CASE.bias)
    report = measure(model, [(x, y)])
    torch.save([answer, report.to_dict()], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_answer_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(on_rank, (port, str(tmp_path)), nprocs=2, start_method="spawn")
    single = NeuralCollapse(3, 5)
    single.update(CASE.features, CASE.labels)
    expected = single.compute(CASE.weight, CASE.bias)
    model = nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(CASE.weight)
        model.bias.copy_(CASE.bias)
    whole = measure(model, [(CASE.features, CASE.labels)]).to_dict()
    for rank in (0, 1):
        metric, report = torch.load(tmp_path / f"{rank}.pt")
        close(metric, expected, 1e-6)
        close({name: value for name, value in report.items() if value is not None}, whole, 1e-6)
