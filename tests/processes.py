"""Processes of this machine, found in /proc."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int, word: str) -> list[int]:
    """Processes whose parent is pid (any parent for 0) and whose command has the word."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word in (entry / "cmdline").read_text().replace("\0", " "):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if pid in (int(parent), 0):
                    found.append(int(entry.name))
        except OSError:  # it is gone
            continue
    return found


def workers(pid: int) -> list[int]:
    """The processes of a sweep's runs: children of the server that forks them."""
    return [worker for server in children(pid, "forkserver") for worker in children(server, "forkserver")]


def marked(*words: str) -> list[int]:
    """Processes that are alive and have each of some NAME=VALUE in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and {*words} <= {*(entry / "environ").read_text(errors="replace").split("\0")}:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def soon(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: if it does not in that time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
