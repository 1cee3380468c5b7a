"""A network in the unconstrained model: its value, a bound that holds, and how far it is from the optimum."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralcollapse import CollapseTracker
from neuralcollapse.cli import main
from neuralcollapse.paper.archive import archive
from neuralcollapse.report import write_report
from neuralcollapse.report.history import read_history
from neuralcollapse.train import TrainConfig, load_run, train
from neuralcollapse.train.decays import decays_of
from neuralcollapse.train.optimality import certify_run, certify_snapshot
from neuralcollapse.train.snapshot import Snapshot, last_snapshot
from tests.train.test_decays import best

REDUCED = Path(__file__).parents[2] / "results" / "reduced"


def snapshot(weight: np.ndarray, means: np.ndarray, bias: np.ndarray | None = None) -> Snapshot:
    """Class means that lie away from the origin."""
    bias = np.zeros(len(weight)) if bias is None else bias
    return Snapshot.of(7, weight, bias, means + 3.0, means.mean(0) + 3.0)


def objective(last: Snapshot, lambda_w: float, n_lambda_h: float, lambda_b: float) -> float:
    """Equation (4) for class means, written down once more."""
    logits = torch.from_numpy(last.weight @ last.means.T + last.bias[:, None]).T
    loss = float(torch.nn.functional.cross_entropy(logits, torch.arange(len(logits))))
    penalties = lambda_w * (last.weight**2).sum() + n_lambda_h * (last.means**2).sum() + lambda_b * (last.bias**2).sum()
    return loss + float(penalties) / 2


def test_logits_stay_when_features_are_centred() -> None:
    rng = np.random.default_rng(0)
    weight, means, bias = rng.standard_normal((4, 6)), rng.standard_normal((4, 6)), rng.standard_normal(4)
    last = Snapshot.of(0, weight, bias, means, means.mean(0))
    np.testing.assert_allclose(last.weight @ last.means.T + last.bias[:, None], weight @ means.T + bias[:, None])
    np.testing.assert_allclose(last.means.sum(0), 0, atol=1e-12)


def test_the_optimum_is_certified_and_what_is_off_is_not() -> None:
    weight, means = best(5e-4, 3e-6)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((10, 10)))[0]
    config = TrainConfig(dataset="mnist", weight_decay=5e-4)
    found = certify_snapshot(config, Snapshot.of(3, weight @ turn, np.zeros(10), means @ turn, np.zeros(10)))
    assert found.features == "class means, epoch 3, classes counted as equal"
    assert 0 <= found.gap <= 1e-6 * found.value
    assert max(value for value in found.distances.values() if value is not None) < 1e-6
    assert found.measured.weight == pytest.approx(found.predicted.weight, rel=1e-3)
    off = certify_snapshot(config, Snapshot.of(3, 2 * weight @ turn, np.zeros(10), 2 * means @ turn, np.zeros(10)))
    assert off.gap > 1e-2 * off.value
    assert off.lower_bound == pytest.approx(found.lower_bound, rel=1e-6)


@pytest.mark.parametrize(("k", "d"), [(2, 1), (4, 3), (4, 9), (6, 3)])
@pytest.mark.parametrize("options", [{}, {"feature_decay": 1e-3}, {"head": "etf"}])
def test_value_is_equation_4_and_the_bound_never_exceeds_it(k: int, d: int, options: dict[str, object]) -> None:
    rng = np.random.default_rng(k * d)
    config = TrainConfig(weight_decay=3e-3, **options)  # type: ignore[arg-type]
    for scale in (0.3, 3.0):
        weight = scale * rng.standard_normal((k, d))
        last = snapshot(weight, weight + 0.3 * rng.standard_normal((k, d)), 0.1 * rng.standard_normal(k))
        found, decays = certify_snapshot(config, last), decays_of(config, last)
        assert found.value == pytest.approx(objective(last, decays.weight, decays.features, 3e-3), rel=1e-9)
        assert found.lower_bound <= found.value
        assert found.measured.features == pytest.approx(np.linalg.norm(last.means))
        if "feature_decay" in options:
            assert (decays.weight, decays.features, decays.fitted) == (3e-3, 1e-3 / k, "nothing")
        elif "head" not in options:  # the balance of every critical point holds with the fitted λH
            assert decays.weight * (weight**2).sum() == pytest.approx(decays.features * (last.means**2).sum())


def test_no_answer_is_an_error() -> None:
    last = snapshot(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="weight_decay=0: without decay"):
        certify_snapshot(TrainConfig(weight_decay=0.0), last)
    with pytest.raises(ValueError, match="class means coincide"):
        certify_snapshot(TrainConfig(weight_decay=0.1), snapshot(np.eye(3), np.zeros((3, 3))))
    with pytest.raises(ValueError, match="hardly trained"):
        certify_snapshot(TrainConfig(weight_decay=0.1, head="etf"), snapshot(np.eye(3), -np.eye(3)))


def test_a_run_with_its_checkpoint_uses_every_sample(tmp_path: Path) -> None:
    settings = {"dataset": "digits", "width": 16, "epochs": 2, "samples_per_class": 20, "test_samples_per_class": 5}
    folder = train(TrainConfig(output=str(tmp_path / "run"), **settings), progress=False)  # type: ignore[arg-type]
    found = certify_run(folder)
    assert found.features == "the features of all 200 samples, last checkpoint"
    run = load_run(folder)
    network = run.network.eval()
    inputs: list[torch.Tensor] = []
    (head,) = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1:]
    head.register_forward_pre_hook(lambda module, given: inputs.append(given[0].double()))
    with torch.no_grad():
        logits = network(run.data.train.pixels).double()
    loss = float(torch.nn.functional.cross_entropy(logits, run.data.train.labels))
    weight, bias = head.weight.detach().double(), head.bias.detach().double()
    centre = torch.stack([inputs[0][run.data.train.labels == label].mean(0) for label in range(10)]).mean(0)
    features = inputs[0] - centre
    decays = found.decays
    penalties = decays.weight * (weight**2).sum() + decays.features / 20 * (features**2).sum()
    penalties += decays.bias * ((bias + weight @ centre) ** 2).sum()
    assert found.value == pytest.approx(loss + float(penalties) / 2, rel=1e-5)
    assert found.measured.loss == pytest.approx(loss, rel=1e-5)
    assert 0 < found.lower_bound <= found.value
    by_means = certify_run(folder, class_means=True)
    assert by_means.features == "class means, epoch 2, classes counted as equal"
    assert by_means.measured.weight == pytest.approx(found.measured.weight, rel=1e-5)
    assert by_means.value <= found.value  # averaging within classes never raises f
    assert by_means.predicted.weight == pytest.approx(found.predicted.weight, rel=1e-4)


def test_committed_folders_have_snapshots_only() -> None:
    folder = REDUCED / "cifar10-resnet18-sgd-random-w8"
    found = certify_run(folder)
    assert found.features == "class means, epoch 200, classes counted as equal"
    assert found.lower_bound <= found.value
    assert found.measured.weight == pytest.approx(found.predicted.weight, rel=0.12)


def test_the_command_shows_the_numbers_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = REDUCED / "cifar10-resnet18-sgd-random-w8"
    main(["certify", str(folder), "--json", str(tmp_path / "numbers.json")])
    said = capsys.readouterr().out
    found = certify_run(folder)
    assert "class means, epoch 200" in said
    assert f"{found.lower_bound:.6g}" in said
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers == found.to_dict()
    assert numbers["gap"] == numbers["value"] - numbers["lower_bound"]


def test_the_command_without_data_says_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(REDUCED / "mnist-resnet18-sgd", tmp_path / "run")
    (folder / "checkpoints").mkdir()
    torch.save({}, folder / "checkpoints" / "last.ckpt")
    monkeypatch.setattr("urllib.request.urlopen", _offline)
    with pytest.raises(SystemExit):
        main(["certify", str(folder), "--data-root", str(tmp_path / "nowhere")])
    assert "--class-means judges the run without its data" in capsys.readouterr().err


def _offline(*given: object, **options: object) -> None:
    raise OSError("no network")


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration at .*is its folder a run"):
        certify_run(tmp_path)
    TrainConfig().resolved().save(tmp_path / "config.yaml")
    with pytest.raises(FileNotFoundError, match="has no snapshots"):
        certify_run(tmp_path)


# ---- runs that a tracker or callback recorded ---------------------------------------------------------


def recorded(folder: Path, **described: object) -> Path:
    """A folder as a tracker in a loop of one's own leaves it."""
    from neuralcollapse import CollapseTracker

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    labels = torch.arange(30) % 3
    tracker = CollapseTracker(folder)
    tracker.describe(**described)
    tracker.measure(model, [(torch.randn(30, 4) + labels[:, None], labels)], epoch=1)
    return folder


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "sgd"])
def test_a_tracker_s_run_is_certified_with_the_decays_it_describes(optimizer: str, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "mine", optimizer=optimizer, weight_decay=5e-3, model="my net", epochs=3)
    last = last_snapshot(folder)
    found = certify_run(folder)
    assert found.features == "class means, epoch 1, classes counted as equal"
    share = float((last.weight**2).sum() / (last.means**2).sum())
    assert found.value == pytest.approx(objective(last, 5e-3, 5e-3 * share, 5e-3), rel=1e-9)
    assert found.lower_bound <= found.value


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"optimizer": "AdamW", "weight_decay": 5e-3}, "optimizer: 'AdamW'.* penalty in the loss: sgd, adam"),
        ({"weight_decay": 5e-3}, "optimizer: None in config.yaml"),
        ({"optimizer": "sgd"}, "config.yaml has no weight_decay"),
    ],
)
def test_a_tracker_s_run_without_a_prediction_says_why(
    described: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        certify_run(recorded(tmp_path / "mine", model="my net", **described))


@pytest.mark.filterwarnings("ignore::neuralcollapse.CollapseWarning")
def test_a_class_without_samples_is_no_class_of_the_theory(tmp_path: Path) -> None:
    labels = torch.tensor([0, 1, 3, 4]).repeat(10)
    features = torch.eye(6)[labels] + 0.1 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    config = {"optimizer": "sgd", "weight_decay": 5e-3}
    tracker = CollapseTracker(tmp_path, allow_missing=True, config=config)
    tracker.measure(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(6, 5)), [(features, labels)], epoch=1)
    with pytest.raises(ValueError, match="class 2 had no samples when the run was measured"):
        certify_run(tmp_path)
    run = read_history(tmp_path)
    assert np.isnan(run.frames[0].means[2]).all()
    assert run.chosen == (0, 1, 3, 4)
    assert "Measured against the theory" not in write_report(tmp_path, tmp_path / "page.html").read_text()


def test_a_callback_s_run_is_none_of_train_s_whatever_it_describes_and_holds(tmp_path: Path) -> None:
    described = {"dataset": "mine", "seed": 3, "model": "my net", "optimizer": "SGD", "epochs": 9, "weight_decay": 5e-3}
    folder = recorded(tmp_path / "mine", **described)
    expected = certify_run(folder).to_dict()
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": {}}, folder / "checkpoints" / "last.ckpt")  # of another program
    assert certify_run(folder).to_dict() == expected
    assert certify_run(archive(folder, tmp_path / "kept")).to_dict() == expected
    with pytest.raises(ValueError, match="a training loop of your own"):
        load_run(folder)


def test_a_tracker_s_run_holds_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = recorded(tmp_path / "mine", optimizer="SGD", weight_decay=5e-3)
    for command in (["measure", "--run", str(folder)], ["measure", "--run", str(folder), "--layers", "all"]):
        with pytest.raises(SystemExit):
            main(command)
        assert "a training loop of your own" in capsys.readouterr().err
    main(["archive", str(folder), "--into", str(tmp_path / "kept")])
    assert certify_run(tmp_path / "kept" / "mine").to_dict() == certify_run(folder).to_dict()
