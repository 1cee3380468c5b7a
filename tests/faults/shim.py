"""The C library's calls that change files, counted, and one of them made to fail. Linux with a C compiler."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


class Kind(IntEnum):
    """What happens at the chosen call; the numbers are those of shim.c."""

    NOTHING = 0
    KILL = 1
    FULL_DISK = 2
    READ_ONLY = 3
    DISK_ERROR = 4
    CLOCK_BACK = 5


def compiler() -> str | None:
    """A C compiler; None where there is none, or no Linux."""
    return shutil.which("cc") or shutil.which("gcc") if sys.platform == "linux" else None


def preloaded() -> bool:
    """Whether this process runs on top of the shim."""
    return hasattr(ctypes.CDLL(None), "fault_arm")


def restart_with_shim(module: str, arguments: list[str]) -> None:
    """Replace this process by one that runs a module on top of the shim.

    Raises:
        OSError: if there is no compiler.
    """
    found = compiler()
    if found is None:
        raise OSError("the fault campaign needs Linux and a C compiler: on Debian, apt-get install gcc")
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"neuralcollapse-faults-{os.getuid()}-{name}.so"
    if not library.is_file():
        partial = library.with_suffix(f".{os.getpid()}")
        subprocess.run([found, "-shared", "-fPIC", "-O1", "-o", partial, SOURCE, "-ldl"], check=True)
        partial.rename(library)
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def arm(folder: Path, kind: Kind, at: int, report: int) -> None:
    """Count this process's changes of files under a folder, and let the one numbered ``at`` go wrong.

    A full disk and a read-only folder stay so until the process ends; the other kinds strike once.

    Args:
        folder: where calls count.
        kind: what happens.
        at: number of the call, from 1.
        report: descriptor that is told which call it was, before it happens.
    """
    ctypes.CDLL(None).fault_arm(os.fsencode(os.path.realpath(folder)), int(kind), ctypes.c_long(at), report)


def calls() -> int:
    """Changes of files since :func:`arm`."""
    count = ctypes.CDLL(None).fault_calls
    count.restype = ctypes.c_long
    return int(count())
