"""A page in the real browser, and everything on it that should not be there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOSTILE = (
    "<script id=injected>alert(1)</script>",
    "</script><script id=injected>alert(1)</script>",
    "<img id=injected src=x onerror=alert(1)>",
    "\"'><svg id=injected onload=alert(1)>",
    "<a id=injected href='javascript:alert(1)'>x</a>",
    "{{ 7 * 7 }}${alert(1)}&lt;b id=injected&gt;",
    "<!--<script>",
    "<style id=injected>*{display:none}</style>",
)
"""Names and values that run, or change the page, where they are not escaped."""

_WIDER = """() => [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg'))
    .map(e => e.outerHTML.slice(0, 120))"""


@contextlib.contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, scheme: str = "light", **options: Any) -> Iterator[Any]:
    """The page; on leaving, nothing was asked for, reported, injected, or wider than the screen."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme, **options)
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: None if request.url == path.as_uri() else seen.append(request.url))
    page.on("dialog", lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    yield page
    assert seen == []
    assert page.locator("#injected").count() == 0
    fits(page)
    page.close()


def fits(page: Any) -> None:
    """Nothing is wider than the screen."""
    assert page.evaluate(_WIDER) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
