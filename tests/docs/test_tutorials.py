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
EXTRAS = {
    "hf": ("accelerate", "datasets", "pandas", "pyarrow", "timm", "transformers"),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "figures": ("kaleido",),
    "frames": ("pandas",),
}
"""Modules that an installation has because of an extra."""
HIDING = """
import os
from importlib import metadata
from importlib.machinery import PathFinder

hidden = os.environ["HIDDEN"].split(",")
find, distribution = PathFinder.find_spec, metadata.distribution

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find(name, path, target)

def installed(name):
    if name in hidden:
        raise metadata.PackageNotFoundError(name)
    return distribution(name)

PathFinder.find_spec, metadata.distribution = staticmethod(find_spec), installed
"""
"""Python's sitecustomize of an installation without these modules."""
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def session(page: Path) -> str:
    """One Python script that does what the page says, in order."""
    parts = ["import subprocess"]
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        parts.append(code if language == "python" else f"subprocess.run({code!r}, shell=True, check=True)")
    return "\n".join(parts)


def hidden(page: Path) -> list[str]:
    """What an installation does not have that took only the extras which the page names."""
    text = page.read_text(encoding="utf-8")
    named = {extra for extra in EXTRAS if re.search(rf"\[[a-z,]*\b{extra}\b[a-z,]*\]'", text)}
    has = {module for extra in named for module in EXTRAS[extra]}
    return sorted({module for modules in EXTRAS.values() for module in modules} - has)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_as_typed(page: Path, tmp_path: Path) -> None:
    """On an installation with only the extras that the page names."""
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module)
    script = tmp_path / "session.py"
    script.write_text(session(page), encoding="utf-8")
    folder = str(Path(sys.executable).parent)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDING)
    environment = {
        **os.environ,
        "PATH": folder + os.pathsep + os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "HIDDEN": ",".join(hidden(page)),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in re.findall(r"neuralcollapse report (\S+)", page.read_text(encoding="utf-8")):
        assert (tmp_path / line / "report.html").stat().st_size > 10_000


def test_pages_hold_something_to_run() -> None:
    assert all(BLOCK.search(page.read_text(encoding="utf-8")) for page in PAGES)
