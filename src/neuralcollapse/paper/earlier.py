"""The gallery that a folder has already: its scale, figures and runs. What is not of ours is moved aside."""

from __future__ import annotations

import csv
import io
import logging
import re
from pathlib import Path

from neuralcollapse import files
from neuralcollapse.paper.experiments import FIGURES
from neuralcollapse.paper.tables import CLAIMS, NORMS, RUNS

PAGE = "gallery.html"
_CLAIMS, _RUNS = "claims.csv", "runs.csv"

TABLES = {_CLAIMS: CLAIMS, _RUNS: RUNS, "norms.csv": NORMS}
"""Columns of each table of a gallery, by its file."""

TITLE = "The paper, repeated: scale "
"""Of the page, before the name of the scale."""

_HEAD = 8192
"""Bytes of a file that say what it is."""

_log = logging.getLogger(__name__)


def scale_of(page: Path) -> str | None:
    """The scale of a gallery's page; None where there is none, or the file is another one."""
    found = re.search(f"<title>{TITLE}([^<]+)</title>", _head(page))
    return found[1] if found else None


def check_scale(output: Path, scale: str) -> None:
    """Refuse to draw runs of one scale into the gallery of another.

    Raises:
        ValueError: naming both scales.
    """
    found = scale_of(output / PAGE)
    if found not in (None, scale):
        raise ValueError(
            f"scale={scale!r} is not that of the gallery in {output}, {found!r}: choose scale={found!r} or another "
            "--output"
        )


def figures_of(output: Path) -> list[str]:
    """The figures whose claims a folder's gallery judges already, in the paper's order."""
    found = {row["figure"] for row in _rows(output / _CLAIMS)}
    return [name for name in FIGURES if name in found]


def runs_of(output: Path) -> list[str]:
    """Names of the runs that a folder's gallery lists already, finished or not."""
    return [row["run"] for row in _rows(output / _RUNS)]


def replace(path: Path, text: str) -> None:
    """Write a file of a gallery; what another program left under its name gets a dated one first.

    Raises:
        WriteError: if the file cannot be written, or the other one not moved.
    """
    if path.is_file() and not _is_own(path):
        _log.warning("%s is no file of a gallery: moved to %s", path, files.set_aside(path))
    files.write_text(path, text)


def _is_own(path: Path) -> bool:
    if path.name in TABLES:
        return _has_columns(path)
    if path.suffix == ".svg":
        head = _head(path)
        return 'class="main-svg"' in head and "prefers-color-scheme: dark" in head
    return scale_of(path) is not None


def _rows(path: Path) -> list[dict[str, str]]:
    """Of a table of a gallery; none where the file is absent or another one."""
    if not _has_columns(path):
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8", errors="replace"), newline="")))


def _has_columns(path: Path) -> bool:
    """Whether it begins with the first columns of its table; older versions had fewer in all."""
    return _head(path).startswith(",".join(TABLES[path.name][:3]) + ",")


def _head(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_HEAD).decode(errors="replace")
