"""The atlas of critical points: one for each way to group classes.

Points with equal rows of W and equal features inside groups of classes are critical for f when they are
critical among themselves (symmetric criticality): minimising there gives a critical point of f.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from neuralcollapse.ufm.certificate import Certificate, certify
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point
from neuralcollapse.ufm.solvers.coordinates import Balanced

SPECTRUM_SIZE = 1500
"""Variables up to which all eigenvalues of the Hessian are counted."""


@dataclass(frozen=True)
class CriticalPoint:
    """A critical point, with one feature per class (``problem.expand`` repeats them for all samples)."""

    shape: tuple[int, ...]
    """Sizes of the groups of classes that the point does not tell apart."""
    point: Point
    """In the coordinates of ``problem.by_class``."""
    rank: int
    """Of W."""
    certificate: Certificate
    """Value, gradient norm, distance to the global minimum and verdict."""
    morse_index: int | None
    """Number of negative eigenvalues of the Hessian; None for a large problem."""

    def __str__(self) -> str:
        index = "?" if self.morse_index is None else self.morse_index
        found = self.certificate
        return (
            f"{'+'.join(map(str, self.shape)):<16} rank {self.rank:<4} value {found.value:<14.9g} "
            f"gradient {found.gradient_norm:<9.2g} index {index:<5} {found.verdict.value}"
        )


def partitions(total: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Ways to write a number as a sum of falling parts, the one part first.

    >>> list(partitions(4))
    [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    """
    if total == 0:
        yield ()
        return
    for part in range(min(total, largest or total), 0, -1):
        for rest in partitions(total - part, part):
            yield (part, *rest)


def saddles(problem: UFM) -> Iterator[CriticalPoint]:
    """One critical point for each way to group classes of equal size, and the origin.

    With equal classes these are the partition shapes of K: all in one group is the origin, each for itself the
    global minimum (d >= K - 1). Classes of different size are not lumped: that is no symmetry of f. Each
    point is polished by Newton's method to a gradient norm of 1e-10 or less.

    Raises:
        ValueError: if features are nonnegative: with an edge, symmetric points need not be critical.
        ArithmeticError: if a point cannot be polished that far.
    """
    if problem.nonnegative:
        raise ValueError("nonnegative features have no atlas of critical points: leave them free, or use solve()")
    everything = tuple(range(problem.num_classes))
    yield critical_point(problem, (everything,))
    sizes = np.unique(problem.class_counts)[::-1]
    alike = [np.flatnonzero(problem.class_counts == size) for size in sizes]
    for shapes in itertools.product(*(partitions(len(classes)) for classes in alike)):
        groups: list[tuple[int, ...]] = []
        for classes, shape in zip(alike, shapes, strict=True):
            parts = np.split(classes, np.cumsum(shape)[:-1])
            groups += [tuple(int(member) for member in part) for part in parts]
        if len(groups) > 1:
            yield critical_point(problem, tuple(groups))


def critical_point(problem: UFM, groups: tuple[tuple[int, ...], ...]) -> CriticalPoint:
    """The critical point that does not tell apart the classes of a group; one group is the origin.

    Raises:
        ValueError: if the groups are no partition of the classes, or lump classes of different size.
        ArithmeticError: if it cannot be polished to a gradient norm of 1e-10.
    """
    k = problem.num_classes
    if sorted(member for group in groups for member in group) != list(range(k)):
        raise ValueError(f"groups={groups} are no partition of the classes 0 to {k - 1}")
    if len(groups) > 1 and any(len(set(problem.class_counts[list(group)])) > 1 for group in groups):
        raise ValueError(f"groups={groups} lump classes of different size, which is no symmetry of the model")
    low = _least(problem, groups)
    padding = problem.feature_dim - low.W.shape[1]
    point = Point(np.pad(low.W, ((0, 0), (0, padding))), np.pad(low.H, ((0, padding), (0, 0))), low.b)
    model = problem.by_class
    certificate = certify(model, point)
    if certificate.gradient_norm > 1e-10:
        raise ArithmeticError(f"groups {groups}: the gradient norm stays at {certificate.gradient_norm:.2g}")
    singular = np.linalg.svd(point.W, compute_uv=False)
    rank = int((singular > 1e-7 * max(1.0, singular[0])).sum())
    shape = tuple(len(group) for group in groups)
    return CriticalPoint(shape, point, rank, certificate, morse_index(model, point))


def _least(problem: UFM, groups: tuple[tuple[int, ...], ...]) -> Point:
    """Minimise f over the points that treat the classes of a group alike, in as few dimensions as they need."""
    k, m = problem.num_classes, len(groups)
    few = problem.replace(feature_dim=min(problem.feature_dim, m)).by_class
    d = few.feature_dim
    if m == 1:  # the origin: rotations fix W = 0 and H = 0, and the bias fits the class sizes
        frame, member = np.zeros((k, 1)), np.eye(k)
    else:
        frame = np.zeros((k, m))
        for index, group in enumerate(groups):
            frame[list(group), index] = 1
        member = frame
    cuts = (m * d, 2 * m * d)

    def lift(x: np.ndarray) -> Point:
        w, h, b = np.split(x, cuts)
        return Point(frame @ w.reshape(m, d), h.reshape(d, m) @ frame.T, member @ b)

    def restrict(point: Point) -> np.ndarray:
        return np.concatenate([(frame.T @ point.W).ravel(), (point.H @ frame).ravel(), member.T @ point.b])

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = lift(x)
        return few.objective(point), restrict(few.gradient(point))

    start = np.random.default_rng(0).standard_normal(cuts[1] + member.shape[1])
    start[cuts[1] :] *= problem.bias
    options = {"maxiter": 5000, "gtol": 1e-9, "ftol": 0}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x
    for _ in range(30):
        gradient = value_and_gradient(found)[1]
        hessian = np.stack([restrict(few.hessian_product(lift(found), lift(unit))) for unit in np.eye(len(found))])
        better = found - np.linalg.pinv(hessian, rcond=1e-9, hermitian=True) @ gradient
        if np.linalg.norm(value_and_gradient(better)[1]) >= np.linalg.norm(gradient):
            break
        found = better
    return lift(found)


def morse_index(model: UFM, point: Point) -> int | None:
    """Number of negative eigenvalues of the Hessian; None for more than 1,500 variables.

    Directions that part the samples of a class have positive curvature at a point that does not part them,
    so the model by class counts all.
    """
    size = len(point.to_vector())
    if size > SPECTRUM_SIZE:
        return None
    # Sylvester: in balanced coordinates as many are negative, and τ is the unit of all.
    space = Balanced(model)
    values = np.linalg.eigvalsh(space.dense_hessian(space.vector(point)))
    margin = max(1e-6 * model.tau, 1e3 * np.finfo(float).eps * np.abs(values).max())
    return int((values < -margin).sum())
