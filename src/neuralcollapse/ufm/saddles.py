"""The atlas of critical points: one for each way to lump classes together.

Points with equal rows of W and equal features inside groups of classes are critical for f when they are
critical among themselves (symmetric criticality): minimising there gives a critical point of f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from neuralcollapse.ufm.certificate import Certificate, certify
from neuralcollapse.ufm.problem import UFM, Point

_MORSE_SIZE = 1500
"""Variables up to which all eigenvalues of the Hessian are counted."""


@dataclass(frozen=True)
class CriticalPoint:
    """A critical point, with one feature a class (``problem.expand`` repeats them for all samples)."""

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
    """One critical point a partition shape: m = 1 is the origin's line, m = K the global minimum (d >= K - 1).

    Each is polished by Newton's method to a gradient norm of 1e-10 or less.

    Raises:
        ArithmeticError: if a point cannot be polished that far.
    """
    for shape in partitions(problem.num_classes):
        yield critical_point(problem, shape)


def critical_point(problem: UFM, shape: tuple[int, ...]) -> CriticalPoint:
    """The critical point whose groups of consecutive classes have these sizes.

    Raises:
        ValueError: if the sizes do not add up to K.
        ArithmeticError: if it cannot be polished to a gradient norm of 1e-10.
    """
    if sum(shape) != problem.num_classes or min(shape) < 1:
        raise ValueError(f"shape={shape}: positive sizes that add up to {problem.num_classes} are needed")
    groups = len(shape)
    member = np.repeat(np.eye(groups), shape, axis=0)
    few = UFM(
        problem.num_classes, problem.class_counts.tolist(), min(problem.feature_dim, groups),
        lambda_w=problem.lambda_w, lambda_h=problem.lambda_h, lambda_b=problem.lambda_b,
    ).by_class  # fmt: skip
    d = few.feature_dim
    sizes = (groups * d, d * groups, groups)

    def lift(x: np.ndarray) -> Point:
        w, h, b = np.split(x, np.cumsum(sizes)[:-1])
        return Point(member @ w.reshape(groups, d), h.reshape(d, groups) @ member.T, member @ b)

    def restrict(point: Point) -> np.ndarray:
        return Point(member.T @ point.W, point.H @ member, member.T @ point.b).to_vector()

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = lift(x)
        return few.objective(point), restrict(few.gradient(point))

    start = np.random.default_rng(0).standard_normal(sum(sizes))
    found = minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-9, "ftol": 0}
    ).x
    for _ in range(30):
        gradient = restrict(few.gradient(lift(found)))
        if np.linalg.norm(gradient) < 1e-14:
            break
        hessian = np.stack([restrict(few.hessian_product(lift(found), lift(unit))) for unit in np.eye(len(found))])
        better = found - np.linalg.pinv(hessian, rcond=1e-9, hermitian=True) @ gradient
        if np.linalg.norm(restrict(few.gradient(lift(better)))) >= np.linalg.norm(gradient):
            break
        found = better
    low = lift(found)
    padding = problem.feature_dim - d
    point = Point(np.pad(low.W, ((0, 0), (0, padding))), np.pad(low.H, ((0, padding), (0, 0))), low.b)
    model = problem.by_class
    certificate = certify(model, point)
    if certificate.gradient_norm > 1e-10:
        raise ArithmeticError(f"shape {shape}: the gradient norm stays at {certificate.gradient_norm:.2g}")
    singular = np.linalg.svd(point.W, compute_uv=False)
    rank = int((singular > 1e-7 * max(1.0, singular[0])).sum())
    return CriticalPoint(shape, point, rank, certificate, morse_index(model, point))


def morse_index(model: UFM, point: Point) -> int | None:
    """Number of negative eigenvalues of the Hessian; None for more than 1,500 variables.

    Directions that part the samples of a class have positive curvature at a point that does not part them,
    so the model by class counts all.
    """
    size = len(point.to_vector())
    if size > _MORSE_SIZE:
        return None
    values = np.linalg.eigvalsh(dense_hessian(model, point))
    return int((values < -1e-9).sum())


def dense_hessian(model: UFM, point: Point) -> np.ndarray:
    """The Hessian as a matrix, for small problems."""
    size = len(point.to_vector())
    rows = [model.hessian_product(point, model.point(unit)).to_vector() for unit in np.eye(size)]
    matrix = np.stack(rows)
    return (matrix + matrix.T) / 2
