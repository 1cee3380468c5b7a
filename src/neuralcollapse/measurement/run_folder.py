"""The folder of a run: config.yaml and one row of metrics.csv per epoch, beside the snapshots of the geometry.

``neuralcollapse train`` and a tracker in a plain loop write it, the report and the gallery read it. Each file is
whole at every moment (:mod:`neuralcollapse.files`), and a damaged one is refused with a sentence: a run folder is
input like any other.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuralcollapse import files
from neuralcollapse.run_files import CONFIG, METRICS

_COLUMN = re.compile(r"[A-Za-z_][\w .:/+%-]*", re.ASCII)
_LAYER = "nc1/"
"""Columns of inner layers begin so."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """The plain values of config.yaml; none where there is no such file.

    Raises:
        ValueError: if it is not a YAML mapping.
    """
    path = Path(folder) / CONFIG
    return read_values(path) if path.is_file() else {}


def read_values(path: str | Path) -> dict[str, Any]:
    """The plain values of a file as config.yaml is one.

    Raises:
        ValueError: if it is not a YAML mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a valid configuration: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} is not a valid configuration: it holds no names with values")
    return {str(name): value for name, value in values.items()}


def read_metrics(folder: str | Path, columns: Sequence[str] = ("epoch", "nc1")) -> list[dict[str, str]]:
    """Rows of a run's metrics.csv, as text; no rows where there is no file yet.

    A last line without its line break was cut short by a crash, and is left out.

    Args:
        folder: of the run.
        columns: that the reader needs.

    Raises:
        ValueError: if a column is missing, a header or a cell is damaged, or the epochs do not increase.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> append_metrics(folder, {"epoch": 0, "nc1": 0.5, "nc2": 0.1, "nc3": 1.25, "nc4": None})
    >>> read_metrics(folder)
    [{'epoch': '0', 'nc1': '0.5', 'nc2': '0.1', 'nc3': '1.25', 'nc4': ''}]
    """
    path = Path(folder) / METRICS
    if not path.is_file():
        return []
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not UTF-8 text") from error
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return []
    try:
        header, *lines = csv.reader(io.StringIO(whole, newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    _check_header(path, header, columns)
    rows = [_row(path, number, header, cells) for number, cells in enumerate(lines, 2)]
    epochs = [int(row["epoch"]) for row in rows]
    for before, after in itertools.pairwise(epochs):
        if after <= before:
            raise ValueError(f"{path} is damaged: epoch {after} follows epoch {before}")
    return rows


def check_names(names: Iterable[str]) -> None:
    """Accept names of columns: a letter, then letters, digits, spaces and ``_ . : / + % -``; or ``nc1/`` and a layer's.

    Raises:
        ValueError: if one is no such name.
    """
    for name in names:
        if not _is_column(name):
            raise ValueError(f"{name[:80]!r} is no name of a column: use letters, digits, spaces and _ . : / + % -")


def _is_column(name: str) -> bool:
    """Whether a column can have this name: layers are called as their authors please, in characters that print."""
    return bool(_COLUMN.fullmatch(name)) or (name.startswith(_LAYER) and name.isprintable())


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    for name in header:
        if not _is_column(name):
            raise ValueError(f"{path} is damaged: its header has {name[:80]!r}, which is no name of a column")
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if len(set(header)) < len(header):
        raise ValueError(f"{path} is damaged: a column appears twice in its header")


def _row(path: Path, number: int, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise ValueError(f"{path} is damaged: line {number} has {len(cells)} cells for {len(header)} columns")
    for name, cell in zip(header, cells, strict=True):
        whole = cell.isascii() and cell.isdigit() and len(cell) < 10
        if not (whole if name == "epoch" else not cell or _is_number(cell)):
            raise ValueError(f"{path} is damaged: line {number} has {name}={cell[:80]!r}, which is no number")
    return dict(zip(header, cells, strict=True))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell == cell.strip()


def write_metrics(folder: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace metrics.csv in one step; the columns are those of all rows, in the order in which they appear.

    Raises:
        WriteError: if it cannot be written; the previous file is then unchanged.
    """
    fields = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_line(fields, row) for row in ({name: name for name in fields}, *rows)] if rows else []
    files.write_text(Path(folder) / METRICS, "".join(lines))


def append_metrics(folder: str | Path, row: Mapping[str, Any]) -> None:
    """Add a row, on disk before this returns. None and a missing column become an empty cell.

    Raises:
        ValueError: if the file is damaged, or the row does not come after the others.
        WriteError: if it cannot be written; the previous rows are then unchanged.
    """
    folder = Path(folder)
    present = read_metrics(folder)
    if present and int(row["epoch"]) <= int(present[-1]["epoch"]):
        raise ValueError(f"{folder / METRICS} already holds epoch {present[-1]['epoch']}: row {row['epoch']} is late")
    path = folder / METRICS
    if present and row.keys() <= present[0].keys() and path.read_bytes().endswith(b"\n"):
        files.append_line(path, _line(list(present[0]), row))
    else:
        write_metrics(folder, [*present, row])


def _line(fields: Sequence[str], row: Mapping[str, Any]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fields).writerow(dict(row))
    return text.getvalue()


def write_config(folder: str | Path, values: Mapping[str, Any]) -> None:
    """Replace config.yaml in one step.

    Raises:
        WriteError: if it cannot be written; the previous file is then unchanged.
    """
    files.write_text(Path(folder) / CONFIG, _yaml_of(values))


def as_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as :func:`read_config` would read them, were they written."""
    import yaml

    return dict(yaml.safe_load(_yaml_of(values)))


def _yaml_of(values: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False)
