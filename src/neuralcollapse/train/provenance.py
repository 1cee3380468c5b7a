"""Where the numbers of a run come from: code, data, seed, hardware and precision."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import neuralcollapse
from neuralcollapse import files
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import ImageData, Split
from neuralcollapse.train.graphs import can_capture

PROVENANCE = "provenance.json"


def provenance_of(
    config: TrainConfig, data: ImageData, device: torch.device, *, epoch: int, before: dict[str, Any] | None
) -> dict[str, Any]:
    """What a run rests on: plain values, for provenance.json and its checkpoints.

    Args:
        config: of the run.
        data: that it trains and tests on.
        device: of this process.
        epoch: finished before this session; a resumed run has several sessions.
        before: the provenance of the sessions before.

    Raises:
        ValueError: if the data is not what the sessions before trained on.
    """
    prints = fingerprints(data)
    if before is not None and before["data"] != prints:
        changed = " and ".join(split for split in prints if prints[split] != before["data"][split])
        raise ValueError(
            f"the {changed} images or labels of {config.dataset} are not those that this run began with: restore them, "
            "or choose another output folder"
        )
    session = {"from_epoch": epoch, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    session |= _software() | _hardware(config, device)
    return {"seed": config.seed, "data": prints, "sessions": [*(before["sessions"] if before else []), session]}


def fingerprints(data: ImageData) -> dict[str, dict[str, Any]]:
    """Number of images, and a hash of pixels and labels, of each split."""
    return {name: {"images": len(split), "sha256": fingerprint(split)} for name, split in _splits(data)}


def _splits(data: ImageData) -> list[tuple[str, Split]]:
    return [("training", data.train), ("test", data.test)]


def fingerprint(split: Split) -> str:
    """SHA-256 of shapes, pixels and labels: it changes with any of them, and with their order."""
    digest = hashlib.sha256(repr((tuple(split.pixels.shape), tuple(split.labels.shape))).encode())
    for tensor in (split.pixels, split.labels.long()):
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.cpu().contiguous().numpy()).cast("B")


def write_provenance(folder: Path, record: dict[str, Any]) -> None:
    """Replace provenance.json in one step."""
    files.write_text(folder / PROVENANCE, json.dumps(record, indent=1) + "\n")


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """provenance.json; None where there is none.

    Raises:
        ValueError: if it is damaged.
    """
    path = folder / PROVENANCE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return record


def devices_of(record: dict[str, Any] | None) -> list[str]:
    """Devices of the sessions of a run, each once, in order; those of a record of another shape are left out.

    >>> devices_of({"sessions": [{"device": "cuda: H100", "devices": 8}, {"device": "cpu: x86_64", "devices": 1}]})
    ['8 x H100', 'x86_64']
    """
    found = []
    sessions = (record or {}).get("sessions")
    for session in sessions if isinstance(sessions, list) else []:
        if not isinstance(session, dict) or not isinstance(session.get("device"), str):
            continue
        name, count = session["device"].partition(": ")[2], session.get("devices")
        found.append(f"{count} x {name}" if isinstance(count, int) and count > 1 else name)
    return [*dict.fromkeys(found)]


def _software() -> dict[str, Any]:
    import lightning

    return {
        "neuralcollapse": neuralcollapse.__version__,
        "git": _git_state(Path(neuralcollapse.__file__).parent),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
    }


def _git_state(package: Path) -> dict[str, Any] | None:
    """Commit of the package's own checkout, and whether its files differ from it; None outside of one."""

    def git(*words: str) -> str:
        line = ["git", "-C", str(package), *words]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not a checkout that merely holds the environment
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def _hardware(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    name = processor()
    if device.type != "cpu":
        properties_of = getattr(torch.get_device_module(device), "get_device_properties", None)  # MPS has none
        name = name if properties_of is None else str(getattr(properties_of(device), "name", device.type))
    return {
        "system": platform.platform(),
        "device": f"{device.type}: {name}",
        "devices": config.devices * config.nodes,
        "threads": torch.get_num_threads(),
        "precision": config.precision,
        "captured": config.capture and can_capture(device),
    }


def processor() -> str:
    """The processor's name where the system tells it, otherwise its architecture."""
    try:
        listed = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not Linux
        listed = ""
    names = [line.partition(":")[2].strip() for line in listed.splitlines() if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()
