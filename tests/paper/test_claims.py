"""Claims are judged by their rules, on finished runs only."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from neuralcollapse.measurement.run_folder import write_metrics
from neuralcollapse.paper.claims import judge
from neuralcollapse.paper.cuts import cut, named
from neuralcollapse.paper.experiments import Experiment
from neuralcollapse.paper.judgement import Claim, Finding, Judgement
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.reproduce import plan
from neuralcollapse.train.config import TrainConfig
from tests.paper.runs import in_folder, written

CONFIG = TrainConfig(epochs=10)
COLLAPSED = {
    "nc1": 0.9,
    "nc2": 0.4,
    "nc3": 0.4,
    "nc4": 0.4,
    "nc4_relative": 0.4,
    "train_accuracy": 1.0,
    "test_accuracy": 0.9,
}


def verdicts(figure: str, runs: list, **options: bool) -> list[str]:
    return [one.verdict for one in judge(figure, runs, **options)]


def test_all_some_none_and_not_yet(tmp_path: Path) -> None:
    good = written(tmp_path, Experiment("a"), CONFIG, **COLLAPSED)
    poor = written(tmp_path, Experiment("b"), CONFIG, **COLLAPSED | {"nc1": 1.1, "nc2": 0.6})
    half = written(tmp_path, Experiment("c"), CONFIG, epoch=7, **COLLAPSED)
    assert verdicts("figure3", [good]) == ["reproduced"] * 5
    assert verdicts("figure3", [good, poor]) == ["in part: 1 of 2"] * 2 + ["reproduced"] * 3
    assert verdicts("figure3", [poor])[:2] == ["not reproduced"] * 2
    assert verdicts("figure3", [good, half]) == ["open: 1 of 1 agree so far, 1 run missing"] * 5
    assert verdicts("figure3", [half]) == ["open: 1 run missing"] * 5
    assert judge("figure3", [good, half])[0].missing == ("c-resnet18-sgd",)
    assert verdicts("figure3", [good], small=True) == ["not judged"] * 5
    assert judge("figure3", [good, half])[0].findings[0].measured == "10 → 0.9 (fell 11-fold)"


@pytest.mark.parametrize(
    ("first_tenth", "later", "last", "falls"),
    [
        ([8.0, 10.0], [20.0], 1.0, True),  # the largest of the first tenth counts, and nothing after it
        ([8.0, 10.0], [20.0], 1.01, False),
        ([10.0, 0.5], [0.01], 0.9, True),
        ([], [10.0], 0.1, None),  # nothing was measured there
    ],
)
def test_the_first_tenth_of_training_is_the_measure(
    tmp_path: Path, first_tenth: list[float], later: list[float], last: float, falls: bool | None
) -> None:
    run = written(tmp_path, Experiment("a"), TrainConfig(epochs=40), epoch=40, **COLLAPSED)
    values = [(0, 1e4), *zip((2, 4), first_tenth, strict=False), *zip((5,), later, strict=True), (40, last)]
    rows = [{"epoch": str(epoch), "seconds": "1", "nc1": str(value)} for epoch, value in values]
    write_metrics(run.folder, rows)
    (finding,) = judge("figure3", [Outcome(run.experiment, run.config)])[0].findings
    assert finding.agrees is falls
    assert judge("figure3", [Outcome(run.experiment, run.config)])[4].findings[0].measured == "not recorded"


def test_a_longer_run_than_planned_is_judged_by_its_own_epochs(tmp_path: Path) -> None:
    """120 epochs of L-BFGS are planned, the folder's run has 200: its first tenth ends at 20, not at 12."""

    def planned() -> Outcome:
        runs = plan(["figure3"], "narrow", output=tmp_path)["figure3"]
        return next(run for run in runs if run.experiment.name == "mnist-resnet18-lbfgs-seed0")

    run = planned()
    assert run.epochs == 120
    longer = in_folder(dataclasses.replace(run, config=dataclasses.replace(run.config, epochs=200)), **COLLAPSED)
    rows = [{"epoch": str(epoch), "seconds": "1", "nc1": str(nc1)} for epoch, nc1 in ((0, 9), (10, 1), (20, 8))]
    for end in (150, 200):
        write_metrics(longer.folder, [*rows, {"epoch": str(end), "seconds": "1", "nc1": "0.5"}])
        again = planned()
        assert again.epochs == 200
        assert again.finished is (end == 200)  # half done it goes on to its own end
    assert cut(again) == "width 16 of 64"
    assert "--epochs" not in again.command
    assert judge("figure3", [again])[0].findings[0].measured == "8 → 0.5 (fell 16-fold)"
    dataclasses.replace(run.config, epochs=60).save(run.folder / "config.yaml")
    assert planned().epochs == 120  # a shorter one is continued


def test_a_measure_falls_only_with_every_seed(tmp_path: Path) -> None:
    seeds = [
        written(tmp_path, Experiment("a", seed=seed), CONFIG, **COLLAPSED | {"nc1": nc1})
        for seed, nc1 in ((0, 0.9), (1, 0.5), (2, 1.1))
    ]
    nc1, nc2, *_ = judge("figure3", seeds)
    assert nc1.findings == [
        Finding(
            "a-resnet18-sgd (10 of 200 epochs)",
            "seed 0: 10 → 0.9 (fell 11-fold); seed 1: 10 → 0.5 (fell 20-fold); seed 2: 10 → 1.1 (fell 9.1-fold)",
            False,
        )
    ]
    assert (nc1.verdict, nc2.verdict) == ("not reproduced", "reproduced")


def test_correlations_over_widths(tmp_path: Path) -> None:
    """By hand: NC1 ranks 4 3 1 2 against widths 1 2 3 4 give rho = 1 - 6 (9 + 1 + 4 + 4)/60 = -0.8."""
    runs = [
        written(tmp_path, Experiment("a", width=width), CONFIG, nc1=nc1, nc2=nc1, nc3=1 / nc1, train_accuracy=accuracy)
        for width, nc1, accuracy in ((10, 4.0, 0.1), (20, 3.0, 0.2), (40, 1.0, 0.3), (80, 2.0, 0.4))
    ]
    judged = judge("figure5", runs)
    nc1, _, nc3, error, with_nc1, _, with_nc3 = judged
    assert nc1.findings[0].measured == "ρ = -0.80 over (10, 4), (20, 3), (40, 1), (80, 2)"
    assert (nc1.verdict, nc3.verdict) == ("reproduced", "not reproduced")
    assert (error.verdict, with_nc1.verdict, with_nc3.verdict) == ("reproduced", "reproduced", "not reproduced")
    alike = [written(tmp_path / "alike", Experiment("a", width=width), CONFIG, **COLLAPSED) for width in (10, 20, 40)]
    assert judge("figure5", alike)[0].findings[0].measured == "no correlation: all alike"
    assert judge("figure5", alike[:2])[0].verdict == "open: the numbers cannot decide"


def test_test_accuracy_beside_the_reference(tmp_path: Path) -> None:
    accuracies = {"fixed": 0.95, "learned": 0.955, "small": 0.944}  # the reference need not come first
    runs = [
        written(tmp_path, Experiment("a", head=head), CONFIG, **COLLAPSED | {"test_accuracy": accuracy})
        for head, accuracy in accuracies.items()
    ]
    findings = judge("figure7", runs)[-1].findings
    assert [(one.subject, one.agrees) for one in findings] == [
        ("a-resnet18 fixed (10 of 200 epochs)", True),
        ("a-resnet18 small (10 of 200 epochs)", False),
    ]
    assert judge("figure7", runs[:1])[-1].findings == []


@pytest.mark.parametrize("poor", ["reference", "other", "one seed"])
def test_a_comparison_with_a_run_that_did_not_learn_decides_nothing(tmp_path: Path, poor: str) -> None:
    def run(folder: str, learned: bool, **fields: object) -> Outcome:
        low = {} if learned else {"train_accuracy": 0.9407, "test_accuracy": 0.1}
        return written(tmp_path / folder, Experiment("a", **fields), CONFIG, **COLLAPSED | low)  # type: ignore[arg-type]

    for figure, place, name in (("figure7", -1, "fixed"), ("figure4", 1, "lbfgs")):
        other = {"head": "fixed"} if figure == "figure7" else {"optimizer": "lbfgs"}
        runs = [run(figure, poor != "reference", seed=0), run(figure, poor == "reference", seed=0, **other)]
        if poor == "one seed":  # the median has learned
            runs[1:] = [run(f"{figure}-{seed}", seed != 2, seed=seed, **other) for seed in (1, 2, 3)]
        (finding,) = judge(figure, runs)[place].findings
        assert finding.agrees is None
        which = "a-resnet18-sgd-seed0" if poor == "reference" else f"-seed{2 if poor == 'one seed' else 0}"
        assert finding.measured.endswith(f"{which} 94.07%")
        assert "; learned less than 95% of the training data: a-resnet18-" in finding.measured
        assert poor == "reference" or name in finding.measured


def test_runs_on_fewer_images_are_not_compared(tmp_path: Path) -> None:
    def run(optimizer: str, accuracy: float, head: str = "learned", **counts: int) -> Outcome:
        config = dataclasses.replace(CONFIG, **counts).resolved()
        experiment = Experiment("a", optimizer=optimizer, head=head)  # type: ignore[arg-type]
        return written(tmp_path / f"{accuracy} {counts}", experiment, config, **COLLAPSED | {"test_accuracy": accuracy})

    every = [run("sgd", 0.9), run("adam", 0.904), run("lbfgs", 0.5, samples_per_class=500)]
    (finding,) = judge("figure4", every)[1].findings
    assert finding.measured == "sgd 90.00%, adam 90.40%, lbfgs 50.00% (fewer images: not compared)"
    assert finding.agrees is False
    assert judge("figure4", [every[0], every[2]])[1].findings[0].agrees is None
    part = [run(name, accuracy, samples_per_class=500) for name, accuracy in (("sgd", 0.7), ("lbfgs", 0.6))]
    assert judge("figure4", part)[1].findings[0].agrees is True
    tested = [every[0], run("lbfgs", 0.5, test_samples_per_class=100)]
    assert judge("figure4", tested)[1].findings[0].agrees is None

    heads = [every[0], run("sgd", 0.5, head="fixed", samples_per_class=500), run("sgd", 0.9, head="small")]
    assert [(one.measured, one.agrees) for one in judge("figure7", heads)[-1].findings] == [
        ("50.00% against 90.00%; not the same images", None),
        ("90.00% against 90.00%", True),
    ]


def test_what_is_undecided_never_counts_as_reproduced() -> None:
    def verdict(*agrees: bool | None, missing: int = 0) -> str:
        findings = [Finding("a", "1", one) for one in agrees]
        return Judgement(Claim("a", "b", lambda runs: []), findings, ("run",) * missing, small=False).verdict

    assert verdict(True, True) == "reproduced"
    assert verdict(True, None, True) == "open: 2 of 2 agree, 1 undecided"
    assert verdict(False, None) == "not reproduced: 0 of 1, 1 undecided"
    assert verdict(False, None, missing=1) == "open: 0 of 1 agree so far, 1 undecided, 1 run missing"
    assert verdict(False, True, None) == "in part: 1 of 2, 1 undecided"
    assert verdict(True, None, missing=2) == "open: 1 of 1 agree so far, 1 undecided, 2 runs missing"
    assert verdict(None) == "open: the numbers cannot decide"


@pytest.mark.parametrize(
    ("lasts", "agrees"), [((1.1, None), False), ((0.9, None), None), ((0.9, 1.1), False), ((0.9, 0.8), True)]
)
def test_one_seed_that_disagrees_decides(tmp_path: Path, lasts: tuple[float | None, ...], agrees: bool | None) -> None:
    runs = [
        written(tmp_path, Experiment("a", seed=seed), CONFIG, **COLLAPSED | {"nc2": "" if last is None else last / 2})
        for seed, last in enumerate(lasts)
    ]
    assert judge("figure3", runs)[1].findings[0].agrees is agrees


@pytest.mark.parametrize(("row", "saved"), [(0, 2_048_000 / 25_557_032), (3, 2_314_100 / 11_181_642)])
def test_savings_are_counted(row: int, saved: float) -> None:
    judged = judge("savings", [])
    assert judged[row].verdict == "reproduced"
    assert judged[row].findings[0].measured.startswith(f"{saved:.2%}")
    assert judged[2].verdict == "not reproduced"  # ShuffleNet: no variant gives the paper's figure
    assert math.isclose(sum(one.verdict == "reproduced" for one in judged), 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mnist-resnet18-sgd-seed0", "width 16 of 64"),
        ("cifar10-resnet18-lbfgs-seed0", "width 32 of 64, 200 images per class, 200 test images per class"),
        (
            "cifar10-resnet50-sgd-fixed-seed0",
            "width 16 of 64, 500 images per class, batches of 32, bf16-mixed, 500 test images per class",
        ),
        ("cifar10-mlp-sgd-random-w40-seed0", ""),
    ],
)
def test_each_number_says_what_its_run_leaves_out(name: str, said: str) -> None:
    planned = plan(["figure3", "figure5", "figure7"], "narrow", output=Path("out"))
    runs = {run.experiment.name: run for group in planned.values() for run in group}
    assert cut(runs[name]) == said
    assert named(runs[name]) == (f"{runs[name].experiment.variant} ({said})" if said else "cifar10-mlp-sgd-random-w40")
    assert {cut(run) for group in plan(["figure7"], "full", output=Path("out")).values() for run in group} == {""}
