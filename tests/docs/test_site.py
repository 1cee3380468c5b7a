"""The documentation site: built strictly and offline, opened in a browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return target


def test_gallery_has_a_page_with_a_figure_for_each_script(site: Path) -> None:
    scripts = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))
    assert len(scripts) >= 12
    for script in scripts:
        page = (site / "gallery" / f"{script.stem.removeprefix('plot_')}.html").read_text(encoding="utf-8")
        assert "plotly-graph-div" in page


def test_every_measure_has_an_entry(site: Path) -> None:
    from neuralcollapse.geometry.measures import MEASURES

    page = (site / "measures.html").read_text(encoding="utf-8")
    for name in MEASURES:
        assert f'id="{name}"' in page
    assert page.count("<math") >= len(MEASURES)


def test_doctests_are_code(site: Path) -> None:
    for page in (site / "api").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<blockquote>" not in text, page.name
        assert "&gt;&gt;&gt; " in text, page.name


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(https?:)?//[^\"'> ]+")
    allowed = re.compile(r"rel=[\"']?(canonical|next|prev)")
    for page in site.rglob("*.html"):
        for found in loads.finditer(page.read_text(encoding="utf-8")):
            assert allowed.search(found[0]), f"{page.relative_to(site)} loads {found[0]}"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api")
    import shutil

    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("NEURALCOLLAPSE_REQUIRE_BROWSER"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.mark.parametrize("name", ["index", "measures", "gallery/index", "gallery/tetrahedron", "api/measure", "theory"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_open_without_errors_and_fit(site: Path, browser: object, name: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})  # type: ignore[attr-defined]
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
    page.goto((site / f"{name}.html").as_uri())
    page.wait_for_timeout(300)
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_every_page_has_a_policy(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert text.count("Content-Security-Policy") == 1, page.name
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]  # type: ignore[index]
        assert policy.startswith("default-src 'none'; script-src 'self' file:")
        assert "unsafe" not in policy.split("style-src")[0]


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>document.title = 'owned'</script>",
        "<img src=missing onerror=\"document.title = 'owned'\">",
        "<a id=click href=\"javascript:document.title = 'owned'\">x</a>",
        "<script src='https://example.com/x.js'></script>",
    ],
)
def test_a_page_runs_no_script_that_it_was_not_built_with(site: Path, browser: object, hostile: str) -> None:
    """What gets into a page after it was built; the build itself holds the repository's own text alone."""
    text = (site / "gallery" / "tetrahedron.html").read_text(encoding="utf-8")
    attacked = site / "gallery" / "attacked.html"
    attacked.write_text(text.replace("<article", f"{hostile}<article", 1), encoding="utf-8")
    assert hostile in attacked.read_text(encoding="utf-8")
    page = browser.new_page()  # type: ignore[attr-defined]
    requests: list[str] = []
    page.route(re.compile("^https:"), lambda route: (requests.append(route.request.url), route.abort()))
    try:
        page.goto(attacked.as_uri())
        if "id=click" in hostile:
            page.evaluate("document.getElementById('click').click()")
        page.wait_for_timeout(300)
        assert "owned" not in page.title()
        assert requests == []
        assert page.locator(".js-plotly-plot .main-svg").count() > 0, "the page's own script no longer runs"
    finally:
        page.close()
        attacked.unlink()


def test_search_works_under_the_policy(site: Path, browser: object) -> None:
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": 1280, "height": 900})  # type: ignore[attr-defined]
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        # The page takes no query before its worker has read the index, which it says in this line.
        ready = page.locator(".md-search-result__meta", has_text="Type to start searching")
        ready.wait_for(state="attached", timeout=60_000)
        page.locator("input.md-search__input").press_sequentially("tetrahedron")  # the page listens to keys
        page.locator(".md-search-result__link").first.wait_for(timeout=60_000)
        assert errors == []
    finally:
        page.close()
        server.shutdown()
        server.server_close()
