"""One attempt at some work in a forked child, which may be killed or meet a broken disk without harm to anyone."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import shim

PATIENCE = 300.0
"""Seconds after which an attempt counts as hung."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    code: int
    """Exit status; minus the signal that ended it."""
    said: str
    """What it printed."""
    struck: str = ""
    """The call that was made to fail, and its file."""
    seconds: float = 0.0
    calls: int = 0
    """Changes of files, where it reached its end."""
    writes: tuple[int, ...] = ()
    """Numbers of those that take space, where nothing went wrong."""


def attempt(
    act: Callable[[], None],
    log: Path,
    *,
    folder: Path | None = None,
    kind: shim.Kind = shim.Kind.NOTHING,
    at: int = 0,
    kill_after: float | None = None,
) -> Ended:
    """Do some work in a child.

    Args:
        act: the work.
        log: file for what it prints.
        folder: where its changes of files are counted; None disturbs nothing.
        kind: what goes wrong.
        at: in which of these calls.
        kill_after: seconds after which the child is killed.
    """
    reader, writer = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(act, log, folder, kind, at, writer)
    os.close(writer)
    patience = PATIENCE if kill_after is None else kill_after
    over = os.pidfd_open(child)
    ended = bool(select.select([over], [], [], patience)[0])
    os.close(over)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(reader) as pipe:
        told = dict(line.split("=", 1) for line in pipe.read().split("\n") if line)
    seconds = time.monotonic() - start
    said = log.read_text(errors="replace")
    if not ended and kill_after is None:
        return Ended(status, said + "\nit hung", seconds=seconds)
    writes = tuple(int(key) for key in told if key.isdigit())
    struck = told.get("struck") or (f"{seconds:.2f} s" if not ended else "")
    return Ended(status, said, struck, seconds, int(told.get("calls", 0)), writes)


def load_what_was_loaded(log: Path) -> None:
    """Load the modules that an attempt loaded, so that no later child has to."""
    for name in log.with_suffix(".modules").read_text().splitlines():
        if name not in sys.modules and name != "__main__":
            with contextlib.suppress(ImportError, AttributeError):
                importlib.import_module(name)


def _child(act: Callable[[], None], log: Path, folder: Path | None, kind: shim.Kind, at: int, report: int) -> None:
    code = 0
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        if folder is not None:
            shim.arm(folder, kind, at, report)
        try:
            act()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except OSError as error:  # as the command line says it
            print(f"neuralcollapse: {error}", file=sys.stderr)
            code = 1
        sys.stdout.flush()
        if folder is not None:
            os.write(report, f"calls={shim.calls()}\n".encode())
            if kind is shim.Kind.NOTHING:
                log.with_suffix(".modules").write_text("\n".join(sys.modules))
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stderr.flush()
        os._exit(code)
