"""Disks that are really full or read-only: small file systems in memory, mounted for the purpose. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.attempt import attempt
from tests.faults.campaign import Fault, Reference, Verdict, check, finish
from tests.faults.scenes import Scene

FULL = "a small disk, really full"
READ_ONLY = "a disk mounted read-only"


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    folder.mkdir(parents=True, exist_ok=True)
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode
    ):
        return False
    subprocess.run(["umount", folder], check=True)
    return True


def inject(fault: Fault, scene: Scene, ref: Reference, folder: Path) -> Verdict:
    """``fault.at`` is the size in KiB, or the share of the unbroken time after which the disk is read-only."""
    verdict = Verdict(fault, struck=f"{fault.at:g} KiB" if fault.kind == FULL else f"after {fault.at:g} of the time")
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / "place"
    place.mkdir(parents=True)
    size = f"{int(fault.at)}k" if fault.kind == FULL else "64m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        scene.prepare(place)
        if fault.kind == READ_ONLY:
            attempt(lambda: scene.act(place), folder / "before.log", kill_after=fault.at * ref.seconds)
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        ended = attempt(lambda: scene.act(place), folder / "log.txt")
        if not ((ended.code == 1 and " cannot " in ended.said) or "could not" in ended.said):
            verdict.unclear.append(f"ended with {ended.code}: {ended.said[-200:]}")
        check(verdict, scene.read, scene.reached, place, ref, ended)
        subprocess.run(["mount", "-o", "remount,rw,size=64m", place], check=True)
        finish(verdict, scene.read, place, ref, attempt(lambda: scene.act(place), folder / "again.log"))
    finally:
        subprocess.run(["umount", place], check=True)
    return verdict
