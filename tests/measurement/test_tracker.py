"""The tracker of plain loops, in memory and on disk."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import CollapseTracker, measure
from neuralcollapse.files import WriteError
from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.measurement.snapshots import read_snapshot, snapshots
from neuralcollapse.report.history import read_config

Y = torch.arange(60) % 3


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.fixture
def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(60, 4) + Y[:, None], Y)]


def test_rows_equal_measure_and_are_on_disk_at_once(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path / "run", layers=["0"])
    for epoch in (0, 1, 5):
        report = tracker.measure(model, data, epoch=epoch, train_loss=0.25, learning_rate=0.1, test_loader=data)
        row = read_metrics(tmp_path / "run")[-1]
        assert int(row["epoch"]) == epoch
        assert float(row["nc1"]) == measure(model, data).metrics.nc1 == report.metrics.nc1
        assert float(row["test_nc1"]) == float(row["nc1"])
        assert float(row["nc1/0"]) == report.layers["0"].nc1
        assert float(row["train_loss"]) == 0.25
    assert [epoch for epoch, _ in snapshots(tmp_path / "run")] == [0, 1, 5]
    kept = read_snapshot(tmp_path / "run" / "snapshots" / "epoch-0005.safetensors")
    torch.testing.assert_close(kept["weight"], model[-1].weight.detach())


def test_training_is_bit_for_bit_the_same(data: list) -> None:
    def train(tracked: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        tracker = CollapseTracker()
        for _ in range(3):
            for x, y in data:
                order = torch.randperm(len(x))
                optimizer.zero_grad()
                cross_entropy(model(x[order]), y[order]).backward()
                optimizer.step()
            if tracked:
                tracker.measure(model, data)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(train(True), train(False))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that the tracker reads."""
    now = [1000.0]
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("neuralcollapse.measurement.tracker.time.monotonic", lambda: now[0])
        yield now


def test_a_folder_is_continued(model: nn.Module, data: list, tmp_path: Path, clock: list[float]) -> None:
    first = CollapseTracker(tmp_path)
    clock[0] += 30
    first.measure(model, data, epoch=3)
    clock[0] += 500  # nothing trains
    later = CollapseTracker(tmp_path)
    clock[0] += 10
    later.measure(model, data)
    assert [row["epoch"] for row in later.history] == [3, 4]
    assert [row["epoch"] for row in CollapseTracker(tmp_path).history] == [3, 4]
    assert [row["seconds"] for row in later.history] == [30, 40]


def test_the_seconds_of_dropped_rows_are_not_counted(
    model: nn.Module, data: list, tmp_path: Path, clock: list[float]
) -> None:
    tracker = CollapseTracker(tmp_path)
    for _ in range(10):
        clock[0] += 10
        tracker.measure(model, data)
    tracker.begin(5)
    clock[0] += 10
    tracker.measure(model, data)
    assert (tracker.history[-1]["epoch"], tracker.history[-1]["seconds"]) == (6, 60)


@pytest.mark.parametrize(("layers", "pooling"), [(["0"], {"0": -1}), ("all", {"0": -1, "3": -1})])
def test_a_pooling_by_layer_holds_where_test_data_has_no_layers(
    model: nn.Module, data: list, layers: object, pooling: dict
) -> None:
    tracker = CollapseTracker(layers=layers, pooling=pooling)  # type: ignore[arg-type]
    tracker.measure(model, data, test_loader=data)
    assert tracker.history[0]["test_nc1"] == tracker.history[0]["nc1"]
    assert any(name.startswith("nc1/") for name in tracker.history[0])


@pytest.mark.parametrize("name", ["a(1)", "größe", 'a, "b"', "<b>", "="])
def test_layers_of_any_name_are_recorded(data: list, tmp_path: Path, name: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleDict({name: nn.Linear(4, 8)})
            self.fc = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.blocks[name](x).relu())

    tracker = CollapseTracker(tmp_path, layers=[f"blocks.{name}"])
    for _ in range(2):
        tracker.measure(Named(), data)
    assert CollapseTracker(tmp_path).history == tracker.history
    assert tracker.history[1][f"nc1/blocks.{name}"] is not None


def test_a_layer_whose_name_does_not_print_is_refused_before_anything_is_written(data: list, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    model.add_module("0\n1", model._modules.pop("0"))
    model.add_module("fc", model._modules.pop("1"))
    with pytest.raises(ValueError, match=r"nc1/0\\n1' is no name of a column"):
        CollapseTracker(tmp_path / "run", layers=["0\n1"]).measure(model, data)
    assert not (tmp_path / "run").exists()


def test_a_continued_folder_keeps_its_description(model: nn.Module, data: list, tmp_path: Path) -> None:
    CollapseTracker(tmp_path, config={"optimizer": "sgd", "weight_decay": 5e-4}).measure(model, data)
    later = CollapseTracker(tmp_path)
    later.describe(seed=1, optimizer="adam")
    later.measure(model, data)
    assert read_config(tmp_path) == {"optimizer": "sgd", "weight_decay": 5e-4, "seed": 1}
    CollapseTracker(tmp_path, config={"weight_decay": 0.1}).measure(model, data)
    assert read_config(tmp_path) == {"optimizer": "sgd", "weight_decay": 0.1, "seed": 1}


def test_another_run_s_folder_is_refused_before_a_row_is_dropped(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path, config={"optimizer": "sgd", "weight_decay": 0.5, "epochs": 3, "mine": [1]})
    for _ in range(3):
        tracker.measure(model, data)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    message = "holds another run: weight_decay was 0.5 and is now 0.25. Choose another folder"
    with pytest.raises(ValueError, match=message):
        CollapseTracker(tmp_path).begin(1, {"optimizer": "sgd", "weight_decay": 0.25, "epochs": 9})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    same = CollapseTracker(tmp_path)
    same.begin(3, {"optimizer": "sgd", "weight_decay": torch.tensor(0.5), "epochs": 9, "mine": (1,), "seed": 2})
    same.measure(model, data)
    expected = {"optimizer": "sgd", "weight_decay": 0.5, "epochs": 9, "mine": [1], "seed": 2}
    assert read_config(tmp_path) == expected


@pytest.mark.parametrize(("name", "other"), [("model", "cnn"), ("dataset", "cifar10")])
def test_rows_of_another_model_or_data_set_are_not_continued(
    model: nn.Module, data: list, tmp_path: Path, name: str, other: str
) -> None:
    before = {"model": "mlp", "dataset": "mnist"}
    CollapseTracker(tmp_path, config=before).measure(model, data)
    with pytest.raises(ValueError, match=f"holds another run: {name} was .* and is now '{other}'. Choose another fold"):
        CollapseTracker(tmp_path, config={name: other, "weight_decay": 0.1})
    assert read_config(tmp_path) == before


def test_a_folder_that_stays_empty_is_removed_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for folder in ("runs/new", "mine"):
        tracker = CollapseTracker(tmp_path / folder)
        with pytest.raises(KeyError), tracker.tidied():
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_training_that_starts_anew_measures_epoch_0_again(model: nn.Module, data: list, tmp_path: Path) -> None:
    CollapseTracker(tmp_path).measure(model, data, epoch=0)
    again = CollapseTracker(tmp_path)
    again.begin()
    again.measure(model, data, epoch=0)
    resumed = CollapseTracker(tmp_path)
    resumed.measure(model, data)
    resumed.begin(0, resumed=True)
    assert [row["epoch"] for row in resumed.history] == [0]


def test_an_epoch_is_recorded_once_and_nothing_is_lost(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path)
    tracker.measure(model, data, epoch=2)
    before = (tmp_path / "metrics.csv").read_bytes()
    for epoch in (2, 1):
        with pytest.raises(ValueError, match=rf"epoch={epoch} was recorded already.*rewind\({epoch - 1}\)"):
            tracker.measure(model, data, epoch=epoch)
    with pytest.raises(ValueError, match="holds a run already, up to epoch 2"):
        CollapseTracker(tmp_path).begin(0)
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_rewind_drops_later_rows_and_snapshots(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path)
    for epoch in (1, 2, 3):
        tracker.measure(model, data, epoch=epoch)
    tracker.begin(2)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2"]
    assert [epoch for epoch, _ in snapshots(tmp_path)] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv", "snapshots"}  # of one epoch nothing is kept
    tracker.measure(model, data, epoch=3)


def test_more_than_one_dropped_row_is_set_aside(
    model: nn.Module, data: list, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = CollapseTracker(tmp_path)
    for epoch in (1, 2, 3):
        tracker.measure(model, data, epoch=epoch)
    before = (tmp_path / "metrics.csv").read_bytes()
    for _ in range(2):
        tracker.begin(1)
        assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1"]
        assert [epoch for epoch, _ in snapshots(tmp_path)] == [1]
        for epoch in (2, 3):
            tracker.measure(model, data, epoch=epoch)
    kept = sorted(tmp_path.glob("metrics.csv.*"), key=lambda path: path.stat().st_mtime_ns)
    assert len(kept) == 2
    assert kept[0].read_bytes() == before
    for place in tmp_path.glob("snapshots.*"):
        assert sorted(path.name for path in place.iterdir()) == [f"epoch-000{epoch}.safetensors" for epoch in (2, 3)]
    assert len(list(tmp_path.glob("snapshots.*"))) == 2
    assert str(kept[0]) in caplog.text


@pytest.mark.parametrize("epoch", [-1, 1.5, True, "2"])
def test_epochs_that_are_none(model: nn.Module, data: list, epoch: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        CollapseTracker().measure(model, data, epoch=epoch)  # type: ignore[arg-type]


WHOLE = {
    "Python": int, "NumPy": np.int64, "narrow": np.uint8, "array": np.array, "tensor": torch.tensor, "float": float,
    "NumPy float": np.float64, "float tensor": lambda number: torch.tensor(float(number)),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_of_any_kind_are_epochs_and_steps(
    model: nn.Module, data: list, tmp_path: Path, kind: str
) -> None:
    tracker, number = CollapseTracker(tmp_path), WHOLE[kind]
    tracker.measure(model, data, epoch=number(5), step=number(120))
    tracker.record(tracker.report, epoch=number(6), step=number(240))
    assert [(row["epoch"], row["step"]) for row in tracker.history] == [(5, 120), (6, 240)]
    assert {type(row[name]) for row in tracker.history for name in ("epoch", "step")} == {int}
    again = CollapseTracker(tmp_path)
    assert again.history == tracker.history
    again.measure(model, data, step=number(255))
    assert again.history[-1]["epoch"] == 7


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("value", [
    True, np.True_, torch.tensor(True), 1.5, np.float32(0.5), -1, np.int64(-1), "3", b"3", [3], torch.arange(3), np.nan,
    float("inf"), 1j, object(),
])  # fmt: skip
@pytest.mark.parametrize("name", ["epoch", "step"])
def test_what_is_no_whole_number_is_refused_before_anything_is_measured(
    model: nn.Module, tmp_path: Path, name: str, value: object
) -> None:
    tracker = CollapseTracker(tmp_path)
    with pytest.raises(ValueError, match=f"^{name}=.* must be a whole number, 0 or more"):
        tracker.measure(model, [], **{name: value})
    assert tracker.history == []
    CollapseTracker(tmp_path)


def test_a_large_step_keeps_its_digits(model: nn.Module, data: list, tmp_path: Path) -> None:
    CollapseTracker(tmp_path).measure(model, data, step=2**60 + 1)
    assert CollapseTracker(tmp_path).history[0]["step"] == 2**60 + 1


def test_a_folder_whose_steps_were_written_as_fractions_opens(model: nn.Module, data: list, tmp_path: Path) -> None:
    CollapseTracker(tmp_path).measure(model, data, step=123)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text().replace(",123,", ",123.0,"))
    assert "123.0" in path.read_text()
    assert CollapseTracker(tmp_path).history[0]["step"] == 123


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seconds", 1.0, "seconds= is a column that the tracker fills itself"),
        ("nc1", 3.0, "nc1= is a column that the tracker fills itself: choose another name, such as my_nc1"),
        ("ncc_mismatch", 0.0, "ncc_mismatch= is a column that the tracker fills itself"),
        ("train_accuracy", 0.5, "train_accuracy= is a column that the tracker fills itself"),
        ("test_nc2", 0.5, "test_nc2= is a column that the tracker fills itself"),
        ("note", "text", "note='text' must be a number, or None"),
    ],
)
def test_columns_that_are_none(model: nn.Module, data: list, column: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseTracker().measure(model, data, test_loader=data, **{column: value})


def test_columns_of_test_data_are_free_where_none_is_measured(model: nn.Module, data: list) -> None:
    tracker = CollapseTracker()
    tracker.measure(model, data, test_nc1=0.5, test_accuracy=0.9, accuracy=0.8)
    assert [tracker.history[0][name] for name in ("test_nc1", "test_accuracy", "accuracy")] == [0.5, 0.9, 0.8]


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_loss_with_its_graph_is_recorded_without_a_warning(model: nn.Module, data: list) -> None:
    tracker = CollapseTracker()
    tracker.measure(model, data, train_loss=cross_entropy(model(data[0][0]), data[0][1]))
    assert isinstance(tracker.history[0]["train_loss"], float)


DESCRIPTIONS = [
    ({"optimzer": "sgd"}, ValueError, r"optimzer= is unknown: did you mean optimizer=\?"),
    ({"epoch": 3}, ValueError, r"epoch= is unknown: did you mean epochs=\?"),
    ({"weight_decay": "abc"}, TypeError, "weight_decay='abc' must be a number"),
    ({"learning_rate": torch.tensor([0.1, 0.2])}, TypeError, "learning_rate=tensor.* must be a number"),
    ({"seed": np.array([1, 2])}, TypeError, "seed=array.* must be a number"),
    ({"batch_size": True}, TypeError, "batch_size=True must be a number"),
    ({"optimizer": 3}, TypeError, "optimizer=3 must be a string"),
    ({"class_names": "cat"}, TypeError, "class_names='cat' must be a list of names"),
    ({"mine": object}, TypeError, "mine=.* is no plain value: give a number or a string"),
]


@pytest.mark.parametrize(("config", "error", "message"), DESCRIPTIONS)
def test_descriptions_that_are_none(config: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CollapseTracker(config=config)
    with pytest.raises(error, match=message):
        CollapseTracker().describe(**config)


def test_descriptions_become_plain_values(model: nn.Module, data: list, tmp_path: Path) -> None:
    config = {
        "learning_rate": torch.tensor(0.5),
        "weight_decay": np.float64(0.25),
        "momentum": torch.tensor([0.5]),
        "seed": np.array([[7]]),
        "epochs": 3,
        "epoch": 2,
        "mine": [1],
    }
    CollapseTracker(tmp_path / "run", config=config).measure(model, data)
    assert read_config(tmp_path / "run") == config | {
        "learning_rate": 0.5, "weight_decay": 0.25, "momentum": 0.5, "seed": 7,
    }  # fmt: skip


def test_a_first_measurement_that_fails_leaves_no_empty_folder(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path / "runs" / "mine")
    for call in (
        lambda: tracker.measure(model, [(data[0][0][:, :2], Y)]),
        lambda: tracker.look(model, []),
        lambda: tracker.measure(model, data, epoch=-1),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            call()
        assert list(tmp_path.iterdir()) == []
    tracker.measure(model, data)
    assert len(read_metrics(tmp_path / "runs" / "mine")) == 1
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ValueError, match="the loader is empty"):
        CollapseTracker(tmp_path / "theirs").measure(model, [])
    assert (tmp_path / "theirs").is_dir()


@pytest.mark.usefixtures("unchecked_shapes")
def test_numbers_of_other_libraries_become_pythons_own(model: nn.Module, data: list) -> None:
    tracker = CollapseTracker()
    given = {"a": np.float32(0.5), "b": torch.tensor(0.25), "c": np.int64(3), "d": 2, "e": None, "f": True}
    tracker.measure(model, data, **given)
    row = tracker.history[-1]
    kept = {name: row[name] for name in given}
    assert kept == {"a": 0.5, "b": 0.25, "c": 3.0, "d": 2, "e": None, "f": 1.0}
    assert {type(value) for value in kept.values()} == {float, int, type(None)}


def test_column_names_are_checked_before_anything_is_written(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path)
    tracker.measure(model, data)
    before = (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match="column"):
        tracker.measure(model, data, **{"<script>": 1.0})
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert len(tracker.history) == 1
    tracker.measure(model, data)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"could not make the folder .*file/run: .*; nothing"):
        CollapseTracker(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="folder=''"):
        CollapseTracker("")


def test_frame_plot_and_report_page(model: nn.Module, data: list, tmp_path: Path) -> None:
    tracker = CollapseTracker(tmp_path, config={"model": "mlp", "note": "<script>alert(1)</script>"})
    with pytest.raises(ValueError, match="nothing to plot"):
        tracker.plot()
    for epoch in range(3):
        tracker.measure(model, data, epoch=epoch)
    frame = tracker.to_frame()
    assert list(frame["epoch"]) == [0, 1, 2]
    assert {trace.name for trace in tracker.plot().data} >= {"NC1", "NC2", "NC3"}
    command = [sys.executable, "-m", "neuralcollapse", "report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "NC1" in page


def test_the_first_call_of_a_plain_loop_loads_no_lightning(tmp_path: Path) -> None:
    script = f"""
import sys, torch
from neuralcollapse import CollapseTracker
data = [(torch.randn(8, 2), torch.arange(8) % 2)]
CollapseTracker({str(tmp_path)!r}).measure(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)), data)
print([name for name in ("lightning", "plotly", "transformers", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
