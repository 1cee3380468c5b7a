"""``neuralcollapse doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from neuralcollapse import __version__
from neuralcollapse.extras import EXTRAS
from neuralcollapse.names import LAYOUT

_CORE = ("torch", "torchvision", "lightning", "torchmetrics", "numpy", "scipy", "plotly")


def doctor(*, data_root: Path | None = None) -> None:
    """Show what this machine has: versions, devices, extras, data sets and a browser.

    For example:
      neuralcollapse doctor
      neuralcollapse doctor --data-root ~/data

    Args:
        data_root: Folder of torchvision's data sets. By default data, as for the other commands.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    root = data_root or Path("data")
    for name, found in (*_versions(), *_devices(), *_extras(), *_data(root.expanduser()), ("browser", _browser())):
        table.add_row(name, found)
    Console(highlight=False, markup=False).print(table)


def _versions() -> Iterator[tuple[str, str]]:
    yield "neuralcollapse", f"{__version__} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()} in {sys.prefix}"
    yield "system", platform.platform()
    for name in _CORE:
        yield name, _version(name) or "missing: pip install ."


def _devices() -> Iterator[tuple[str, str]]:
    try:
        import torch
    except ImportError as error:
        yield "devices", f"torch cannot be imported: {error}"
        return
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if not torch.accelerator.is_available():
        yield "devices", f"CPU only, {threads}"
        return
    kind = str(torch.accelerator.current_accelerator())
    names = [_name(kind, index) for index in range(torch.accelerator.device_count())]
    yield "devices", f"{', '.join(names)}; CPU, {threads}"


def _name(kind: str, index: int) -> str:
    import torch

    describe = getattr(getattr(torch, kind.partition(":")[0], None), "get_device_name", None)
    return f"{kind}:{index} {describe(index)}" if describe else f"{kind}:{index}"


def _extras() -> Iterator[tuple[str, str]]:
    for extra, names in EXTRAS.items():
        versions = {name: _version(name) for name in names}
        missing = [name for name, version in versions.items() if version is None]
        have = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        lack = f"without {', '.join(missing)}: pip install '.[{extra}]'" if missing else ""
        yield f"extra {extra}", "; ".join(part for part in (have, lack) if part)


def _data(root: Path) -> Iterator[tuple[str, str]]:
    yield "data digits", "embedded"
    for name, folder in LAYOUT.items():
        place = root / folder
        yield (
            f"data {name}",
            f"{place}" if place.is_dir() else f"not in {root}; downloaded when used, if there is a network",
        )


def _browser() -> str:
    from neuralcollapse.extras import browser

    on_path = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    found = browser() or next(filter(None, on_path), None)
    return str(found or "no Chrome or Chromium: pages open in any browser, but --figures, --plot and --static need one")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
