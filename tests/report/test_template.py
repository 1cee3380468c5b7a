"""The base of every page: escaping, and the policy in force in a real browser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from neuralcollapse.report.template import number, plain, render
from tests.report.pages import HOSTILE, opened

VALUES = {
    "shape": HOSTILE[0], "groups": (2, 1), "negative": HOSTILE[1], "eigenvalues": HOSTILE[2], "steepest": -0.5,
    "value": 0.1, "optimum": math.nan, "proved": True, "facts": [(text, text) for text in HOSTILE],
}  # fmt: skip


def hostile_page(path: Path) -> Path:
    figure = go.Figure()
    figure.add_contour(z=[[1, 2], [3, 4]])
    data = {text: list(HOSTILE) for text in HOSTILE} | {"none": [math.inf, np.array([math.nan, 1.0])]}
    figures = {"contour": figure, "spectrum": figure}
    path.write_text(render("landscape.html", title=HOSTILE[1], figures=figures, data=data, **VALUES))
    return path


def test_hostile_values_stay_text(browser: Any, tmp_path: Path) -> None:
    with opened(browser, hostile_page(tmp_path / "page.html")) as page:
        assert page.title() == HOSTILE[1]
        shown = page.locator("section dl dd").all_inner_texts()
        assert [text for text in HOSTILE if text not in shown] == []
        assert page.evaluate("page.data[Object.keys(page.data).find(k => k.startsWith('<!--'))]") == list(HOSTILE)
        assert page.evaluate("page.data.none") == [None, [None, 1]]


def test_the_policy_runs_nothing_but_the_pages_own_scripts(browser: Any, tmp_path: Path) -> None:
    """What would follow if escaping failed one day: the browser refuses it."""
    path = hostile_page(tmp_path / "page.html")
    path.write_text(
        path.read_text().replace("</main>", "".join(HOSTILE) + "<img src='http://example.com/x.png'></main>")
    )
    page = browser.new_page()
    refused, asked, dialogs = [], [], []
    page.on("console", lambda message: refused.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    assert dialogs == []
    assert sum("Content Security Policy" in text for text in refused) >= 4
    assert [url for url in asked if url.startswith("http")] == []
    page.close()


def test_a_script_that_would_end_its_element_is_refused() -> None:
    with pytest.raises(ValueError, match="would end its element"):
        render("landscape.html", title="", scripts=["'</script>'"], **VALUES)


def test_plain_values() -> None:
    assert plain({1: (np.float64(math.nan), np.arange(2), -math.inf)}) == {"1": [None, [0, 1], None]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0256, "−0.0256"), (1.92e-31, "1.92e-31"), (999.6, "1,000"), (99.96, "100"), (math.inf, "∞"),
     (math.nan, "–"), (1.5e7, "1.50e+07"), (0.5, "0.5")],
)  # fmt: skip
def test_numbers_are_shown_whole(value: float, text: str) -> None:
    assert number(value) == text
