"""Strict local minima of the unconstrained feature model: reach one, polish it, prove it strict, name its shape."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.spatial import ConvexHull

from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point
from neuralcollapse.ufm.solvers import value_and_gradient_of

POLISHED = 1e-12
"""Gradient norm up to which a point counts as polished."""

_SAME_VALUE = 1e-9
"""Relative difference of the values under which two minima may be one."""

_SAME_SHAPE = 1e-5
"""Difference of sorted entries of WW', relative to the largest, under which they are."""


@dataclass(frozen=True)
class LocalMinimum:
    """A strict local minimum, up to rotations of feature space and permutations of equal classes."""

    point: Point
    """In the coordinates of ``problem.by_class``."""
    value: float
    gradient_norm: float
    zero_eigenvalues: int
    """Eigenvalues of the Hessian within ``margin`` of zero: exactly the symmetries' for a strict minimum."""
    symmetries: int
    """Independent directions along which f cannot change: the rotations, d(d-1)/2, and the bias's shift if λb = 0."""
    least_positive: float
    """The smallest eigenvalue beyond the zeros."""
    margin: float
    """What rounding of the Hessian and the last step of the polishing may have moved an eigenvalue by."""
    hits: int = 1
    """Starts that ended here."""

    @property
    def strict(self) -> bool:
        """Polished, with no zero eigenvalue but the symmetries', and all others positive beyond rounding."""
        polished = self.gradient_norm <= POLISHED and self.least_positive > self.margin
        return polished and self.zero_eigenvalues == self.symmetries

    @property
    def shape(self) -> str:
        """The convex hull of the rows of W: its vertices, and its faces by number of corners."""
        return shape_of(self.point.W)


def descend(model: UFM, start: Point) -> LocalMinimum:
    """Go down to a local minimum, leaving saddles by their most negative direction; polish and judge it."""
    x = start.to_vector()
    evaluate = value_and_gradient_of(model)
    for _ in range(20):
        options = {"maxiter": 3000, "maxfun": 10_000, "gtol": 1e-9, "ftol": 0, "maxcor": 30}
        x = minimize(evaluate, x, jac=True, method="L-BFGS-B", options=options).x
        found = polish(model, model.point(x))
        values, vectors = np.linalg.eigh(model.dense_hessian(found.point))
        if values[0] >= -found.margin:
            return found
        x = found.point.to_vector()
        x = x + 1e-2 * max(1.0, float(np.linalg.norm(x))) * vectors[:, 0]
    return found


def polish(model: UFM, point: Point) -> LocalMinimum:
    """Newton steps across the symmetries until the gradient no longer falls, and the Hessian's eigenvalues there."""
    gradient = model.gradient(point)
    for _ in range(50):
        values, vectors = np.linalg.eigh(model.dense_hessian(point))
        kept = np.abs(values) > 1e-11 * np.abs(values).max()
        along = vectors[:, kept].T @ gradient.to_vector()
        step = vectors[:, kept] @ (along / np.abs(values[kept]))
        better = model.point(point.to_vector() - step)
        slope = model.gradient(better)
        if not slope.norm() < gradient.norm():
            break
        point, gradient = better, slope
    return judge(model, point)


def judge(model: UFM, point: Point) -> LocalMinimum:
    """Value, gradient and eigenvalues at a point, with what rounding may do to them."""
    hessian = model.dense_hessian(point)
    values = np.linalg.eigvalsh(hessian)
    gradient = model.gradient(point).norm()
    size = float(np.abs(values).max())
    tangents = symmetry_directions(model, point)
    count = 0
    if tangents.size:
        singular = np.linalg.svd(tangents, compute_uv=False)
        count = int((singular > 1e-6 * max(float(singular[0]), 1e-3)).sum())
    beyond = np.sort(values)[count:]
    least = float(beyond[0]) if len(beyond) else math.inf
    # Eigenvalues move by rounding of the entries (each a sum of K products), and, as the gradient is not exactly zero,
    # by the curvature's change over the distance gradient/least to the exact minimum.
    rounding = 64 * len(values) * float(np.finfo(float).eps) * size
    margin = rounding + (10 * size * gradient / least if least > 0 else 0.0)
    zeros = int((np.abs(values) <= max(margin, 1e-12 * size)).sum())
    return LocalMinimum(point, model.objective(point), gradient, zeros, count, least, margin)


def symmetry_directions(model: UFM, point: Point) -> Float[np.ndarray, "directions size"]:
    """Directions along which f is constant: rotations of feature space; the bias's shift, without bias decay."""
    d, k = model.feature_dim, model.num_classes
    rows = []
    for i, j in itertools.combinations(range(d), 2):
        turn = np.zeros((d, d))
        turn[i, j], turn[j, i] = 1, -1
        rows.append(Point(point.W @ turn, -turn @ point.H, np.zeros(k)).to_vector())
    if model.bias and model.lambda_b == 0 and np.ptp(model.loss.gradient(np.ones((k, 1)), np.eye(k)[:, :1])) > 0:
        shifted = Point(0 * point.W, 0 * point.H, np.ones(k))
        if np.linalg.norm(model.hessian_product(point, shifted).to_vector()) < 1e-12:
            rows.append(shifted.to_vector())
    return np.array(rows).reshape(len(rows), -1)


def same(first: LocalMinimum, second: LocalMinimum) -> bool:
    """Whether two minima agree in value and in the inner products of their rows of W, up to order."""
    if abs(first.value - second.value) > _SAME_VALUE * max(abs(first.value), abs(second.value)):
        return False
    ours, theirs = (np.sort((found.point.W @ found.point.W.T).ravel()) for found in (first, second))
    return bool(np.abs(ours - theirs).max() <= _SAME_SHAPE * max(1e-12, float(np.abs(ours).max())))


def shape_of(weight: Float[np.ndarray, "K d"]) -> str:
    """Corners and faces of the convex hull of the rows, such as ``5 corners, faces 4x3 + 1x4`` for a square pyramid.

    >>> shape_of(np.array([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0], [0, 0, 1]]))
    '5 corners, faces 4x3 + 1x4'
    """
    singular, axes = np.linalg.svd(weight - weight.mean(0), full_matrices=False)[1:]
    if float(singular[0]) < 1e-9:
        return "one point"
    d = int((singular > 1e-6 * singular[0]).sum())
    k, weight = len(weight), (weight - weight.mean(0)) @ axes[:d].T / singular[0]
    if d == 1:
        return f"{len(np.unique(weight.round(6)))} points on a line"
    hull = ConvexHull(weight)
    inside = k - len(hull.vertices)
    extra = f", {inside} inside" if inside else ""
    if d == 2:
        return f"{len(hull.vertices)} corners{extra}"
    planes: dict[tuple[float, ...], set[int]] = {}
    for equation, simplex in zip(hull.equations, hull.simplices, strict=True):
        known = next((key for key in planes if np.abs(np.array(key) - equation).max() < 1e-4), tuple(equation))
        planes.setdefault(known, set()).update(simplex.tolist())
    sizes = Counter(len(corners) for corners in planes.values())
    faces = " + ".join(f"{number}x{size}" for size, number in sorted(sizes.items()))
    return f"{len(hull.vertices)} corners{extra}, {'faces' if d == 3 else 'facets'} {faces}"
