"""The report in a real browser, and what it says."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from neuralcollapse import CollapseTracker, simplex_etf
from neuralcollapse.figures.cosines import cosine_panel
from neuralcollapse.figures.curves import curves
from neuralcollapse.figures.simplex import frame_of, points_of
from neuralcollapse.measurement.run_folder import read_metrics, write_metrics
from neuralcollapse.report import RunSkipped, write_figures, write_report
from neuralcollapse.report.dynamics import write_dynamics
from neuralcollapse.report.geometry import MAPS
from neuralcollapse.report.headline import comparison, headline, lead, verdict
from neuralcollapse.report.history import History, numbered, read_histories, read_history
from neuralcollapse.report.page import write_page
from neuralcollapse.report.seeds import by_experiment
from neuralcollapse.report.tables import before_after, others
from neuralcollapse.report.template import number
from neuralcollapse.report.theory import section_of
from neuralcollapse.train.command import command_of
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.ufm import UFM
from tests.report.pages import HOSTILE, opened
from tests.report.runs import make_run

LAYERS = {"nc1/block1": 5.0, "nc1/block2": 2.0, "test_nc1": 1.5, "test_accuracy": 0.9, "train_loss": 2.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(epochs=4).resolved().to_dict()
    return make_run(tmp_path_factory.mktemp("runs") / "mine", config=config, columns=LAYERS)


def coordinates(page: Any, trace: int) -> list[list[float]]:
    """Of a trace of the view in space, as drawn."""
    read = "i => { const t = document.getElementById('space').data[i]; return [[...t.x], [...t.y], [...t.z]]; }"
    return np.array(page.evaluate(read, trace), dtype=float).T.tolist()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_says_what_happened_and_shows_it(
    run: Path, browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    output = write_report([run], tmp_path / "report.html")
    history = read_history(run)
    with opened(browser, output, width=width, scheme=scheme, reduced_motion="reduce") as page:
        assert page.locator("h1").inner_text() == "NC1 fell 10,000-fold, NC2 5-fold and NC3 10-fold; NC4 rose 11-fold."
        first = page.locator("#summary tbody tr").first
        assert first.locator("th").inner_text().startswith("NC1")
        cells = [text.split()[0] for text in first.locator("td").all_inner_texts()]
        assert cells == ["1", "0.0001", "0.0938", "0"]  # before, after, on test data, ideal
        slider = page.locator("#epoch")
        assert page.locator("#shown").inner_text() == "epoch 0"  # it opens before training
        for chosen in ((0, 1, 2, 3), (0, 1, 3), (0, 1, 3, 4)):
            for number in range(5):
                box = page.locator(f"#classes input[value='{number}']")
                if box.is_checked() and number not in chosen:
                    box.uncheck(force=True)
            for number in chosen:
                page.locator(f"#classes input[value='{number}']").check(force=True)
            for place in (0, 4):
                slider.fill(str(place))
                points = points_of(history.frames[place], chosen)
                for index in range(len(chosen)):  # traces: the simplex, then samples, mean and classifier row
                    own = points.samples[points.classes == index]
                    np.testing.assert_allclose(coordinates(page, 1 + 3 * index), own, atol=5e-3)
                    np.testing.assert_allclose(coordinates(page, 2 + 3 * index)[0], points.means[index], atol=5e-3)
                    np.testing.assert_allclose(coordinates(page, 3 + 3 * index)[1], points.weights[index], atol=5e-3)
        cosines = page.evaluate("document.querySelector('[data-figure=cosine-means]').data[0].z")
        np.testing.assert_allclose(cosines, history.frames[-1].means, atol=1e-3)
        assert page.locator("[data-figure=layers] .scatterlayer").count() == 1
        assert page.locator("#live").inner_text().split()[:2] == ["NC1", "1.0e-4"]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(16, 18, 22)") == (scheme == "dark")
        ink = page.evaluate("document.querySelector('[data-figure=nc1]').layout.font.color")
        assert (ink == "#eceef1") == (scheme == "dark")
        command = page.locator(".command code").inner_text()
        assert command == "neuralcollapse train --epochs 4 --output runs/mine"
        page.locator(".command button").click()
        assert page.evaluate("getSelection().toString()") == command


def test_it_plays_once(run: Path, browser: Any, tmp_path: Path) -> None:
    with opened(browser, write_report([run], tmp_path / "report.html")) as page:
        assert page.locator("#epoch").input_value() == "0"
        page.locator("#space").scroll_into_view_if_needed()
        page.locator("#shown", has_text="epoch 4").wait_for()
        page.locator("#play", has_text="Play").wait_for()
        page.wait_for_timeout(800)
        assert page.locator("#shown").inner_text() == "epoch 4"


def test_hostile_runs_stay_text(run: Path, browser: Any, tmp_path: Path) -> None:
    """Names of runs, columns, classes and data sets, values and keys of the configuration, sentences about folders."""
    plain = read_history(run)
    metrics = {HOSTILE[0]: plain.metrics["epoch"]} | {name: plain.metrics[name] for name in ("nc1", "nc2", "nc3")}
    metrics |= {f"nc1/{HOSTILE[2]}": plain.metrics["nc1"], HOSTILE[3]: plain.metrics["nc1"]}
    config = {"dataset": HOSTILE[1], "model": HOSTILE[2], "class_names": list(HOSTILE), HOSTILE[4]: HOSTILE[5]}
    history = dataclasses.replace(plain, name=HOSTILE[1], metrics=metrics, config=config, version=HOSTILE[6])
    alone = write_page([history], tmp_path / "one.html")
    both = write_page([history, dataclasses.replace(history, name=HOSTILE[0])], tmp_path / "two.html", skipped=HOSTILE)
    for path in (alone, both):
        with opened(browser, path, width=390, reduced_motion="reduce") as page:
            assert HOSTILE[1] in page.locator("header").inner_text()
            assert page.locator("#classes label").nth(1).inner_text() == HOSTILE[1]
            page.locator("details summary").first.click()
            page.locator("[data-figure=nc1]").hover()
            assert page.evaluate("page.data.runs[0].classes") == list(HOSTILE)


def test_hostile_dynamics_stay_text(run: Path, browser: Any, tmp_path: Path) -> None:
    """The page of the unconstrained model, with methods and starts named by an enemy."""
    plain = read_history(run)
    metrics = {"iteration": plain.metrics["epoch"], "gap": [1e-3, 1e-9, 1.92e-31, 0.0, None]}
    metrics |= {name: plain.metrics[name] for name in ("nc1", "nc2", "nc3", "nc4")}
    histories = [
        dataclasses.replace(plain, name=text, metrics=metrics, config={"optimizer": text, "start": HOSTILE[0]})
        for text in HOSTILE
    ]
    problem = UFM(4, 5, 4, lambda_w=5e-3, lambda_h=1e-3, lambda_b=1e-2)
    path = write_dynamics(problem, histories, tmp_path / "d.html")
    with opened(browser, path, width=390, scheme="dark", reduced_motion="reduce") as page:
        shown = page.locator("#curves .legend li").all_inner_texts()
        assert shown == list(HOSTILE)
        assert page.locator("#run option").count() == len(HOSTILE)
        page.locator("details summary").click()
        assert page.locator("#summary details td").first.bounding_box()["x"] >= 0


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["adam-seed0", "adam-seed1", "sgd-seed2"], ["adam (2 seeds)", "sgd-seed2"]),
        (["adam-seed0", "sgd-seed1"], ["adam-seed0", "sgd-seed1"]),
        (["first", "second"], ["first (2 seeds)"]),
        (["seed0-w16", "seed1-w16", "seed2-w32"], ["w16 (2 seeds)", "seed2-w32"]),
    ],
)
def test_names_that_say_their_seeds_say_which_runs_are_one_experiment(names: list[str], groups: list[str]) -> None:
    """Of trackers that describe nothing but the seed."""
    runs = [History(name, {"epoch": [0, 1], "nc1": [1.0, 0.1]}, {"seed": seed}) for seed, name in enumerate(names)]
    assert [name.lstrip("-") for name in by_experiment(runs)] == groups


def test_names_do_not_part_runs_whose_configurations_say_that_they_are_alike() -> None:
    names = ["2024-05-01-mlp-seed0", "2024-05-02-mlp-seed1-resumed", "gpu1-mlp-seed2"]
    runs = [History(name, {"epoch": [0]}, {"model": "mlp", "seed": seed}) for seed, name in enumerate(names)]
    assert [len(group) for group in by_experiment(runs).values()] == [3]


def test_seeds_are_a_band_and_several_runs_share_a_page(browser: Any, tmp_path: Path) -> None:
    config = TrainConfig(epochs=4).resolved().to_dict()
    runs = [
        make_run(tmp_path / f"mlp-seed{seed}", seed=seed, config=config | {"seed": seed}, snapshots=seed < 2)
        for seed in range(3)
    ]
    other = make_run(tmp_path / "adam", config=config | {"optimizer": "adam"})
    assert list(by_experiment([read_history(folder) for folder in (*runs, other)])) == ["mlp (3 seeds)", "adam"]
    with opened(browser, write_report([*runs, other], tmp_path / "all.html"), width=390) as page:
        assert page.locator("h1").inner_text() == (
            "4 runs compared: mlp-seed0 has the smallest NC1 (0.0001), mlp-seed2 the largest (0.00012)."
        )
        assert page.locator("#curves .legend li").all_inner_texts() == ["mlp (3 seeds)", "adam"]
        band = page.evaluate("document.querySelector('[data-figure=nc1]').data.map(t => [t.fill ?? '', t.y[0]])")
        assert [fill for fill, _ in band] == ["", "tonexty", "", ""]
        assert [first for _, first in band] == pytest.approx([1.2, 1.0, 1.1, 1.0])
        page.locator("#run").select_option("2")
        assert page.locator("#shown").inner_text() == "epoch 0"
        assert page.locator("#summary tbody tr").count() == 4


def test_seeds_of_a_captured_and_a_plain_run_are_one_band() -> None:
    """--capture replays the same arithmetic: it makes no other experiment."""
    runs = [
        History(f"mlp-seed{seed}", {"epoch": [0]}, {"model": "mlp", "seed": seed, "capture": bool(seed)})
        for seed in (0, 1)
    ]
    assert list(by_experiment(runs)) == ["mlp (2 seeds)"]


def test_a_band_holds_a_seed_once() -> None:
    """What a configuration does not say may differ between runs of one seed."""
    named = {"base-0": 0, "large-0": 0, "base-1": 1, "large-1": 1, "large-2": 2, "1": 0, "2": 0}
    found = by_experiment([History(name, {"epoch": [0]}, {"model": "Bert", "seed": s}) for name, s in named.items()])
    assert {name: [run.name for run in group] for name, group in found.items()} == {
        "base (2 seeds)": ["base-0", "base-1"], "large (3 seeds)": ["large-0", "large-1", "large-2"],
        "1": ["1"], "2": ["2"],
    }  # fmt: skip
    both = [History(name, {"epoch": [0]}, {"model": "Bert", "seed": 42}) for name in ("baseline", "mixup")]
    assert list(by_experiment(both)) == ["baseline", "mixup"]


def test_seeds_in_folders_of_equal_names_are_one_band() -> None:
    names = numbered(["mlp", "mlp"])
    runs = [History(name, {"epoch": [0]}, {"seed": seed}) for seed, name in enumerate(names)]
    assert list(by_experiment(runs)) == ["mlp (2 seeds)"]


def test_experiments_of_equal_names_stay_apart(tmp_path: Path) -> None:
    """Seeds 0 and 1 at one learning rate, 2 and 3 at another; then the same names in two folders."""
    rates = {0: 0.05, 1: 0.05, 2: 0.1, 3: 0.1}
    runs = [
        History(f"mlp-seed{seed}", {"epoch": [0]}, {"learning_rate": rate, "seed": seed})
        for seed, rate in rates.items()
    ]
    found = {name: [run.config["seed"] for run in group] for name, group in by_experiment(runs).items()}
    assert found == {"mlp (2 seeds) (1)": [0, 1], "mlp (2 seeds) (2)": [2, 3]}
    folders = [
        make_run(tmp_path / place / f"x-seed{seed}", config={"learning_rate": rate, "seed": seed}, snapshots=False)
        for place, rate in (("a", 0.05), ("b", 0.1))
        for seed in (0, 1)
    ]
    bands = by_experiment(read_histories(folders)[0])
    assert [[run.name for run in group] for group in bands.values()] == [
        ["x-seed0 (1)", "x-seed1 (1)"], ["x-seed0 (2)", "x-seed1 (2)"],
    ]  # fmt: skip
    assert list(by_experiment([History("mine", {"epoch": [0]})] * 2)) == ["mine (1)", "mine (2)"]
    assert numbered(["a", "a", "a (1)"]) == ["a (2)", "a (3)", "a (1)"]


NUMBERS = {
    "value": 0.11, "lower_bound": 0.1, "gap": 0.01, "lambda_fitted": HOSTILE[0], "weight_measured": 3.0,
    "weight_predicted": 4.0, "features_measured": 2.0, "features_predicted": 2.0, "loss_measured": None,
    "loss_predicted": 0.01, "features": HOSTILE[0],
}  # fmt: skip


def test_hostile_numbers_of_the_theory_stay_text(run: Path, tmp_path: Path) -> None:
    page = write_page([read_history(run)], tmp_path / "r.html", theory=section_of(NUMBERS)).read_text()
    assert "lies below 0.1." in page
    assert "Put into that model (&lt;script" in page
    assert "−25.0%" in page
    assert "Fitted to this run: &lt;script id=injected&gt;" in page


@pytest.mark.parametrize("config", [{"optimizer": "SGD", "weight_decay": 5e-3}, None])
def test_a_run_is_compared_with_the_theory(config: dict[str, Any] | None, run: Path, tmp_path: Path) -> None:
    """Of the command and of any loop that says its decay; ||W||^2 = rho minimises the loss of K simplex corners."""
    folder = run if config is None else make_run(tmp_path / "loop", config=config)
    page = write_report([folder], tmp_path / "r.html").read_text()
    ratio = 2 / 5**0.5  # of ||H|| to ||W||: at the end W is five unit vectors, and so are the means before centring
    best = minimize_scalar(lambda rho: np.log1p(4 * np.exp(-ratio * rho / 4)) + 5e-3 * rho, bounds=(0, 99)).x ** 0.5
    cells = re.findall(r"<t[dh][^>]*>([^<]*)<", page[page.index('id="theory"') :])
    assert cells[cells.index("‖W‖, norm of the classifier") :][1:3] == [number(5**0.5), number(best)]


@pytest.mark.parametrize(
    "config",
    [
        {"weight_decay": 5e-3},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "weight_decay": 0.0},
        {"optimizer": "sgd", "weight_decay": "<b>"},
        {"optimizer": "adamw", "weight_decay": 5e-3},
    ],
)
def test_a_run_without_a_prediction_has_no_such_section(config: dict[str, Any], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "loop", config=config)
    assert 'id="theory"' not in write_report([folder], tmp_path / "r.html").read_text()


def test_columns_without_a_number_are_not_drawn(tmp_path: Path) -> None:
    history = History("run", {"epoch": [0.0, 1.0], "nc1": [1.0, 0.1], "train_loss": [None, None]})
    page = write_page([history], tmp_path / "r.html").read_text()
    assert 'data-figure="nc1"' in page
    assert 'data-figure="loss"' not in page


def test_test_data_has_its_own_column(tmp_path: Path) -> None:
    columns = {"test_nc1": 8.0, "test_nc2": 4.0, "test_accuracy": 0.8}
    page = write_report([make_run(tmp_path / "run", columns=columns, epochs=1)], tmp_path / "r.html").read_text()
    rows = re.findall(r"<tr><th[^>]*>(NC\d|Accuracy)<.*?data-label=\"Test data\">([^<]*)<", page)
    assert rows == [("NC1", "4"), ("NC2", "2"), ("NC3", "–"), ("NC4", "–"), ("Accuracy", "40.0%")]
    assert "On test data NC1 is 4, 40 times that of the training data." in page
    without = write_report([make_run(tmp_path / "plain", epochs=1)], tmp_path / "r.html").read_text()
    assert "Test data" not in without


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ((0.01, 0.05, 0.02), "The network has collapsed, or nearly so."),
        ((0.003, 0.096, 0.12), "The network is close to collapse."),
        ((0.01, 0.5, 0.02), "The network has begun to collapse."),
        ((2.0, 0.05, 0.02), "The network has not collapsed."),
    ],
)
def test_the_page_says_whether_the_network_collapsed(ends: tuple[float, ...], sentence: str, tmp_path: Path) -> None:
    columns = {"epoch": [0.0, 1.0]} | {f"nc{number}": [3.0, end] for number, end in enumerate(ends, 1)}
    assert sentence in write_page([History("run", columns)], tmp_path / "r.html").read_text()


DEAD = {"epoch": [0, 5], "nc1": [1.0, math.nan], "nc2": [0.3, 0.05], "nc3": [1.0, math.nan]}


def test_nothing_is_said_of_what_is_undefined() -> None:
    dead = History("dead", DEAD)
    once = History("once", {name: values[1:] for name, values in DEAD.items()})
    assert headline(once) == "NC2 is 0.05, measured once."
    many = dataclasses.replace(dead, shape=(101, 25))
    assert "(NC2\u00a0=\u00a00.05)" in " ".join(lead(many))
    assert verdict(dead) == "Nothing can be said about collapse: NC1 and NC3 are undefined at the end."
    assert lead(dead)[0] == "All features are equal: NC1 is undefined."
    assert "nan" not in " ".join(
        text for run in (dead, once, many) for text in [headline(run), verdict(run), *lead(run)]
    )
    unsure = History("unsure", {"epoch": [5], "nc1": [0.01], "nc2": [0.05], "nc3": [math.nan]})
    assert verdict(unsure) == "Nothing can be said about collapse: NC3 is undefined at the end."
    assert "alive has the smallest NC1 (0.1)" in comparison(
        [dead, History("alive", {"epoch": [1], "nc1": [0.1]}), History("other", {"epoch": [1], "nc1": [0.2]})]
    )


def test_coinciding_class_means_are_said() -> None:
    columns = {"epoch": [0, 5], "nc1": [1.0, math.inf], "nc2": [0.3, 0.5], "test_nc1": [1.0, math.inf]}
    apart = History("apart", columns)
    assert verdict(apart) == "The network has not collapsed."
    assert lead(apart)[0] == "The class means coincide: NC1 is infinite."
    assert "inf" not in " ".join(lead(apart)).replace("infinite", "")
    assert comparison([apart, apart]) == "2 runs compared."


def test_undefined_layers_are_not_drawn_and_stop_nothing(tmp_path: Path) -> None:
    columns = {"epoch": [0, 5], "nc1": [1.0, 0.5], "nc1/block1": [2.0, math.nan], "nc1/block2": [math.inf, math.nan]}
    assert "Collapse by layer" not in write_page([History("run", columns)], tmp_path / "r.html").read_text()
    after = columns | {"nc1/block2": [math.nan, 0.5], "nc1/block1": [math.inf, math.nan]}
    assert "Collapse by layer" in write_page([History("run", after)], tmp_path / "r.html").read_text()


def test_a_band_leaves_out_what_is_undefined() -> None:
    runs = {"mlp": [{"epoch": [1, 2], "nc1": values} for values in ([0.3, math.nan], [math.nan, math.nan], [0.1, 1.0])]}
    largest, smallest, middle = curves(runs, "nc1", logarithmic=True).data
    assert (list(smallest.y), list(middle.y), list(largest.y)) == ([0.1, 1.0], [0.2, 1.0], [0.3, 1.0])


@pytest.mark.filterwarnings("ignore::neuralcollapse.CollapseWarning")
def test_a_class_without_samples_is_no_class_of_the_page(tmp_path: Path) -> None:
    """Six classes of nine, in five dimensions: they have a simplex, which nine would not have."""
    etf = simplex_etf(6, 5)
    labels = torch.tensor([0, 2, 3, 5, 6, 8]).repeat(4)
    weight = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    weight[labels[:6]] = etf
    head = torch.nn.Linear(5, 9)
    with torch.no_grad():
        head.weight.copy_(weight)
    tracker = CollapseTracker(tmp_path / "run", allow_missing=True)
    report = tracker.measure(torch.nn.Sequential(torch.nn.Identity(), head), [(etf.repeat(4, 1), labels)], epoch=1)
    run = read_history(tmp_path / "run")
    assert (run.shape, run.present) == ((9, 5), 6)
    for words in (report.explain(), " ".join(lead(run))):
        assert "cannot be below" not in words
    frame = run.frames[-1]
    assert np.isnan(frame.means[1]).all()
    assert np.isnan(frame.duality[:, 4]).all()
    assert frame.means[0, 2] == pytest.approx(-1 / 5, abs=1e-6)
    page = write_report(tmp_path / "run", tmp_path / "page.html").read_text()
    low = json.dumps(-1 / 5 - 0.5)
    assert f'"range":[{low}' in page.replace(" ", "")


def test_maps_of_the_first_of_many_classes_have_the_target_of_all() -> None:
    frame = frame_of(0, np.eye(100), np.eye(100), np.full(100, 0.01))
    panel = cosine_panel(frame.means, frame.classes).data[0]
    assert (panel.zmin + panel.zmax) / 2 == pytest.approx(-1 / 99)
    assert panel.z[0][1] == pytest.approx(-1 / 99, abs=1e-4)


def test_the_name_of_a_band_keeps_the_numbers_of_the_model() -> None:
    named = {"resnet18-0": 0, "resnet18-1": 1, "mlp-seed10": 10, "mlp-seed11": 11, "lr0.1-0": 0, "lr0.1-1": 1}
    runs = [History(name, {"epoch": [0]}, {"model": name[:4], "seed": seed}) for name, seed in named.items()]
    assert list(by_experiment(runs)) == ["resnet18 (2 seeds)", "mlp (2 seeds)", "lr0.1 (2 seeds)"]
    named = {"seed0-w16": 0, "seed1-w16": 1, "seed0-w32": 0, "seed1-w32": 1, "seed0-cnn": 0}
    runs = [History(name, {"epoch": [0]}, {"seed": seed}) for name, seed in named.items()]
    found = {name: [run.name for run in group] for name, group in by_experiment(runs).items()}
    assert list(found.values()) == [["seed0-w16", "seed1-w16"], ["seed0-w32", "seed1-w32"], ["seed0-cnn"]]
    tenfold = [History(f"mlp-seed{seed}", {"epoch": [0]}, {"seed": seed}) for seed in (1, 10)]
    assert list(by_experiment(tenfold)) == ["mlp (2 seeds)"]


@pytest.mark.parametrize(
    ("nc1", "said"),
    [(0.01, "The features of each class have collapsed, or nearly so."), (0.5, "The network has begun to collapse.")],
)
def test_more_classes_than_a_simplex_has_room_for_are_judged_by_nc1(nc1: float, said: str) -> None:
    run = History("many", {"epoch": [9], "nc1": [nc1], "nc2": [0.8], "nc3": [0.9]}, shape=(101, 25))
    assert verdict(run) == said
    assert "cannot be below 1 (NC2\u00a0=\u00a00.8, NC3\u00a0=\u00a00.9)" in " ".join(lead(run))
    assert [row["ideal"] for row in before_after(run)] == ["0", "≥ 1", "≥ 1"]
    assert others(run) == [("NC1", f"{nc1:g}", "0"), ("NC2", "0.8", "≥ 1"), ("NC3", "0.9", "≥ 1")]
    roomy = dataclasses.replace(run, shape=(26, 25))
    assert verdict(roomy) == "The network has begun to collapse."
    assert [row["ideal"] for row in before_after(roomy)] == ["0", "0", "0"]


def test_shares_are_percentages_before_and_after() -> None:
    run = History("run", {"epoch": [0, 9], "nc1": [1.0, 0.5], "train_accuracy": [0.1, 0.9512]})
    assert ("training accuracy", "10.0%", "95.1%", "") in others(run)


def test_a_run_measured_once_has_one_column(tmp_path: Path) -> None:
    """A trained model that is measured, and not trained: nothing changed from before to after."""
    run = make_run(tmp_path / "run", epochs=1)
    rows = read_metrics(run)[1:]
    write_metrics(run, rows)
    page = write_report(run, tmp_path / "page.html").read_text()
    assert ">Before<" not in page
    assert "unchanged" not in page
    assert "Value<small>epoch 1</small>" in page


def test_test_data_measured_earlier_is_compared_with_training_data_of_then(tmp_path: Path) -> None:
    rows = [
        {"epoch": 0, "nc1": 5.0, "train_accuracy": 0.1, "test_nc1": 5.0, "test_accuracy": 0.1},
        {"epoch": 10, "nc1": 2.0, "train_accuracy": 0.6, "test_nc1": 2.4, "test_accuracy": 0.5},
        {"epoch": 50, "nc1": 0.01, "train_accuracy": 1.0, "test_nc1": None, "test_accuracy": None},
    ]
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    write_metrics(tmp_path / "run", rows)
    run = read_history(tmp_path / "run")
    said = " ".join(lead(run))
    assert "On test data NC1 is 2.4, 1.2 times that of the training data (both at epoch 10)." in said
    assert "classifies 100.0% of the training data and 50.0% of the test data (at epoch 10) correctly" in said
    page = write_report(tmp_path / "run", tmp_path / "page.html").read_text()
    assert "2.4 (epoch 10)" in page
    others = page.split("Every measure of the run")[1]
    assert "2.4 (epoch 10)" in others
    write_metrics(tmp_path / "other", [{**rows[0], "epoch": 50}])
    page = write_report([tmp_path / "run", tmp_path / "other"], tmp_path / "both.html").read_text()
    assert "50.0% (epoch 10)" in page


@pytest.mark.parametrize(
    ("nc1", "text"),
    [(0.02, "have almost merged into one point"), (0.099, "lie close together"), (0.5, "drawn together")],
)
def test_merged_is_said_of_classes_that_look_like_points(nc1: float, text: str) -> None:
    assert text in lead(History("run", {"epoch": [0.0, 1.0], "nc1": [3.0, nc1]}))[0]


def test_a_plain_folder_with_nothing_but_metrics(browser: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "plain", snapshots=False)
    with opened(browser, write_report([folder], tmp_path / "plain.html")) as page:
        assert page.locator("#geometry").count() == 0
        assert page.locator(".command").count() == 0
        assert page.locator("[data-figure=nc1] .main-svg").count() > 0


def test_figures_name_what_was_left_out_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise FileNotFoundError("before the browser")

    monkeypatch.setattr("neuralcollapse.report.figures.check_pictures", stop)
    with pytest.warns(RunSkipped, match="left out .*stray"), pytest.raises(FileNotFoundError, match="before"):
        write_figures([run, tmp_path / "stray"], tmp_path / "figures")


def test_a_stray_folder_is_named_and_left_out(run: Path, tmp_path: Path) -> None:
    stray, damaged = tmp_path / "stray", tmp_path / "damaged"
    stray.mkdir()
    shutil.copytree(run, damaged)
    (damaged / "snapshots" / "epoch-0003.safetensors").write_bytes(b"?")
    with pytest.warns(RunSkipped) as caught:
        page = write_report([stray, run, damaged, tmp_path / "absent"], tmp_path / "page.html")
    said = [str(warning.message) for warning in caught]
    assert said[0] == f"left out {stray}, {tmp_path / 'absent'}: no metrics.csv there, so no run folder"
    assert "epoch-0003.safetensors is damaged" in said[1]
    assert len(said) == 2
    assert f"left out {stray}" in page.read_text()


def test_the_page_itself_is_left_out_without_a_word(run: Path, tmp_path: Path) -> None:
    """``report runs/*`` a second time; warnings are errors here."""
    other = shutil.copytree(run, tmp_path / "other")
    page = write_report([run, other], tmp_path / "comparison.html")
    written = page.read_text()
    assert write_report([run, other, page], page).read_text() == written
    page.write_text("<title>mine</title>")
    with pytest.warns(RunSkipped, match=f"left out {page}: no metrics.csv there"):
        write_report([run, other, page], tmp_path / "second.html")


def test_what_cannot_be_drawn_is_named(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    with pytest.raises(FileNotFoundError, match=r"no metrics\.csv in"):
        write_report([tmp_path / "none"], page)
    with pytest.raises(FileNotFoundError, match="none of the 2 folders"):
        write_report([tmp_path / "none", tmp_path], page)
    for classes in ([0], [1, 1], [0, 10]):
        with pytest.raises(ValueError, match="choose two to four different ones in"):
            write_report([run], page, classes=classes)
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "config.yaml").write_text("- a list")
    with pytest.raises(ValueError, match="holds no names with values"):
        write_report([copy], page)
    (copy / "metrics.csv").write_text("epoch,nc1\n0,\n")
    with pytest.raises(ValueError, match="no measured epoch yet"):
        write_report([copy], page)
    assert not page.exists()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"nc1": [2.0, 2.01], "nc2": [1.0, 0.0]}, "NC2 fell to 0; NC1 stayed where it was."),
        ({"nc1": [1e9, 1.0]}, "NC1 fell 1·10^9-fold."),
        ({"nc1": [None, None], "nc4": [0.0, 3.0]}, "NC4 rose to 3."),
        ({"nc1": [float("nan"), 1.0]}, "The measures of collapse are undefined for this run."),
    ],
)
def test_headlines(columns: dict[str, Any], sentence: str) -> None:
    assert headline(History("run", {"epoch": [0.0, 1.0]} | columns)) == sentence


def test_a_run_measured_once_has_a_headline_too() -> None:
    assert headline(History("run", {"epoch": [7.0], "nc1": [0.5], "nc2": [None]})) == "NC1 is 0.5, measured once."


def test_commands_hold_no_folder_of_this_machine() -> None:
    config = TrainConfig(dataset="hf:../somewhere/cifar10", data_root="/home/me", samples_per_class=100, augment=True)
    command = command_of(config.resolved().to_dict(), "it's")
    assert command == (
        "neuralcollapse train --dataset hf:DATA/cifar10 --samples-per-class 100 --augment --output 'runs/it'\"'\"'s'"
    )
    assert command_of({"model": "mine", "lr": 0.1}, "run") == ""


def test_figures_as_files(run: Path, tmp_path: Path, browser: Any) -> None:
    pytest.importorskip("kaleido", reason="figures need the extra: pip install '.[figures]'")
    from neuralcollapse.report import write_figures

    written = write_figures([run], tmp_path / "figures")
    assert [path.name for path in written] == [
        f"{name}.svg" for name in ("collapse", "accuracy", *(f"mine-cosines-{name}" for name in MAPS), "mine-space")
    ]
    for path in written:
        assert path.stat().st_size > 3000
    with pytest.raises(ValueError, match="choose svg or png"):
        write_figures([run], tmp_path, format="gif")


def test_one_folder_needs_no_list(run: Path, tmp_path: Path) -> None:
    for given in (run, str(run)):
        page = write_report(given, tmp_path / "one.html")  # type: ignore[arg-type]
        assert page.read_text() == write_report([run], tmp_path / "one.html").read_text()
    with pytest.raises(ValueError, match=r"folders=\[\] names no run"):
        write_report([], tmp_path / "none.html")
