"""Processes that measure together: one group of two runs every case, and each has to end alike on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse import measure
from neuralcollapse.measurement import model as measuring
from neuralcollapse.measurement.ranks import first_process

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]
SETS = nn.functional.one_hot(LABELS, 3) | nn.functional.one_hot((LABELS + torch.arange(60) % 2) % 3, 3)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def share(rank: int, sizes: tuple[int, int], labels: Tensor = LABELS) -> list[tuple[Tensor, Tensor]]:
    rows = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], sum(sizes))
    return list(zip(INPUTS[rows].split(7), labels[rows].split(7), strict=True)) if sizes[rank] else []


class Failing:
    """A loader that breaks on one rank, after its first batch."""

    def __init__(self, batches: list, error: BaseException | None) -> None:
        self.batches, self.error = batches, error

    def __iter__(self):
        yield from self.batches[:1]
        if self.error is not None:
            raise self.error
        yield from self.batches[1:]


def together(rank: int) -> dict[str, object]:
    return measure(network(), share(rank, (30, 30)), layers=["0"]).to_dict()


def an_empty_rank(rank: int) -> dict[str, object]:
    report = measure(network(), share(rank, (60, 0)), layers=["0"])
    return {**report.to_dict(), "layer": report.layers["0"].nc1}


def every_layer(sizes: tuple[int, int]) -> object:
    def case(rank: int) -> dict[str, object]:
        depth = measure(network(), share(rank, sizes), layers="all").depth
        return {"layers": list(depth.layers), **depth.layers["2"].to_dict()}

    return case


def too_much_on_one_rank(rank: int) -> dict[str, object]:
    measuring._RETAINED_BYTES = 500 if rank == 0 else 1 << 30
    try:
        return measure(network(), share(rank, (50, 10)), layers=["0"]).to_dict()
    finally:
        measuring._RETAINED_BYTES = 2 << 30


def failing(error: BaseException, on: int) -> object:
    def case(rank: int) -> dict[str, object]:
        try:
            measure(network(), Failing(share(rank, (30, 30)), error if rank == on else None))
        except BaseException as raised:
            return {"raised": f"{type(raised).__name__}: {raised}"}
        return {"raised": "nothing"}

    return case


def bad_classifier_on_one_rank(rank: int) -> dict[str, object]:
    try:
        measure(network(), share(rank, (30, 30)), classifier="9" if rank else None)
    except ValueError as raised:
        return {"raised": str(raised)}
    return {"raised": "nothing"}


def nobody_has_data(rank: int) -> dict[str, object]:
    try:
        measure(network(), [])
    except ValueError as raised:
        return {"raised": str(raised)}
    return {"raised": "nothing"}


def several_labels(sizes: tuple[int, int]) -> object:
    def case(rank: int) -> dict[str, object]:
        report = measure(network(), share(rank, sizes, SETS), layers=["0"], task="multilabel")
        return {**report.to_dict(), "layer": report.layers["0"].tag_angle}

    return case


def targets(sizes: tuple[int, int], ncc: bool = True) -> object:
    def case(rank: int) -> dict[str, object]:
        report = measure(network(), share(rank, sizes, INPUTS[:, :3]), layers=["0"], task="regression", ncc=ncc)
        return {**report.to_dict(), "layer": report.layers["0"].nrc1}

    return case


def attacked(sizes: tuple[int, int]) -> object:
    def case(rank: int) -> dict[str, object]:
        return measure(network(), share(rank, sizes), attack="pgd", epsilon=0.2).attack.to_dict()

    return case


def alone(rank: int) -> dict[str, object]:
    return measure(network(), share(0, (30, 30)), sync=False).to_dict() if rank == 0 else {}


def buffers_of_rank_0(rank: int) -> dict[str, object]:
    model = network()
    model[1].running_mean += rank
    found = measure(model, share(rank, (30, 30))).to_dict()
    return {**found, "kept": float(model[1].running_mean[0])}


def sharded(sizes: tuple[int, int]) -> object:
    def case(rank: int) -> dict[str, object]:
        from torch.distributed.fsdp import fully_shard

        model = network()
        fully_shard(model[0])
        fully_shard(model)
        found = measure(model, share(rank, sizes), layers=["0"]).to_dict()
        return {**found, "sharded": type(model[3].weight).__name__}

    return case


def features_alone(rank: int) -> dict[str, object]:
    # The first rank sees labels 0 and 1 alone: the number of classes is known to both together.
    order = LABELS.sort().indices
    rows = order[:30] if rank == 0 else order[30:]
    return measure(network()[:3], [(INPUTS[rows], LABELS[rows])], features_only=True).to_dict()


CASES = {
    "together": together,
    "an empty rank": an_empty_rank,
    "too much on one rank": too_much_on_one_rank,
    "a ValueError": failing(ValueError("a bad file"), 1),
    "a KeyError": failing(KeyError("name"), 0),
    "Ctrl-C": failing(KeyboardInterrupt(), 1),
    "a bad name": bad_classifier_on_one_rank,
    "no data": nobody_has_data,
    "alone": alone,
    "buffers": buffers_of_rank_0,
    "FSDP2": sharded((30, 30)),
    "FSDP2 of unequal shares": sharded((50, 10)),
    "FSDP2 with an empty rank": sharded((60, 0)),
    "features alone": features_alone,
    "several labels": several_labels((30, 30)),
    "several labels with an empty rank": several_labels((60, 0)),
    "targets": targets((30, 30)),
    "targets with an empty rank": targets((60, 0)),
    "targets in two passes": targets((50, 10), ncc=False),
    "attacked": attacked((30, 30)),
    "attacked with an empty rank": attacked((60, 0)),
    "every layer": every_layer((30, 30)),
    "every layer with an empty rank": every_layer((60, 0)),
}
SHARDED = torch.__version__ >= "2.7"  # FSDP2 of torch 2.6 needs a GPU
if not SHARDED:
    CASES = {name: case for name, case in CASES.items() if "FSDP2" not in name}


def main(rank: int, store: str, output: str) -> None:
    """One of the two processes."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {}
    for name, case in CASES.items():
        start = time.monotonic()
        found[name] = case(rank)
        found[name]["seconds"] = time.monotonic() - start
    dist.destroy_process_group()
    Path(output).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    command = "import sys; from tests.measurement.test_ranks import main; main(int(sys.argv[1]), *sys.argv[2:])"
    words = [sys.executable, "-W", "ignore", "-c", command]
    outputs = [folder / f"{rank}.json" for rank in range(2)]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([*words, str(rank), str(folder / "store"), str(output)], cwd=root, stderr=subprocess.PIPE)
        for rank, output in enumerate(outputs)
    ]
    errors = [process.communicate(timeout=240)[1].decode() for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [json.loads(output.read_text()) for output in outputs]


@pytest.fixture(scope="module")
def single() -> dict[str, float | None]:
    return measure(network(), [(INPUTS, LABELS)]).to_dict()


def assert_equal(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        if name != "nc1_balanced":  # which merged statistics of unequal parts do not keep
            assert found[name] == pytest.approx(value, rel=1e-4), name


WHOLE = ["together", "an empty rank", "buffers", *(name for name in CASES if "FSDP2" in name)]


@pytest.mark.parametrize("case", WHOLE)
def test_two_processes_give_the_answer_of_one(case: str, found: list[dict], single: dict) -> None:
    for rank in found:
        assert_equal(rank[case], single)


TASKS = [name for name in CASES if name.startswith(("several labels", "targets", "attacked"))]


@pytest.mark.parametrize("case", TASKS)
def test_two_processes_give_the_answer_of_one_for_other_tasks(case: str, found: list[dict]) -> None:
    kind = {"s": several_labels, "t": targets, "a": attacked}[case[0]]
    expected = kind((60, 0))(0)
    assert len(expected) > 6
    for rank in found:
        assert_equal(rank[case], expected)


@pytest.mark.parametrize("case", ["every layer", "every layer with an empty rank"])
def test_two_processes_see_the_depth_of_one(case: str, found: list[dict]) -> None:
    expected = measure(network(), [(INPUTS, LABELS)], layers="all").depth.layers["2"].to_dict()
    for rank in found:
        assert rank[case]["layers"] == ["2"]
        assert_equal(rank[case], expected)


def test_features_too_many_on_one_rank_leave_the_mismatch_out_on_all(found: list[dict], single: dict) -> None:
    for rank in found:
        assert rank["too much on one rank"]["ncc_mismatch"] is None
        assert_equal(rank["too much on one rank"], {name: single[name] for name in single if name != "ncc_mismatch"})


@pytest.mark.parametrize(
    ("case", "on", "here", "there"),
    [
        ("a ValueError", 1, "ValueError: a bad file", "ValueError: rank 1 failed with ValueError: a bad file"),
        ("a KeyError", 0, "KeyError: 'name'", "RuntimeError: rank 0 failed with KeyError: 'name'"),
        ("Ctrl-C", 1, "KeyboardInterrupt: ", "RuntimeError: rank 1 failed with KeyboardInterrupt: "),
    ],
)
def test_an_error_on_one_rank_is_raised_on_all(case: str, on: int, here: str, there: str, found: list[dict]) -> None:
    assert found[on][case]["raised"] == here
    assert found[1 - on][case]["raised"] == there
    assert all(rank[case]["seconds"] < 20 for rank in found)


def test_errors_before_the_first_batch(found: list[dict]) -> None:
    assert found[1]["a bad name"]["raised"].startswith("classifier='9' is not a layer")
    assert found[0]["a bad name"]["raised"].startswith("rank 1 failed with ValueError: classifier='9'")
    assert [rank["no data"]["raised"] for rank in found] == ["no samples were seen: the loader is empty"] * 2


def test_sync_false_measures_one_process(found: list[dict]) -> None:
    assert_equal(found[0]["alone"], measure(network(), [(INPUTS[:30], LABELS[:30])]).to_dict())


def test_buffers_are_shared_and_then_their_own_again(found: list[dict]) -> None:
    assert [rank["buffers"]["kept"] for rank in found] == [0.0, 1.0]


@pytest.mark.skipif(not SHARDED, reason="FSDP2 of torch 2.6 needs a GPU")
def test_sharded_weights_are_sharded_again(found: list[dict]) -> None:
    assert all(rank["FSDP2"]["sharded"] == "DTensor" for rank in found)


def test_the_number_of_classes_is_known_to_all_ranks_together(found: list[dict], single: dict) -> None:
    for rank in found:
        assert rank["features alone"]["nc1"] == pytest.approx(single["nc1"], rel=1e-4)
        assert rank["features alone"]["accuracy"] is None


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "GROUP_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "WORLD_SIZE": "2",
    "NODE_RANK": "0",
}


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),  # Lightning's own launcher
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, True),
        ({**TORCHRUN, "RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),  # one process per machine
        ({"RANK": "1", "LOCAL_RANK": "0"}, False),  # a launcher that nobody knows
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "7"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "7"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash", "LOCAL_RANK": "1"}, False),  # interactive
        ({"SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "1", "PMI_RANK": "0", "LOCAL_RANK": "1"}, False),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, False),
        ({"PMI_RANK": "0", "LOCAL_RANK": "3"}, True),
        ({"JSM_NAMESPACE_RANK": "4", "JSM_NAMESPACE_LOCAL_RANK": "0"}, False),
    ],
)  # fmt: skip
def test_the_first_process_is_the_one_that_the_launcher_says(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM", "TORCHELASTIC")) or name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_process() is first
