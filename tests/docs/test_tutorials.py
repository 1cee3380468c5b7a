"""Each tutorial, typed as it stands: its Python in one session, its shell commands after the Python before them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "index.md", *sorted((DOCS / "tutorials").glob("*.md"))]
NEEDS = {"huggingface.md": ("transformers", "accelerate"), "plain_loop.md": ("pandas",)}
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def session(page: Path) -> str:
    """One Python script that does what the page says, in order."""
    parts = ["import subprocess"]
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        parts.append(code if language == "python" else f"subprocess.run({code!r}, shell=True, check=True)")
    return "\n".join(parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_as_typed(page: Path, tmp_path: Path) -> None:
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module)
    script = tmp_path / "session.py"
    script.write_text(session(page), encoding="utf-8")
    folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": folder + os.pathsep + os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in re.findall(r"neuralcollapse report (\S+)", page.read_text(encoding="utf-8")):
        assert (tmp_path / line / "report.html").stat().st_size > 10_000


def test_pages_hold_something_to_run() -> None:
    assert all(BLOCK.search(page.read_text(encoding="utf-8")) for page in PAGES)
