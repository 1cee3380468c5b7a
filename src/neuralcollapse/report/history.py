"""A run read back for drawing: its curves, and the geometry of its measured epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralcollapse.measurement.run_folder import read_metrics, read_snapshot, snapshots
from neuralcollapse.train.config import TrainConfig

_MOST_FRAMES = 60
_MOST_CLASSES = 20
"""In the heat maps; further classes make cells that nobody can read."""


@dataclass(frozen=True)
class Frame:
    """The geometry of one epoch."""

    epoch: int
    weights: np.ndarray
    """Cosines between the classifier's rows, (K, K)."""
    means: np.ndarray
    """Cosines between the centred class means, (K, K)."""
    duality: np.ndarray
    """Cosines of the classifier's rows (down) with the centred class means (across), (K, K)."""
    mean_points: np.ndarray
    """The chosen classes' means in their own space, aligned with the simplex, (m, 3)."""
    weight_points: np.ndarray
    """The chosen classes' classifier rows in the same space, (m, 3)."""
    sample_points: np.ndarray
    """Features of samples of the chosen classes in the same space, (S, 3)."""
    sample_classes: np.ndarray
    """Position of each sample's class among the chosen, (S,)."""


@dataclass(frozen=True)
class History:
    """What is drawn of a run: its curves and its geometry."""

    name: str
    facts: dict[str, str]
    """What it was, for the summary."""
    metrics: dict[str, list[float | None]]
    """Columns by name; the first is what the curves are drawn against."""
    chosen: tuple[int, ...]
    frames: list[Frame]


def read_history(folder: Path, classes: Sequence[int] = (0, 1, 2, 3)) -> History:
    """Read a run folder for drawing.

    Args:
        folder: made by ``neuralcollapse train``.
        classes: up to four classes for the view in space.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if nothing is measured yet, a file is damaged, or a class is not among those sampled.
    """
    config = TrainConfig.load(folder / "config.yaml")
    rows = [row for row in read_metrics(folder, ("epoch", "nc1", "nc2", "nc3", "nc4")) if row.get("nc1")]
    if not rows:
        raise ValueError(f"{folder} has no measured epoch yet: there is nothing to draw")
    try:
        metrics = {name: [float(row[name]) if row[name] else None for row in rows] for name in rows[0]}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'metrics.csv'} is damaged: {error}") from error
    epochs = {int(row["epoch"]) for row in rows}
    files = [(epoch, path) for epoch, path in snapshots(folder) if epoch in epochs]
    frames = []
    chosen: tuple[int, ...] = ()
    for epoch, path in _thinned(files):
        snapshot = {name: tensor.numpy() for name, tensor in read_snapshot(path).items()}
        if not chosen:
            chosen = _chosen(classes, snapshot)
        frames.append(frame_of(epoch, snapshot, chosen))
    data = config.dataset + (f", {config.samples_per_class} a class" if config.samples_per_class else "")
    facts = {"data": data, "model": str(config.model), "optimizer": config.optimizer, "seed": str(config.seed)}
    return History(folder.name, facts, metrics, chosen, frames)


def simplex(corners: int) -> np.ndarray:
    """Unit vectors from the centre to the corners of a segment, triangle or tetrahedron, (m, 3)."""
    points = {
        2: [[1, 0, 0], [-1, 0, 0]],
        3: [[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]],
        4: [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]],
    }[corners]
    array = np.array(points, dtype=float)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def _thinned(files: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most so many frames; early epochs, when most happens, stay closest together."""
    if len(files) <= _MOST_FRAMES:
        return files
    picks = np.unique(np.round((len(files) - 1) * np.linspace(0, 1, _MOST_FRAMES) ** 1.5).astype(int))
    return [files[pick] for pick in picks]


def _chosen(classes: Sequence[int], snapshot: dict[str, np.ndarray]) -> tuple[int, ...]:
    sampled = snapshot["sample_products"].shape[1] if "sample_products" in snapshot else len(snapshot["weight"])
    if tuple(classes) == (0, 1, 2, 3):  # the default, for however many classes there are
        return tuple(range(min(4, sampled)))
    if not 2 <= len(classes) <= 4 or len(set(classes)) < len(classes) or not all(0 <= c < sampled for c in classes):
        raise ValueError(f"classes={list(classes)}: choose two to four different ones in [0, {sampled})")
    return tuple(classes)


def frame_of(epoch: int, snapshot: dict[str, np.ndarray], chosen: tuple[int, ...]) -> Frame:
    """The geometry of a snapshot as :func:`neuralcollapse.measurement.run_folder.write_snapshot` writes it."""
    weight = snapshot["weight"].astype(float)
    means = snapshot["class_means"].astype(float) - snapshot["global_mean"].astype(float)
    few = slice(0, _MOST_CLASSES)
    rows = list(chosen)
    own = means[rows] - means[rows].mean(0)
    # Coordinates in the span of the chosen means: own = U S V', coordinates x V = x own' U / S.
    left, singular, right = np.linalg.svd(own, full_matrices=False)
    rank = min(len(rows) - 1, len(singular))
    left, singular, right = left[:, :rank], np.maximum(singular[:rank], 1e-12), right[:rank]
    ideal = simplex(len(rows))
    u, _, v = np.linalg.svd((left * singular).T @ ideal, full_matrices=False)
    turn = u @ v
    size = max(float(np.linalg.norm(own, axis=1).mean()), 1e-12)
    mean_points = (left * singular) @ turn / size
    weight_points = (weight[rows] - weight[rows].mean(0)) @ right.T @ turn
    weight_points /= max(float(np.linalg.norm(weight_points, axis=1).mean()), 1e-12)
    sample_points, sample_classes = np.zeros((0, 3)), np.zeros(0, dtype=int)
    if "sample_products" in snapshot:
        kept = np.isin(snapshot["sample_labels"], rows)
        sample_classes = np.array([rows.index(label) for label in snapshot["sample_labels"][kept]], dtype=int)
        products = snapshot["sample_products"][kept].astype(float)[:, rows]
        products = products - means[rows].mean(0) @ means[rows].T
        products = products - products.mean(1, keepdims=True)
        sample_points = products @ left / singular @ turn / size
    return Frame(
        epoch,
        _cosines(weight[few], weight[few]),
        _cosines(means[few], means[few]),
        _cosines(weight[few], means[few]),
        mean_points,
        weight_points,
        sample_points,
        sample_classes,
    )


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)

    return unit(left) @ unit(right).T
