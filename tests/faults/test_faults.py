"""A small campaign, so that the large one (``make faults``) cannot rot; and the faults do strike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults import shim

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(shim.compiler() is None, reason="needs Linux and a C compiler"),
]


def test_fifteen_faults_lose_nothing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.faults", "--faults", "15", "--no-trees", "--output", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    # A fault that comes after the work is done is not counted; when it comes depends on the machine.
    assert "15 faults, seed 0" in done.stderr
    assert 12 <= sum(row["injected"] for row in rows) <= 15
    assert len({row["work"] for row in rows}) >= 4


LOSING = """
import sys
from pathlib import Path
from neuralcollapse import files

def in_place(path, content):  # what the package must not do
    Path(path).write_bytes(content)
    return Path(path)

files.write_bytes = in_place
from tests.faults.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_campaign_sees_what_is_lost(tmp_path: Path) -> None:
    """The same campaign, over a package that writes its files in place, must fail."""
    script = tmp_path / "losing.py"
    script.write_text(LOSING)
    starter = (
        "import sys; from tests.faults import shim; "
        "shim.restart_with_shim('losing', ['--faults', '12', '--work', 'statistics', '--output', sys.argv[1]])"
    )
    path = f"{tmp_path}:{ROOT}:{ROOT / 'src'}"
    done = subprocess.run(
        [sys.executable, "-c", starter, str(tmp_path)], env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert sum(row["lost"] for row in rows) > 0


def test_each_call_that_changes_a_file_is_counted(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from tests.faults import shim
folder = Path(sys.argv[1])
shim.arm(folder, shim.Kind.NOTHING, 0, -1)
(folder / "a").write_text("x")                      # open, write
os.replace(folder / "a", folder / "b")              # rename
(folder / "b").chmod(0o600)                         # chmod
(folder / "c").mkdir()                              # mkdir
with (folder / "b").open("r+b") as file:            # open
    os.fsync(file.fileno())                         # fsync
    file.truncate(0)                                # truncate
(folder / "b").unlink()                             # unlink
(folder / "c").rmdir()                              # rmdir
print(shim.calls())
"""
    (tmp_path / "counting.py").write_text(code)
    starter = "import sys; from tests.faults import shim; shim.restart_with_shim('counting', sys.argv[1:])"
    path = f"{tmp_path}:{ROOT}:{ROOT / 'src'}"
    (tmp_path / "place").mkdir()
    line = [sys.executable, "-c", starter, str(tmp_path / "place")]
    done = subprocess.run(line, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "10"
