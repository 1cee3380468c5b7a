r"""The unconstrained feature model: objective, gradient and Hessian in closed form.

Zhu et al. (NeurIPS 2021), equation (4): with free features H and one-hot labels,

.. math:: f(W, H, b) = \frac1N \sum_i CE(W h_i + b, y_i)
          + \frac{λ_W}2 \|W\|^2 + \frac{λ_H}2 \|H\|^2 + \frac{λ_b}2 \|b\|^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.linalg import LinearOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralcollapse.ufm.certificate import Certificate, Direction
    from neuralcollapse.ufm.saddles import CriticalPoint
    from neuralcollapse.ufm.solvers import Solution

_BLOCK = 1 << 16
"""Columns of logits held at once."""


@dataclass(frozen=True)
class Point:
    """A point of the model: classifier W (K, d), features H (d, M), bias b (K,). Columns class by class."""

    W: Float[np.ndarray, "K d"]
    H: Float[np.ndarray, "d M"]
    b: Float[np.ndarray, "K"]

    def to_vector(self) -> Float[np.ndarray, "size"]:
        """W, H and b one after the other, in rows."""
        return np.concatenate([self.W.ravel(), self.H.ravel(), self.b])

    def __add__(self, other: Point) -> Point:
        return Point(self.W + other.W, self.H + other.H, self.b + other.b)

    def __rmul__(self, factor: float) -> Point:
        return Point(factor * self.W, factor * self.H, factor * self.b)

    def norm(self) -> float:
        """Euclidean norm over all entries."""
        return math.sqrt(float((self.W**2).sum() + (self.H**2).sum() + (self.b**2).sum()))


class UFM:
    """The unconstrained feature model of Zhu et al., equation (4).

    Args:
        num_classes: K, at least 2.
        samples_per_class: n, or one positive number a class.
        feature_dim: d, at least 1.
        lambda_w: weight decay of the classifier, positive.
        lambda_h: weight decay of the features, positive.
        lambda_b: weight decay of the bias, zero or positive.

    Raises:
        ValueError: naming the argument, its value and the constraint.

    >>> model = UFM(4, 10, 4, lambda_w=5e-3, lambda_h=5e-4)
    >>> solution = model.global_optimum()
    >>> model.certify(solution.point).verdict.value
    'globally optimal'
    """

    def __init__(
        self,
        num_classes: int,
        samples_per_class: int | Sequence[int],
        feature_dim: int,
        *,
        lambda_w: float,
        lambda_h: float,
        lambda_b: float = 0.0,
    ) -> None:
        counts = np.asarray(samples_per_class)
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes} must be at least 2")
        if counts.ndim > 1 or (counts.ndim == 1 and len(counts) != num_classes):
            raise ValueError(f"samples_per_class has shape {counts.shape}: give one number, or {num_classes}")
        if not np.issubdtype(counts.dtype, np.integer) or (counts < 1).any():
            raise ValueError(f"samples_per_class={samples_per_class} must be positive whole numbers")
        if feature_dim < 1:
            raise ValueError(f"feature_dim={feature_dim} must be at least 1")
        for name, value in (("lambda_w", lambda_w), ("lambda_h", lambda_h)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} must be positive and finite: without it there is no minimiser")
        if not (lambda_b >= 0 and math.isfinite(lambda_b)):
            raise ValueError(f"lambda_b={lambda_b} must be zero or positive, and finite")
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.lambda_w, self.lambda_h, self.lambda_b = float(lambda_w), float(lambda_h), float(lambda_b)
        self.class_counts: Int[np.ndarray, "K"] = np.broadcast_to(counts, num_classes).astype(np.int64)
        self.total = int(self.class_counts.sum())
        # Each column of H stands for so many equal samples of its class.
        self.labels: Int[np.ndarray, "M"] = np.repeat(np.arange(num_classes), self.class_counts)
        self.weights: Float[np.ndarray, "M"] = np.ones(self.total)

    @cached_property
    def by_class(self) -> UFM:
        """The same objective with one feature a class, which stands for all samples of the class.

        For fixed W and b, f is strictly convex in each feature and alike for all of a class. So averaging
        features within classes never raises f, and all critical points lie in this smaller model.
        """
        model = UFM.__new__(UFM)
        model.__dict__.update({name: value for name, value in self.__dict__.items() if name != "by_class"})
        model.labels = np.arange(self.num_classes)
        model.weights = self.class_counts.astype(float)
        return model

    @property
    def tau(self) -> float:
        """τ = sqrt(λW λH): the threshold of the optimality test (Lemma C.4)."""
        return math.sqrt(self.lambda_w * self.lambda_h)

    @property
    def balanced(self) -> bool:
        """Whether all classes have equally many samples."""
        return bool((self.class_counts == self.class_counts[0]).all())

    # ---- points ----------------------------------------------------------------------------------

    def point(self, vector: Float[np.ndarray, "size"]) -> Point:
        """The inverse of :meth:`Point.to_vector`."""
        k, d, m = self.num_classes, self.feature_dim, len(self.labels)
        return Point(
            vector[: k * d].reshape(k, d), vector[k * d : k * d + d * m].reshape(d, m), vector[k * d + d * m :]
        )

    def random_point(self, seed: int | np.random.Generator = 0, scale: float = 1.0) -> Point:
        """Normally distributed W and H of the given scale, and b = 0."""
        rng = np.random.default_rng(seed)
        k, d, m = self.num_classes, self.feature_dim, len(self.labels)
        return Point(scale * rng.standard_normal((k, d)), scale * rng.standard_normal((d, m)), np.zeros(k))

    def expand(self, point: Point) -> Point:
        """A point of :attr:`by_class` with the features repeated for every sample."""
        return Point(point.W, np.repeat(point.H, self.class_counts, axis=1), point.b)

    def average(self, point: Point) -> Point:
        """The point of :attr:`by_class` whose features are the class means of this point's."""
        sums = np.zeros((self.num_classes, self.feature_dim))
        np.add.at(sums, self.labels, (self.weights * point.H).T)
        return Point(point.W, sums.T / self.class_counts, point.b)

    def check(self, point: Point) -> Point:
        """Return the point, or say what is wrong with it.

        Raises:
            ValueError: if shapes disagree or an entry is not finite.
        """
        k, d, m = self.num_classes, self.feature_dim, len(self.labels)
        for name, shape in (("W", (k, d)), ("H", (d, m)), ("b", (k,))):
            array = getattr(point, name)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}: this model needs {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has NaN or infinite entries")
        return point

    # ---- closed forms ----------------------------------------------------------------------------

    def blocks(self, point: Point) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Blocks of columns with their softmax P (K, block) and cross-entropies (block,)."""
        for start in range(0, len(self.labels), _BLOCK):
            part = slice(start, min(start + _BLOCK, len(self.labels)))
            logits = point.W @ point.H[:, part] + point.b[:, None]
            logits -= logits.max(0)
            exponentials = np.exp(logits)
            sums = exponentials.sum(0)
            entropy = np.log(sums) - logits[self.labels[part], np.arange(part.stop - start)]
            yield part, exponentials / sums, entropy

    def residuals(self, point: Point) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of columns of (P - Y)/N, the gradient with respect to a sample's logits."""
        for part, softmax, _ in self.blocks(point):
            softmax[self.labels[part], np.arange(softmax.shape[1])] -= 1
            yield part, softmax / self.total

    def objective(self, point: Point) -> float:
        """f, equation (4). Safe from overflow at logits of any size."""
        loss = sum(float(self.weights[part] @ entropy) for part, _, entropy in self.blocks(point)) / self.total
        squares = self.lambda_w * (point.W**2).sum() + self.lambda_h * (self.weights * point.H**2).sum()
        return float(loss + (squares + self.lambda_b * (point.b**2).sum()) / 2)

    def gradient(self, point: Point) -> Point:
        """Gradient of f, as a point."""
        gradient = Point(
            self.lambda_w * point.W, self.lambda_h * self.weights * point.H, self.lambda_b * point.b.astype(float)
        )
        for part, residual in self.residuals(point):
            residual *= self.weights[part]
            gradient.W[:] += residual @ point.H[:, part].T
            gradient.H[:, part] += point.W.T @ residual
            gradient.b[:] += residual.sum(1)
        return gradient

    def hessian_product(self, point: Point, direction: Point) -> Point:
        """The Hessian of f at a point, applied to a direction."""
        product = Point(
            self.lambda_w * direction.W, self.lambda_h * self.weights * direction.H, self.lambda_b * direction.b
        )
        for part, softmax, _ in self.blocks(point):
            weights = self.weights[part] / self.total
            features, turned = point.H[:, part], direction.H[:, part]
            change = direction.W @ features + point.W @ turned + direction.b[:, None]
            second = softmax * change
            second = (second - softmax * second.sum(0)) * weights
            softmax[self.labels[part], np.arange(softmax.shape[1])] -= 1
            residual = softmax * weights
            product.W[:] += second @ features.T + residual @ turned.T
            product.H[:, part] += point.W.T @ second + direction.W.T @ residual
            product.b[:] += second.sum(1)
        return product

    def hessian(self, point: Point) -> LinearOperator:
        """The Hessian at a point as a SciPy operator on :meth:`Point.to_vector`; work and memory linear in N."""
        size = len(point.to_vector())

        def product(vector: np.ndarray) -> np.ndarray:
            return self.hessian_product(point, self.point(np.ravel(vector))).to_vector()

        return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)

    # ---- the theory ------------------------------------------------------------------------------

    def global_optimum(self) -> Solution:
        """Theorem 3.1 in closed form; see :func:`neuralcollapse.ufm.optimum.global_optimum`."""
        from neuralcollapse.ufm.optimum import global_optimum

        return global_optimum(self)

    def certify(self, point: Point, *, tol: float = 1e-6) -> Certificate:
        """How far from optimal, proved; see :func:`neuralcollapse.ufm.certificate.certify`."""
        from neuralcollapse.ufm.certificate import certify

        return certify(self, point, tol=tol)

    def descent_direction(self, point: Point) -> Direction:
        """Theorem 3.2's way down; see :func:`neuralcollapse.ufm.certificate.descent_direction`."""
        from neuralcollapse.ufm.certificate import descent_direction

        return descent_direction(self, point)

    def saddles(self) -> Iterator[CriticalPoint]:
        """The atlas of critical points; see :func:`neuralcollapse.ufm.saddles.saddles`."""
        from neuralcollapse.ufm.saddles import saddles

        return saddles(self)

    def solve(self, **options: Any) -> Solution:
        """Minimise, ending with a certificate; see :func:`neuralcollapse.ufm.solvers.solve`."""
        from neuralcollapse.ufm.solvers import solve

        return solve(self, **options)

    def __repr__(self) -> str:
        counts = self.class_counts[0] if self.balanced else self.class_counts.tolist()
        return (
            f"UFM({self.num_classes}, {counts}, {self.feature_dim}, lambda_w={self.lambda_w}, "
            f"lambda_h={self.lambda_h}, lambda_b={self.lambda_b})"
        )
