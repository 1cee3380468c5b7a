r"""The unconstrained feature model: objective, gradient and Hessian in closed form.

Zhu et al. (NeurIPS 2021), equation (4), for any loss: with free features H and one-hot targets,

.. math:: f(W, H, b) = \frac1N \sum_i \ell(W h_i + b, y_i)
          + \frac{λ_W}2 \|W\|^2 + \frac{λ_H}2 \|H\|^2 + \frac{λ_b}2 \|b\|^2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.linalg import LinearOperator

from neuralcollapse.ufm import objective
from neuralcollapse.ufm.arguments import as_point, counts, decays, fitting, whole
from neuralcollapse.ufm.losses import Loss, resolve_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralcollapse.ufm.certificate import Certificate, Direction
    from neuralcollapse.ufm.saddles import CriticalPoint
    from neuralcollapse.ufm.solution import Point, Solution

_MOST_SAMPLES = 1 << 30
"""Samples up to which each can have a column of its own."""


class UFM:
    """The unconstrained feature model of Zhu et al., equation (4).

    Args:
        num_classes: K, at least 2.
        samples_per_class: n, or one positive number per class.
        feature_dim: d, at least 1.
        lambda_w: weight decay of the classifier, positive.
        lambda_h: weight decay of the features, positive.
        lambda_b: weight decay of the bias, zero or positive.
        loss: ``cross_entropy``, ``label_smoothing``, ``focal``, ``mse`` or ``binary_cross_entropy``, or an object of
            :mod:`neuralcollapse.ufm.losses`, such as ``Focal(3.0)``.
        bias: whether there is a bias at all.
        nonnegative: whether features must be nonnegative, as after a ReLU.

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
        loss: str | Loss = "cross_entropy",
        bias: bool = True,
        nonnegative: bool = False,
    ) -> None:
        self.num_classes = whole("num_classes", num_classes, least=2)
        self.feature_dim = whole("feature_dim", feature_dim, least=1)
        self.class_counts: Int[np.ndarray, " K"] = counts(samples_per_class, self.num_classes)
        self.total = int(self.class_counts.sum())
        self.lambda_w, self.lambda_h = decays(lambda_w, lambda_h)
        if not (lambda_b >= 0 and math.isfinite(lambda_b)):
            raise ValueError(f"lambda_b={lambda_b} must be zero or positive, and finite (bias=False leaves it out)")
        self.lambda_b = float(lambda_b)
        self.loss = resolve_loss(loss)
        self.bias, self.nonnegative = bool(bias), bool(nonnegative)

    def replace(self, **changes: Any) -> UFM:
        """The same model with some arguments changed, such as ``feature_dim=5``."""
        names = ("num_classes", "feature_dim", "lambda_w", "lambda_h", "lambda_b", "loss", "bias", "nonnegative")
        arguments = {name: getattr(self, name) for name in names}
        return UFM(**{**arguments, "samples_per_class": self.class_counts.tolist(), **changes})

    @cached_property
    def labels(self) -> Int[np.ndarray, " M"]:
        """The class of each column of H.

        Raises:
            ValueError: if there are too many samples for a column each.
        """
        if self.total > _MOST_SAMPLES:
            raise ValueError(
                f"{self.total} samples are too many for one feature each: work with `by_class`, where one feature "
                "stands for all samples of a class"
            )
        return np.repeat(np.arange(self.num_classes), self.class_counts)

    @cached_property
    def weights(self) -> Float[np.ndarray, " M"]:
        """How many equal samples of its class each column of H stands for."""
        return np.ones(len(self.labels))

    @cached_property
    def by_class(self) -> UFM:
        """The same objective with one feature per class, which stands for all samples of the class.

        For fixed W and b, f is strictly convex in each feature and alike for all of a class, if the loss is convex. So
        averaging features within classes never raises f, and all critical points lie in this smaller model.
        """
        model = copy.copy(self)
        model.labels = np.arange(self.num_classes)
        model.weights = self.class_counts.astype(float)
        return model

    @property
    def tau(self) -> float:
        """τ = sqrt(λW λH): the threshold of the optimality test (Lemma C.4)."""
        return math.sqrt(self.lambda_w) * math.sqrt(self.lambda_h)

    @property
    def balanced(self) -> bool:
        """Whether all classes have equally many samples."""
        return bool((self.class_counts == self.class_counts[0]).all())

    # ---- points ----------------------------------------------------------------------------------

    def point(self, vector: Float[np.ndarray, " size"]) -> Point:
        """The inverse of :meth:`Point.to_vector`."""
        from neuralcollapse.ufm.solution import Point

        k, d, m = self.num_classes, self.feature_dim, len(self.labels)
        return Point(
            vector[: k * d].reshape(k, d), vector[k * d : k * d + d * m].reshape(d, m), vector[k * d + d * m :]
        )

    def random_point(self, seed: int | np.random.Generator = 0, scale: float = 1.0) -> Point:
        """Normally distributed W and H of the given scale, and b = 0; absolute values of H if it is nonnegative."""
        rng = np.random.default_rng(seed)
        k, d, m = self.num_classes, self.feature_dim, len(self.labels)
        weight, features = scale * rng.standard_normal((k, d)), scale * rng.standard_normal((d, m))
        features = np.abs(features) if self.nonnegative else features
        return self.point(np.concatenate([weight.ravel(), features.ravel(), np.zeros(k)]))

    def expand(self, point: Point) -> Point:
        """A point of :attr:`by_class` with the features repeated for every sample."""
        return replace(point, H=point.H[:, self.labels])

    def average(self, point: Point) -> Point:
        """The point of :attr:`by_class` whose features are the class means of this point's."""
        sums = np.zeros((self.num_classes, self.feature_dim))
        np.add.at(sums, self.labels, (self.weights * point.H).T)
        return replace(point, H=sums.T / self.class_counts)

    def check(self, point: Point) -> Point:
        """Return the point, or say what is wrong with it.

        Raises:
            ValueError: if shapes disagree, an entry is not finite, or the model does not allow it.
            TypeError: if it is no :class:`Point`.
        """
        return fitting(self, point)

    # ---- closed forms ----------------------------------------------------------------------------

    def blocks(self, point: Point) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Blocks of columns with their logits and one-hot targets, both (K, block)."""
        return objective.blocks(self, point)

    def residuals(self, point: Point) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of columns of G: the gradient with respect to a sample's logits, (P - Y)/N for cross-entropy."""
        for part, logits, targets in self.blocks(point):
            yield part, self.loss.gradient(logits, targets) / self.total

    def objective(self, point: Point) -> float:
        """f, equation (4). Safe from overflow at logits of any size."""
        return self.value_and_gradient(point, gradient=False)[0]

    def gradient(self, point: Point) -> Point:
        """Gradient of f, as a point."""
        return self.value_and_gradient(point)[1]

    def value_and_gradient(self, point: Point, *, gradient: bool = True) -> tuple[float, Point]:
        """Value and gradient in one pass; without the loss's part of the gradient where it is not asked for."""
        return objective.value_and_gradient(self, point, gradient=gradient)

    def hessian_product(self, point: Point, direction: Point) -> Point:
        """The Hessian of f at a point, applied to a direction."""
        return objective.hessian_product(self, point, direction)

    def hessian(self, point: Point) -> LinearOperator:
        """The Hessian at a point as a SciPy operator on :meth:`Point.to_vector`; work and memory linear in N."""
        size = len(as_point(point).to_vector())

        def product(vector: np.ndarray) -> np.ndarray:
            return self.hessian_product(point, self.point(np.ravel(vector))).to_vector()

        return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)

    def dense_hessian(self, point: Point) -> Float[np.ndarray, "size size"]:
        """The Hessian at a point as a matrix on :meth:`Point.to_vector`, for small problems."""
        return objective.dense_hessian(self, point)

    # ---- the theory ------------------------------------------------------------------------------

    def global_optimum(self) -> Solution:
        """The minimiser in closed form; see :func:`neuralcollapse.ufm.optimum.global_optimum`."""
        from neuralcollapse.ufm.optimum import global_optimum

        return global_optimum(self)

    def certify(self, point: Point, **options: Any) -> Certificate:
        """How far from optimal, proved; H's columns come class by class. See :mod:`neuralcollapse.ufm.certificate`."""
        from neuralcollapse.ufm.certificate import certify

        return certify(self, point, **options)

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
        extra = "" if str(self.loss) == "cross_entropy" else f", loss='{self.loss}'"
        extra += ("" if self.bias else ", bias=False") + (", nonnegative=True" if self.nonnegative else "")
        return (
            f"UFM({self.num_classes}, {counts}, {self.feature_dim}, lambda_w={self.lambda_w}, "
            f"lambda_h={self.lambda_h}, lambda_b={self.lambda_b}{extra})"
        )
