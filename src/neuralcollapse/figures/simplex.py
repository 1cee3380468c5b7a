"""Class means, classifier rows and samples in the space that the means of a few classes span.

Two, three or four classes span a line, a plane or a space. Let G be the Gram matrix of their means, centred among
themselves. The rows of its symmetric square root are coordinates of the means in the hyperplane of vectors that sum
to zero, and of all rotations of them these lie nearest to the corners of the simplex (orthogonal Procrustes: the
cross product of coordinates and corners is G^(1/2), which is positive semidefinite, so the best rotation is none).
A vector x with inner products p = (x.m_1, ..., x.m_m) has the coordinates G^(-1/2) p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralcollapse.figures.cosines import cosines, matrix_of
from neuralcollapse.figures.look import colour, label, laid_out

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_CLASSES = 20
"""In cosine maps; more classes make cells that nobody can read."""
MOST_SHOWN = 4
"""Corners of a simplex in three dimensions."""
PARTS = ("samples", "mean", "weight")
"""What is drawn of each class, in this order."""


@dataclass(frozen=True)
class Frame:
    """The geometry of one moment, as inner products: enough to draw any choice of classes."""

    epoch: int
    weights: np.ndarray
    """Cosines between the classifier's rows, (C, C) for the first C classes."""
    means: np.ndarray
    """Cosines between the centred class means, (C, C)."""
    duality: np.ndarray
    """Cosines of the classifier's rows (down) with the centred class means (across), (C, C)."""
    gram: np.ndarray
    """Inner products of the centred class means, (M, M) for the first M classes."""
    weight_products: np.ndarray
    """Inner products of the classifier's rows with the centred class means, (M, M)."""
    sample_products: np.ndarray
    """Inner products of centred features with the centred class means, (S, M)."""
    sample_labels: np.ndarray
    """Class of each sample, (S,)."""
    present: np.ndarray
    """Whether each class has samples, (K,)."""

    @property
    def classes(self) -> int:
        """Classes that have samples: the corners of the simplex."""
        return int(self.present.sum())


@dataclass(frozen=True)
class Points:
    """Coordinates of the chosen classes; the mean distance of their means from the origin is one."""

    means: np.ndarray
    """(m, 3)"""
    weights: np.ndarray
    """Classifier rows, projected onto the space of the means, scaled by their own mean length, (m, 3)."""
    samples: np.ndarray
    """(S, 3)"""
    classes: np.ndarray
    """Position of each sample's class among the chosen, (S,)."""


def frame_of(
    epoch: int,
    weight: np.ndarray,
    means: np.ndarray,
    centre: np.ndarray,
    sample_products: np.ndarray | None = None,
    sample_labels: np.ndarray | None = None,
    present: np.ndarray | None = None,
) -> Frame:
    """The geometry of class means (K, d), a classifier (K, d), and the products of a few samples (S, M).

    ``present`` (K,) is false for a class without samples, which has no cosines; by default no class is.
    """
    present = np.ones(len(means), dtype=bool) if present is None else present.astype(bool)
    weight = weight.astype(float)
    means = means.astype(float) - centre.astype(float)
    few = slice(0, MOST_CLASSES)
    if sample_products is None or sample_labels is None:
        sample_products, sample_labels = np.zeros((0, min(len(means), MOST_CLASSES))), np.zeros(0, dtype=int)
    part = means[: sample_products.shape[1]]
    known = np.where(present[few], 1.0, np.nan)
    return Frame(
        epoch,
        cosines(weight[few], weight[few]) * np.outer(known, known),
        cosines(means[few], means[few]) * np.outer(known, known),
        cosines(weight[few], means[few]) * np.outer(known, known),
        part @ part.T,
        weight[: len(part)] @ part.T,
        sample_products.astype(float),
        sample_labels.astype(int),
        present,
    )


def points_of(frame: Frame, chosen: Sequence[int]) -> Points:
    """Coordinates of the chosen classes in the span of their means, turned onto the simplex."""
    rows = list(chosen)
    gram = _centred(frame.gram[np.ix_(rows, rows)])
    root, inverse = _roots(gram)
    corners = simplex(len(rows)) * np.sqrt(1 - 1 / len(rows))  # an isometry from the vectors that sum to zero
    means = root @ corners
    size = _mean_length(means)
    weights = _centred(frame.weight_products[np.ix_(rows, rows)]) @ inverse @ corners
    kept = np.isin(frame.sample_labels, rows)
    products = frame.sample_products[kept][:, rows] - frame.gram[np.ix_(rows, rows)].mean(0)
    products = products - products.mean(1, keepdims=True)
    return Points(
        means / size,
        weights / _mean_length(weights),
        products @ inverse @ corners / size,
        np.array([rows.index(found) for found in frame.sample_labels[kept]], dtype=int),
    )


def simplex(corners: int) -> np.ndarray:
    """Unit vectors from the centre to the corners of a segment, triangle or tetrahedron, (m, 3).

    >>> (simplex(4) @ simplex(4).T).round(3)[0].tolist()
    [1.0, -0.333, -0.333, -0.333]
    """
    if corners == 2:
        points = [[1.0, 0, 0], [-1, 0, 0]]
    elif corners == 3:
        points = [[0, 1.0, 0], [0, -1 / 2, -(3**0.5) / 2], [0, -1 / 2, 3**0.5 / 2]]
    else:
        base = [[2**0.5, 0], [-(0.5**0.5), 1.5**0.5], [-(0.5**0.5), -(1.5**0.5)]]
        points = [[0, 0, 1.0], *([x * 2 / 3, y * 2 / 3, -1 / 3] for x, y in base)]
    return np.array(points, dtype=float)


def plot_simplex(
    means: Any, weight: Any, features: Any = None, labels: Any = None, *, classes: Sequence[int] | None = None
) -> go.Figure:
    """Draw the means, classifier rows and samples of up to four classes beside the simplex they should form.

    Args:
        means: class means, (K, d).
        weight: classifier W, (K, d).
        features: samples to draw, (N, d); needs labels.
        labels: class of each sample, (N,).
        classes: two to four classes; by default the first four, without those whose mean is zero as they have no
            samples.

    Raises:
        ValueError: if the classes are not two to four different ones, shapes disagree, an entry is not finite, or
            features are given without labels.

    >>> len(plot_simplex(np.eye(4), np.eye(4)).data)  # the edges, and three parts of each class
    13
    """
    means, weight = matrix_of(means, "means"), matrix_of(weight, "weight")
    if means.shape != weight.shape:
        raise ValueError(f"weight has shape {weight.shape} and means {means.shape}: both must be (K, d)")
    features, labels = _samples(features, labels, means.shape[1])
    present = means.any(1) if means.any() else np.ones(len(means), dtype=bool)
    chosen = list(chosen_classes(classes, present))
    centre = means[present].mean(0)
    drawn = means[chosen] - centre
    kept = np.isin(labels, chosen)
    places = np.array([chosen.index(label) for label in labels[kept]], dtype=int)
    products = (features[kept] - centre) @ drawn.T
    frame = frame_of(0, weight[chosen], means[chosen], centre, products, places)
    return space_figure(frame, range(len(chosen)), [f"class {number}" for number in chosen])


def chosen_classes(classes: Sequence[int] | None, present: np.ndarray) -> tuple[int, ...]:
    """The classes to draw; by default the first four that have samples.

    Args:
        classes: as the user gave them.
        present: whether each class that can be drawn has samples.

    Raises:
        ValueError: if they are not two to four different ones among those available.
    """
    available = len(present)
    if classes is None:
        sampled = np.flatnonzero(present).tolist()
        return tuple((sampled if len(sampled) > 1 else range(available))[:MOST_SHOWN])
    if (
        not 2 <= len(classes) <= MOST_SHOWN
        or len(set(classes)) < len(classes)
        or not all(0 <= c < available for c in classes)
    ):
        raise ValueError(f"classes={list(classes)}: choose two to four different ones in [0, {available})")
    return tuple(classes)


def space_figure(frame: Frame, chosen: Sequence[int], names: Sequence[str] | None = None) -> go.Figure:
    """The simplex, and on their way to it the samples, means and classifier rows of the chosen classes."""
    import plotly.graph_objects as go

    figure = go.Figure()
    corners = simplex(len(chosen))
    edges: list[list[float | None]] = [[], [], []]
    for first in range(len(chosen)):
        for second in range(first):
            for axis in range(3):
                edges[axis] += [corners[first, axis], corners[second, axis], None]
    figure.add_scatter3d(
        x=edges[0], y=edges[1], z=edges[2], mode="lines", name="simplex ETF",
        line={"color": "#8a8f98", "width": 4}, hoverinfo="skip",
    )  # fmt: skip
    points = points_of(frame, chosen)
    for index, number in enumerate(chosen):
        name = label(names[number] if names else f"class {number}")
        drawn = {
            "samples": points.samples[points.classes == index],
            "mean": points.means[index : index + 1],
            "weight": np.stack([np.zeros(3), points.weights[index]]),
        }
        for part in PARTS:
            size = {"samples": 4, "mean": 10, "weight": 0}[part]
            x, y, z = drawn[part].round(4).T.tolist()
            figure.add_scatter3d(
                x=x, y=y, z=z, mode="lines" if part == "weight" else "markers",
                name=name if part == "mean" else part, legendgroup=str(index), showlegend=part == "mean",
                marker={"size": size, "color": colour(index), "opacity": 0.6 if part == "samples" else 1},
                line={"color": colour(index), "width": 6}, hovertemplate=f"{name}, {part}<extra></extra>",
            )  # fmt: skip
    # The corners reach from -1/3 to 1: the camera looks a little above the origin, so that they fill the box evenly.
    camera = {
        "eye": {"x": 1.5, "y": 0.55, "z": 0.57},
        "center": {"x": 0, "y": 0, "z": 0.12},
        "projection": {"type": "orthographic"},
    }
    axes = {f"{axis}axis": {"visible": False, "range": [-1.6, 1.6]} for axis in "xyz"}
    scene = axes | {"aspectmode": "manual", "aspectratio": dict.fromkeys("xyz", 2.6), "camera": camera}
    figure.update_layout(scene=scene, uirevision="kept", legend={"orientation": "h", "y": 0})
    laid_out(figure, 480)
    figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 0})
    return figure


def _centred(products: np.ndarray) -> np.ndarray:
    """Products of vectors centred among themselves, on both sides."""
    return products - products.mean(0) - products.mean(1, keepdims=True) + products.mean()


def _roots(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric square root and its pseudoinverse; directions without variation have none."""
    values, vectors = np.linalg.eigh(gram)
    present = values > max(1e-10 * float(values.max()), 1e-300)
    roots = np.sqrt(np.where(present, values, 0))
    inverse = np.divide(1, roots, out=np.zeros_like(roots), where=present)
    return (vectors * roots) @ vectors.T, (vectors * inverse) @ vectors.T


def _mean_length(points: np.ndarray) -> float:
    return max(float(np.linalg.norm(points, axis=1).mean()), 1e-12)


def _samples(features: Any, labels: Any, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples to draw and their classes; none where none were given."""
    if (features is None) != (labels is None):
        there, missing = ("labels", "features") if features is None else ("features", "labels")
        raise ValueError(f"{there} without {missing}: give both, or neither")
    if features is None:
        return np.zeros((0, dim)), np.zeros(0, dtype=int)
    drawn = np.asarray(features.detach().cpu().double() if hasattr(features, "detach") else features, dtype=float)
    classes = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    if drawn.ndim != 2 or drawn.shape[1] != dim or classes.shape != drawn.shape[:1]:
        raise ValueError(f"features have shape {drawn.shape} and labels {classes.shape}: expected (N, {dim}) and (N,)")
    if not np.isfinite(drawn).all():
        raise ValueError("features have non-finite entries (NaN or infinity)")
    return drawn, classes
