"""The folder of a run: config.yaml, one row of metrics.csv per epoch, and snapshots of the geometry.

``neuralcollapse train`` and a tracker in a plain loop write it, the report and the gallery read it. Each file is
whole at every moment (:mod:`neuralcollapse.files`), and a damaged one is refused with a sentence: a run folder is
input like any other.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from neuralcollapse import files

if TYPE_CHECKING:
    from neuralcollapse.measurement import CollapseReport

METRICS = "metrics.csv"
CONFIG = "config.yaml"
SNAPSHOTS = "snapshots"

_COLUMN = re.compile(r"[A-Za-z_][\w .:/+%-]*", re.ASCII)
_GEOMETRY = ("weight", "bias", "class_means", "global_mean")
_SHOWN_CLASSES = 10
_SHOWN_SAMPLES = 20


# ---- metrics.csv -----------------------------------------------------------------------------------


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
    """Accept names of columns: a letter, then letters, digits, spaces and ``_ . : / + % -``.

    Raises:
        ValueError: if one is no such name.
    """
    for name in names:
        if not _COLUMN.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no name of a column: use letters, digits, spaces and _ . : / + % -")


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    for name in header:
        if not _COLUMN.fullmatch(name):
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
    lines = [_line(fields, row) for row in ({name: name for name in fields}, *rows)]
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


# ---- snapshots -------------------------------------------------------------------------------------


def snapshot_of(report: CollapseReport) -> dict[str, Tensor]:
    """Classifier and class means of a measured model, and where a few samples lie among the means (kilobytes).

    Args:
        report: what :func:`neuralcollapse.measure` returned, of a model with a classifier.

    Raises:
        ValueError: if the report has no classifier.
    """
    if report.weight is None:
        raise ValueError("the report has no classifier, whose geometry a snapshot keeps")
    moments = report.moments
    means = moments.means.cpu() * moments.scale
    centre = means[moments.present.cpu()].mean(0)
    bias = torch.zeros(len(means)) if report.bias is None else report.bias
    tensors = {"weight": report.weight, "bias": bias, "class_means": means, "global_mean": centre}
    if report.features is not None and report.labels is not None:
        shown = min(_SHOWN_CLASSES, moments.num_classes)
        rows = torch.cat([(report.labels == label).nonzero().flatten()[:_SHOWN_SAMPLES] for label in range(shown)])
        tensors["sample_products"] = (report.features[rows].double() - centre) @ (means[:shown] - centre).T
        tensors["sample_labels"] = report.labels[rows]
    return tensors


def write_snapshot(folder: str | Path, epoch: int, tensors: Mapping[str, Tensor]) -> None:
    """Keep the geometry of an epoch in snapshots/epoch-NNNN.safetensors: float32 and int32, on the host.

    Args:
        folder: of the run.
        epoch: counted from 1; 0 is before training.
        tensors: ``weight`` (K, d), ``bias`` (K,), ``class_means`` (K, d), ``global_mean`` (d,), and, for the view of
            samples, ``sample_products`` (S, M) with ``sample_labels`` (S,): inner products of centred features with
            the centred means of the first M <= 10 classes, from which any projection onto their span follows.

    Raises:
        WriteError: if it cannot be written.
    """
    single = {
        name: (tensor.detach().float() if tensor.is_floating_point() else tensor.to(torch.int32)).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    path = Path(folder) / SNAPSHOTS / f"epoch-{epoch:04d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, save(single))


def snapshots(folder: str | Path) -> Iterator[tuple[int, Path]]:
    """(epoch, file) of each snapshot of a run, in order."""
    found = [
        (int(match[1]), path)
        for path in (Path(folder) / SNAPSHOTS).glob("epoch-*.safetensors")
        if (match := re.fullmatch(r"epoch-(\d+)", path.stem, re.ASCII))
    ]
    yield from sorted(found)


def read_snapshot(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a snapshot, checked.

    Raises:
        ValueError: if the file is damaged, a tensor is missing, shapes disagree or a number is not finite.
    """
    path = Path(path)
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    missing = [name for name in _GEOMETRY if name not in tensors]
    if missing:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}")
    weight = tensors["weight"]
    classes, dim = weight.shape if weight.ndim == 2 else (0, 0)
    expected = {"bias": (classes,), "class_means": (classes, dim), "global_mean": (dim,)}
    if "sample_products" in tensors:
        expected["sample_labels"] = tuple(tensors["sample_products"].shape[:1])
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape or not classes:
            raise ValueError(f"{path} is damaged: the shapes of weight and {name} disagree")
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} is damaged: {name} holds NaN or infinity")
    return tensors


# ---- config.yaml -----------------------------------------------------------------------------------


def write_config(folder: str | Path, values: Mapping[str, Any]) -> None:
    """Replace config.yaml in one step.

    Raises:
        WriteError: if it cannot be written; the previous file is then unchanged.
    """
    import yaml

    files.write_text(Path(folder) / CONFIG, yaml.safe_dump(dict(values), sort_keys=False))
