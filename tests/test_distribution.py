"""What people download: the wheel and the source archive hold what they need and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import neuralcollapse

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.exhaustive
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"neuralcollapse-{neuralcollapse.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    package = ROOT / "src" / "neuralcollapse"
    kept = {
        str(path.relative_to(ROOT / "src"))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == kept
    assert "neuralcollapse/py.typed" in packed
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < 1_000_000


@pytest.mark.exhaustive
def test_the_metadata(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "info/" in name}
    metadata = Parser().parsestr(files["METADATA"])
    assert metadata["Name"] == "neuralcollapse"
    assert metadata["Version"] == neuralcollapse.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "neural collapse" in metadata.get_payload()
    for extra in ("hf", "ray", "tensorboard", "wandb", "figures", "dev"):
        assert extra in metadata.get_all("Provides-Extra")
    assert "neuralcollapse = neuralcollapse.cli:main" in files["entry_points.txt"]


@pytest.mark.exhaustive
def test_the_wheel_runs_without_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = "import neuralcollapse, sys; print(neuralcollapse.__file__); from neuralcollapse.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, version = done.stdout.split()
    assert where.startswith(str(tmp_path))
    assert version == neuralcollapse.__version__


@pytest.mark.exhaustive
def test_the_source_archive_holds_the_tests_and_no_data(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "tests/cases.py"):
        assert name in names
    assert not [name for name in names if name.startswith(("runs/", "results/", ".venv/", ".ci/"))]
