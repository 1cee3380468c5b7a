from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import neuralcollapse

HEAVY = ("torch", "lightning", "plotly", "torchvision", "ray", "sklearn", "datasets", "timm")


def test_every_public_name_is_there() -> None:
    for name in neuralcollapse.__all__:
        assert getattr(neuralcollapse, name) is not None
    assert callable(neuralcollapse.measure)


def loaded(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_loads_nothing_heavy() -> None:
    assert not loaded("import neuralcollapse") & set(HEAVY)
    measured = loaded("from neuralcollapse import measure_features, measure, simplex_etf")
    assert not measured & {"lightning", "plotly", "torchvision", "ray", "sklearn", "datasets", "timm"}


@pytest.mark.parametrize("room", ["measurement", "ufm"])
def test_a_file_holds_one_idea(room: str) -> None:
    """CONTRIBUTING.md: no file of these rooms has over 250 lines."""
    files = sorted((Path(neuralcollapse.__file__).parent / room).rglob("*.py"))
    assert len(files) > 10
    assert {file.name: lines for file in files if (lines := len(file.read_text().splitlines())) > 250} == {}
