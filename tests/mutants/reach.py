"""Which tests run which lines, and how long each takes: measured once, with coverage's contexts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.draw import PACKAGE, ROOMS

ROOT = Path(__file__).parents[2]

LEFT_OUT = ("test_ranks", "test_zoo", "test_command", "test_target_commands")
"""Tests whose work is done by processes of their own, which would not see a mutant; and every model of torchvision."""

SECONDS = 15.0
"""Of tests per mutant, as long as they take beside coverage."""

MOST = 80
"""Tests per mutant."""

_DURATIONS = "NEURALCOLLAPSE_DURATIONS"


class Reach:
    """Tests by the lines that they run.

    Args:
        folder: for ``coverage.db`` and ``durations.json``; measured anew where they are missing, or older than a line
            of the package or of its tests (some minutes).
    """

    def __init__(self, folder: Path) -> None:
        from coverage import CoverageData

        folder.mkdir(parents=True, exist_ok=True)
        database, durations = folder / "coverage.db", folder / "durations.json"
        if not _is_newest(durations):
            _measure(database, durations)
        self._data = CoverageData(str(database))
        self._data.read()
        self._durations: dict[str, float] = json.loads(durations.read_text())
        self._lines: dict[Path, dict[int, list[str]]] = {}

    def tests(self, file: Path, line: int, seed: int = 0) -> list[str]:
        """Some of the tests that run a line: those of the file's own name first, the others drawn by the seed."""
        if file not in self._lines:
            self._lines[file] = self._data.contexts_by_lineno(str(file))
        found = {context.rpartition("|")[0] for context in self._lines[file].get(line, [])} & self._durations.keys()
        rng = random.Random(f"{seed}/{file.name}/{line}")
        ranks = {test: (f"test_{file.stem}.py::" not in test, rng.random()) for test in sorted(found)}
        chosen: list[str] = []
        left = SECONDS
        for test in sorted(found, key=ranks.__getitem__):
            if len(chosen) < MOST and (self._durations[test] <= left or not chosen):
                chosen.append(test)
                left -= self._durations[test]
        return chosen


def _is_newest(durations: Path) -> bool:
    if not durations.is_file():
        return False
    measured = durations.stat().st_mtime
    sources = [path for room in (PACKAGE, ROOT / "tests") for path in room.rglob("*.py")]
    return all(path.stat().st_mtime < measured for path in sources)


def _measure(database: Path, durations: Path) -> None:
    tests = [path for room in ROOMS for path in sorted((ROOT / "tests" / room).glob("test_*.py"))]
    words = [str(path.relative_to(ROOT)) for path in tests if path.stem not in LEFT_OUT]
    options = ["-o", "addopts=", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.reach", "-m", "not exhaustive"]
    options += ["--cov=neuralcollapse", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    environment = {**os.environ, "COVERAGE_FILE": str(database.resolve()), _DURATIONS: str(durations.resolve())}
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *words], cwd=ROOT, env=environment)
    if done.returncode:
        durations.unlink(missing_ok=True)
        raise RuntimeError("tests fail without any mutant")


_took: dict[str, float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long a test takes, its fixtures included."""
    _took[report.nodeid] = _took.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    """Write the durations of a measuring run."""
    if _DURATIONS in os.environ:
        Path(os.environ[_DURATIONS]).write_text(json.dumps(_took))
