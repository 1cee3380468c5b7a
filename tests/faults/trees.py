"""Commands of several processes, one of which is killed: sweeps, Ray workers, ranks of DDP."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.attempt import PATIENCE, Ended
from tests.faults.campaign import Fault, Reference, Verdict, check, finish
from tests.faults.scenes import last_row, rows_and_snapshots
from tests.processes import children, marked, workers


def _nobody(pid: int, mark: str) -> list[int]:
    return []


_MARK = "NEURALCOLLAPSE_FAULT"
_LATE = 0.1
"""Seconds at most between a row and the kill: an epoch of the network takes as long."""

_NETWORK = ("--width", "16", "--samples-per-class", "6", "--test-samples-per-class", "4", "--batch-size", "20")


@dataclass(frozen=True)
class Tree:
    """A command, and which of its processes dies."""

    name: str
    kind: str
    words: tuple[str, ...]
    """After ``python -m``; {} is the folder."""
    runs: tuple[str, ...]
    """Its run folders."""
    victims: Callable[[int, str], list[int]]
    """From the command's process and the mark of its descendants."""
    count: int
    """Faults."""

    def read(self, folder: Path) -> dict[str, str]:
        """Rows and snapshots of each run."""
        return {
            f"{run}: {name}": value for run in self.runs for name, value in rows_and_snapshots(folder / run).items()
        }

    @property
    def alone(self) -> Tree:
        """The same command without a victim."""
        return dataclasses.replace(self, kind="", victims=_nobody)

    def reached(self, folder: Path) -> int:
        """Rows on disk."""
        return max(last_row(folder / run) for run in self.runs)


_SWEEP = ("tests.faults.two_runs", "{}")
_RUNS = ("first", "second")
_RANKS = ("neuralcollapse", "train", "--devices", "2", "--accelerator", "cpu", "--epochs", "4", "--resume",
          "--output", "{}/run", *_NETWORK)  # fmt: skip

TREES = (
    Tree("sweep", "the command killed", _SWEEP, _RUNS, lambda pid, mark: [pid], 2),
    Tree("sweep", "a run's process killed", _SWEEP, _RUNS, lambda pid, mark: workers(pid), 2),
    Tree("sweep on Ray", "a worker killed", (*_SWEEP, "ray"), _RUNS, lambda pid, mark: children(0, "ray::first"), 2),
    Tree("two ranks (DDP, gloo)", "rank 0 killed", _RANKS, ("run",), lambda pid, mark: [pid], 2),
    Tree("two ranks (DDP, gloo)", "rank 1 killed", _RANKS, ("run",), lambda pid, mark: marked(mark, "LOCAL_RANK=1"), 2),
)


def reference(tree: Tree, folder: Path) -> Reference:
    """The command without a fault.

    Raises:
        RuntimeError: if it fails.
    """
    folder.mkdir(parents=True)
    ended = _run(tree, folder, folder.with_suffix(".log"), None)
    if ended.code:
        raise RuntimeError(f"{tree.name} fails without a fault: {ended.said[-2000:]}")
    return Reference(0, (), ended.seconds, {}, tree.read(folder))


def inject(tree: Tree, fault: Fault, ref: Reference, folder: Path) -> Verdict:
    """Kill a process, wait until all have ended, and give the same command again."""
    verdict = Verdict(fault)
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / "place"
    place.mkdir(parents=True)
    ended = _run(tree, place, folder / "log.txt", fault.at)
    verdict.struck = ended.struck
    if "outlived" in ended.said:
        verdict.unclear.append("a process outlived the command")
    check(verdict, tree.read, tree.reached, place, ref, ended)
    finish(verdict, tree.read, place, ref, _run(tree, place, folder / "again.log", None))
    return verdict


def _run(tree: Tree, folder: Path, log: Path, at: float | None) -> Ended:
    """Run the command; at a share of its work, one victim is killed."""
    mark = f"{_MARK}={secrets.token_hex(8)}"
    name, value = mark.split("=")
    environment = {key: text for key, text in os.environ.items() if key != "LD_PRELOAD"} | {name: value}
    line = [sys.executable, "-m", *(word.format(folder) for word in tree.words)]
    start, struck = time.monotonic(), ""
    with log.open("wb") as file:
        process = subprocess.Popen(line, stdout=file, stderr=file, env=environment, start_new_session=True)
    if at is not None:
        struck = _kill(tree, process, mark, folder, at)
    late = ""
    try:
        process.wait(PATIENCE)
        end = time.monotonic() + 60
        while marked(mark) and time.monotonic() < end:
            time.sleep(0.1)
    except subprocess.TimeoutExpired:
        late = "\nit hung"
    if left := marked(mark):
        late += f"\n{len(left)} processes outlived the command"
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    return Ended(process.returncode, log.read_text(errors="replace") + late, struck, time.monotonic() - start)


def _kill(tree: Tree, process: subprocess.Popen[bytes], mark: str, folder: Path, at: float) -> str:
    """Wait for a row to appear, or for the first step before it; then kill the first victim that there is."""
    row = int(at)
    while process.poll() is None and tree.reached(folder) < row:
        time.sleep(0.02)
    time.sleep((at - row) * _LATE)
    while process.poll() is None:
        if found := tree.victims(process.pid, mark):
            os.kill(found[0], signal.SIGKILL)
            return f"{(at - row) * _LATE:.2f} s after row {row}"
        time.sleep(0.02)
    return ""
