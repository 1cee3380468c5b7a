"""Each notebook runs from top to bottom, shows something, and is kept without outputs."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_three_and_the_documents_name_them() -> None:
    assert [book.stem for book in BOOKS] == ["ask_the_theory", "measure_my_model", "watch_collapse"]
    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(f"notebooks/{book.name}" in text for book in BOOKS), page


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_kept_without_outputs(book: Path) -> None:
    cells = [cell for cell in json.loads(book.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_runs_and_shows_figures_and_tables(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm's wish for ipywidgets
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(book, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [set(output.get("data", {})) for output in outputs]
    assert any("application/vnd.plotly.v1+json" in kinds for kinds in shown)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    if book.stem != "ask_the_theory":
        assert any("text/html" in kinds for kinds in shown)
