"""``python -m tests.mutants``: would a test notice if a line were wrong? Seeded mutants of three rooms, counted.

Coverage first says which tests run which lines. The package and its tests are then loaded once. For each mutant a
forked child swaps the code of one function, and runs tests that reach the changed line until one fails. Changes outside
functions are not drawn, nor those of modules whose tests are in processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from types import FunctionType

import pytest

from tests.mutants.draw import PACKAGE, ROOMS, Mutant, draw
from tests.mutants.reach import Reach

TESTS = Path(__file__).parents[1]
PATIENCE = 60
"""CPU seconds after which a mutant counts as killed: its loop does not end."""


def main(words: list[str]) -> int:
    """Draw mutants, run tests against each, print the survivors and the score."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the score and the survivors")
    parser.add_argument("--reach", type=Path, default=Path("build/reach"), help="folder for what coverage found")
    chosen = parser.parse_args(words)
    reach = Reach(chosen.reach)
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
        tests = reach.tests(mutant.file, mutant.line, chosen.seed)
        found = objects.get((str(mutant.file), mutant.function, mutant.first_line), [])
        killer = killed_by(mutant, found, tests) if tests else None
        room = mutant.file.relative_to(PACKAGE).parts[0]
        counts[room]["mutants"] += 1
        counts[room]["killed"] += killer is not None
        if killer is None:
            survivors.append(mutant.name)
        end = killer or (f"SURVIVED {len(tests)} tests" if tests else "SURVIVED, no test runs this line")
        print(f"[{number}/{len(mutants)}] {end}: {mutant.name}", flush=True)
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


def killed_by(mutant: Mutant, objects: list[FunctionType], tests: list[str]) -> str | None:
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
        _run_tests(mutant, objects, tests, writer)
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


def _run_tests(mutant: Mutant, objects: list[FunctionType], tests: list[str], report: int) -> None:
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
        code = int(pytest.main([*options, *tests], plugins=[first]))
        os.write(report, first.failed.encode())
    finally:
        os._exit(code)


class _First:
    failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
