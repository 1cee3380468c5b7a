"""``reproduce all --scale smoke`` as a user runs it, and its gallery in a real browser."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from neuralcollapse.cli import main
from neuralcollapse.paper.claims import CLAIMS
from neuralcollapse.paper.experiments import FIGURES, SCALES
from neuralcollapse.paper.gallery import write_gallery
from neuralcollapse.paper.reproduce import plan
from tests.paper.test_sweep import command
from tests.report.pages import HOSTILE, opened

ROOT = Path(__file__).parents[2]
RUNS = dict.fromkeys(run.name for figure in FIGURES.values() for run in figure.runs(SCALES["smoke"]))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Every figure, in less than five minutes; once for all processes of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "smoke"
    with FileLock(f"{folder}.lock"):
        if not (folder / "gallery.html").is_file():
            ended = subprocess.run(
                command("all", "--scale", "smoke", "--workers", "2", "--output", str(folder)),
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stderr
            assert f"[{len(RUNS)}/{len(RUNS)}]" in ended.stderr
            assert "not judged" in ended.stdout
    return folder


@pytest.fixture(params=[(390, "dark"), (1280, "light")])
def page(smoke: Path, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, scheme = request.param
    viewport = {"width": width, "height": 800}
    opened = browser.new_page(viewport=viewport, offline=True, color_scheme=scheme)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: message.type in ("error", "warning") and errors.append(message.text))
    opened.on("request", lambda asked: asked.url.startswith("file:") or errors.append(asked.url))
    opened.goto((smoke / "gallery.html").as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    opened.wait_for_function("[...document.querySelectorAll('[data-figure]')].every(one => one.querySelector('svg'))")
    yield opened
    assert errors == []
    opened.close()


@pytest.mark.exhaustive  # its runs take a minute
def test_gallery_shows_every_figure_claim_run_and_norm(page: Any) -> None:
    for name, figure in FIGURES.items():
        section = page.locator(f"section#{name}")
        assert section.locator("h2").inner_text() == figure.title
        assert section.locator(".claim .verdict").all_inner_texts() == ["not judged"] * len(CLAIMS[name]) or not (
            figure.runs(SCALES["smoke"])
        )
        if figure.runs(SCALES["smoke"]):
            assert section.locator("[data-figure] .main-svg").count() >= 2
    assert page.locator("#verdicts tr").count() == sum(map(len, CLAIMS.values()))
    assert page.locator("#runs table tbody th").all_inner_texts() == list(RUNS)
    certified, not_so = (page.locator(f"#theory {rows}").count() for rows in ("table tbody tr", "ul li:has-text(':')"))
    assert certified + not_so == len(RUNS)
    assert not_so <= sum("fixed" in name or "both" in name for name in RUNS)  # hardly trained: no critical point
    assert page.locator("#missing").count() == 0


@pytest.mark.exhaustive  # its runs take a minute
def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    screen = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= screen
    too_wide = """screen => [...document.querySelectorAll("main *")].filter(one => !one.closest(".scroll, svg")
        && one.getBoundingClientRect().right > screen + 1).map(one => one.outerHTML)"""
    assert page.evaluate(too_wide, screen) == []


@pytest.mark.exhaustive  # its runs take a minute
def test_a_command_is_copied_whole(page: Any) -> None:
    page.locator("#runs .command button").nth(list(RUNS).index("digits-resnet18-sgd-fixed")).click()
    copied = page.evaluate("getSelection().toString()")
    assert shlex.split(copied)[:4] == ["neuralcollapse", "train", "--model", "resnet18"]
    assert "--head etf" in copied


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    """In the browser, with the policy in force: nothing runs, and nothing is asked of the network."""
    for name in HOSTILE:
        planned = plan(["figure6"], "full", output=tmp_path, sources={"mnist": f"imagefolder:{name}"})
        write_gallery(tmp_path, "full", planned)
        with opened(browser, tmp_path / "gallery.html") as page:
            policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
            assert policy.startswith("default-src 'none'")
            assert "script-src 'sha256-" in policy
            shown = max(name.split("'"), key=len)  # the shell's quotes come between the parts
            assert shown in page.locator("#runs").text_content()


@pytest.mark.exhaustive  # its runs take a minute
def test_tables_agree_with_the_runs(smoke: Path) -> None:
    with (smoke / "runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(RUNS)
    for name, row in rows.items():
        with (smoke / name / "metrics.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert float(row["NC1"]) == pytest.approx(float(last["nc1"]), rel=1e-2)
        assert float(row["hours"]) == pytest.approx(float(last["seconds"]) / 3600, rel=0.1)
        assert row["epochs"] == "2"


@pytest.mark.exhaustive  # its runs take a minute
def test_what_is_half_done_is_drawn_as_far_as_it_is(smoke: Path, tmp_path: Path) -> None:
    planned = plan(["figure5", "figure6"], "smoke", output=tmp_path)
    name = "digits-resnet18-sgd"
    (tmp_path / name).symlink_to(smoke / name)
    judged = write_gallery(tmp_path, "smoke", planned)
    text = (tmp_path / "gallery.html").read_text()
    assert "digits-resnet18-sgd-features: not begun" in text
    assert judged["figure6"][0].missing == ("digits-resnet18-sgd-features",)
    assert judged["figure5"][0].findings == []


@pytest.mark.parametrize("mode", ["--draw", "--list"])
def test_another_run_in_a_folder_is_never_taken_for_the_papers(tmp_path: Path, mode: str) -> None:
    run = plan(["figure6"], "smoke", output=tmp_path)["figure6"][0]
    run.folder.mkdir()
    dataclasses.replace(run.config, seed=7).save(run.folder / "config.yaml")
    words = command("figure6", "--scale", "smoke", mode, "--output", str(tmp_path))
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "seed was 7 and is now 0" in ended.stderr
    assert not (tmp_path / "gallery.html").exists()


def test_list_trains_nothing(tmp_path: Path) -> None:
    output = tmp_path / "none"
    words = command("figure6", "--scale", "smoke", "--list", "--output", str(output))
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.startswith("# 2 runs, 0 finished. The others take about ")
    assert len(re.findall(r"epoch 0 of 2, about \d+ (s|min|h)\nneuralcollapse train ", said)) == 2
    assert not output.exists()


def test_list_says_once_why_times_are_unknown(tmp_path: Path) -> None:
    words = command("figure3", "--scale", "narrow", "--list", "--output", str(tmp_path / "none"))
    words += ["--mnist", f"imagefolder:{tmp_path / 'nowhere'}", "--cifar10", f"imagefolder:{tmp_path / 'nowhere'}"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.startswith("# 10 runs, 0 finished. The others take an unknown time.\n")  # nothing runs: no Ctrl-C
    assert said.count("nowhere") == 1 + 10  # the reason, and each command's data
    assert said.count("epoch 0 of 200, unknown time\n") == 9  # all but MNIST with L-BFGS, which has 120


def test_list_says_what_is_missing_in_the_words_of_the_command(tmp_path: Path) -> None:
    words = command("figure6", "--scale", "narrow", "--list", "--output", str(tmp_path / "none"))
    words += ["--data-root", str(tmp_path / "data"), "--cifar10", f"imagefolder:{tmp_path / 'nowhere'}"]
    (tmp_path / "data").mkdir()
    refused = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nothing is downloaded
    ended = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | refused)
    assert "or point --data-root at a folder that holds MNIST/raw\n" in ended.stdout


def test_a_reader_who_stops_reading_the_list_sees_no_error(tmp_path: Path) -> None:
    words = shlex.join(command("figure5", "--scale", "smoke", "--list", "--output", str(tmp_path / "none")))
    ended = subprocess.run(f"{words} | head -n 1", shell=True, capture_output=True, text=True, check=True)
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


@pytest.mark.exhaustive  # its runs take a minute
def test_static_gallery_is_small_and_its_figures_follow_dark_mode(smoke: Path, browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="static figures need the extra: pip install 'neuralcollapse[figures]'")
    planned = plan(["figure5"], "smoke", output=smoke)
    write_gallery(tmp_path, "smoke", planned, static=True)
    page = (tmp_path / "gallery.html").read_text()
    assert len(page) < 500_000
    assert page.count("data:image/svg+xml;base64,") == 4 + 2
    assert "plotly.js v" not in page
    (file,) = (tmp_path / "figures").glob("figure5-*.svg")
    assert "prefers-color-scheme: dark" in file.read_text()
    opened = browser.new_page(offline=True)
    opened.goto((tmp_path / "gallery.html").as_uri())
    loaded = "[...document.querySelectorAll('#figure5 img')].map(one => one.complete && one.naturalWidth > 0)"
    assert opened.evaluate(loaded) == [True] * 4
    opened.close()


def test_a_run_is_drawn_wherever_its_data_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = plan(["figure6"], "full", output=tmp_path)["figure6"][0]
    for source, accepted in (("hf:elsewhere/mnist", True), ("fashion-mnist", False), ("hf:mnist/other", False)):
        run.folder.mkdir(exist_ok=True)
        dataclasses.replace(run.config, dataset=source).save(run.folder / "config.yaml")
        words = ["reproduce", "figure6", "--scale", "full", "--draw", "--output", str(tmp_path)]
        if accepted:
            main(words)
            assert "--dataset hf:elsewhere/mnist" in (tmp_path / "runs.csv").read_text()
        else:
            with pytest.raises(SystemExit):
                main(words)
            assert f"dataset was '{source}'" in capsys.readouterr().err


def test_a_figure_that_joins_a_gallery_takes_its_place_in_the_papers_order(tmp_path: Path) -> None:
    for figure in ("figure3", "figure6"):
        main(["reproduce", figure, "--scale", "smoke", "--draw", "--output", str(tmp_path)])
    with (tmp_path / "claims.csv").open(encoding="utf-8") as file:
        assert list(dict.fromkeys(row["figure"] for row in csv.DictReader(file))) == ["figure3", "figure6"]


@pytest.mark.exhaustive
def test_one_figure_drawn_again_takes_no_other_from_the_gallery(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "results" / "reduced", tmp_path / "reduced"))

    def figures(name: str) -> list[dict[str, str]]:
        with (folder / name).open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    before = {name: figures(name) for name in ("claims.csv", "runs.csv")}
    assert len({row["figure"] for row in before["claims.csv"]}) > 3
    main(["reproduce", "figure6", "--scale", "reduced", "--output", str(folder), "--draw"])
    key = {"claims.csv": "figure", "runs.csv": "run"}  # claims may be worded anew
    for name, rows in before.items():
        assert sorted(row[key[name]] for row in figures(name)) == sorted(row[key[name]] for row in rows)
