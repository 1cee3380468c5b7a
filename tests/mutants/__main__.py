"""``python -m tests.mutants``: would a test notice if a line were wrong? Seeded mutants of three rooms, counted.

The package and its tests are loaded once. A forked child then swaps the code of one function for the mutant's, and
runs the tests of its module until one fails. Changes outside functions are not drawn, nor those of modules whose tests
are in processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import json
import os
import re
import resource
import select
import signal
import sys
import time
from pathlib import Path
from types import FunctionType

import pytest

from tests.mutants.draw import PACKAGE, ROOMS, Mutant, draw

TESTS = Path(__file__).parents[1]
CORE = {
    "geometry": ("collapse", "statistics"),
    "measurement": ("model", "axes", "batches"),
    "ufm": ("optimum", "certificate", "solvers"),
}
"""Tests of what is behind everything in a room, and named by no test."""

PATIENCE = 60
"""CPU seconds after which a mutant counts as killed: its loop does not end."""


def main(words: list[str]) -> int:
    """Draw mutants, run tests against each, print the survivors and the score."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the score and the survivors")
    chosen = parser.parse_args(words)
    mutants = draw(chosen.count, chosen.seed)
    with contextlib.redirect_stdout(io.StringIO()):  # loads the package, checked by beartype, and every test
        code = pytest.main(["--collect-only", "-q", "-m", "", *(str(TESTS / room) for room in ROOMS)])
    if code:
        raise RuntimeError(f"the tests of {', '.join(ROOMS)} cannot be collected")
    for mutant in mutants:  # some are loaded late, by the function that needs them
        importlib.import_module(".".join(("neuralcollapse", *mutant.file.relative_to(PACKAGE).with_suffix("").parts)))
    objects = _functions()
    survivors: list[str] = []
    counts = {room: {"mutants": 0, "killed": 0} for room in ROOMS}
    for number, mutant in enumerate(mutants, 1):
        killer = killed_by(mutant, objects.get((str(mutant.file), mutant.function, mutant.first_line), []))
        room = mutant.file.relative_to(PACKAGE).parts[0]
        counts[room]["mutants"] += 1
        counts[room]["killed"] += killer is not None
        if killer is None:
            survivors.append(mutant.name)
        print(f"[{number}/{len(mutants)}] {'SURVIVED' if killer is None else killer}: {mutant.name}", flush=True)
        if chosen.output:  # what was counted so far is kept
            record = {"seed": chosen.seed, "rooms": counts, "looked_at": dict.fromkeys(survivors, "")}
            chosen.output.write_text(json.dumps(record, indent=1) + "\n")
    killed = sum(count["killed"] for count in counts.values())
    print(
        f"seed {chosen.seed}: {killed} of {len(mutants)} mutants killed, {killed / max(1, len(mutants)):.0%}; {counts}"
    )
    return 0


def _functions() -> dict[tuple[str, str, int], list[FunctionType]]:
    """The package's functions by file, name and line; a decorated one is there once, whatever wraps it."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for value in gc.get_objects():
        if type(value) is FunctionType and value.__code__.co_filename.startswith(str(PACKAGE)):
            code = value.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(value)
    return found


def killed_by(mutant: Mutant, objects: list[FunctionType]) -> str | None:
    """What noticed the change; None if nothing did.

    Raises:
        RuntimeError: if the function is not there to be changed.
    """
    if not objects:
        raise RuntimeError(f"no function to change: {mutant.name}")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_tests(mutant, objects, writer)
    os.close(writer)
    start = time.monotonic()
    over = os.pidfd_open(child)
    if not select.select([over], [], [], 30 * PATIENCE)[0]:
        os.kill(child, signal.SIGKILL)
    os.close(over)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(reader) as pipe:
        failed = pipe.read().strip()
    if code < 0:
        return f"ended by signal {-code} after {time.monotonic() - start:.0f} s"
    return None if code == 0 else failed or f"pytest ended with {code}"


def _run_tests(mutant: Mutant, objects: list[FunctionType], report: int) -> None:
    code = 70
    try:
        for function in objects:
            function.__code__ = mutant.code
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))
        first = _First()
        options = ["-o", "addopts=", "-x", "-q", "-p", "no:cacheprovider", "-m", "not exhaustive"]
        code = int(pytest.main([*options, *map(str, tests_of(mutant.file))], plugins=[first]))
        os.write(report, first.failed.encode())
    finally:
        os._exit(code)


class _First:
    failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


def tests_of(file: Path) -> list[Path]:
    """Three test files of the rooms at most: its own, then those that use its public names most.

    What starts processes of its own (test_ranks) or every model of torchvision (test_zoo) is left out: the first would
    not see the mutant, the second takes minutes.
    """
    room = file.relative_to(PACKAGE).parts[0]
    names = set(re.findall(r"^(?:def|class) ([A-Za-z]\w*)", file.read_text(), re.MULTILINE)) | {file.stem}
    speaks = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b")
    found = {}
    for test in [test for name in ROOMS for test in (TESTS / name).glob("test_*.py")]:
        own = test.parent.name == room and test.stem == f"test_{file.stem}"
        words = len(speaks.findall(test.read_text()))
        if (own or words) and test.stem not in ("test_ranks", "test_zoo"):
            found[test] = (not own, test.parent.name != room, -words)
    return sorted(found, key=found.__getitem__)[:3] or [TESTS / room / f"test_{name}.py" for name in CORE[room]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
