"""A plain loop, Lightning and the Hugging Face Trainer end in the same page: wide and narrow, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the Hugging Face Trainer needs the extra: pip install '.[hf]'")
pytest.importorskip("accelerate", reason="the Hugging Face Trainer needs the extra: pip install '.[hf]'")

from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.report import write_report
from tests.report.pages import fits, opened
from tests.report.trainings import EPOCHS, hugging_face, lightning, plain_loop

TRAININGS = {"plain": plain_loop, "lightning": lightning, "hugging-face": hugging_face}
PAPER = {"light": "rgb(247, 247, 245)", "dark": "rgb(16, 18, 22)"}
NAMES = ["NC1", "NC2", "NC3", "NC4", "Accuracy"]
CURVES = ["nc1", "nc2", "nc3", "nc4", "accuracy", "loss"]


@pytest.fixture(scope="module", params=TRAININGS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / request.param
    TRAININGS[request.param](folder)
    return folder


def test_rows_have_the_same_columns(run: Path) -> None:
    rows = read_metrics(run)
    assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS + 1))
    measured = [name for name in rows[0] if name.startswith("nc") or name.endswith("accuracy")]
    assert {"nc1", "nc2", "nc3", "nc4", "train_accuracy", "test_nc1", "test_nc4", "test_accuracy"} < set(rows[0])
    assert all(float(row[name]) >= 0 for row in rows for name in measured)
    losses = [float(row["train_loss"]) for row in rows[1:]]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_the_same_and_fits(run: Path, width: int, browser: Any, tmp_path: Path) -> None:
    path = write_report([run], tmp_path / "report.html")
    with opened(browser, path, width=width, reduced_motion="reduce") as page:
        assert [text.split("\n")[0] for text in page.locator("#summary tbody th").all_inner_texts()] == NAMES
        assert page.locator("#curves .figure").evaluate_all("all => all.map(e => e.dataset.figure)") == CURVES
        ids = page.locator("section").evaluate_all("all => all.map(e => e.id)")
        assert [name for name in ids if name != "theory"] == ["summary", "geometry", "curves", "made", "glossary"]
        assert "model" in page.locator("#made .facts").first.inner_text()
        page.locator("#epoch").fill(str(EPOCHS))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == PAPER[scheme]
            fits(page)
            box = page.locator("#space canvas").first.bounding_box()
            assert box["width"] > 0.7 * min(width, 520)
