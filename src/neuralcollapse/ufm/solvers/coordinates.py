"""Coordinates in which all decays are τ and each class counts alike, however λW, λH, λb and the class sizes differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from neuralcollapse.ufm.balance import balance_ratio
from neuralcollapse.ufm.losses import MeanSquaredError
from neuralcollapse.ufm.norms import euclidean
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point

Vector = Float[np.ndarray, "size"]


class Balanced:
    """f as a function of W/r, r H sqrt(weights) and s b, one after the other, with r = (λH/λW)^¼, s² = max(λb/τ, 1).

    There the penalty is τ (||W||² + ||H||²)/2: solvers and tolerances need not know how W and H share their product. A
    bias whose decay exceeds τ has τ too, unless the loss is the squared error, whose own curvature is 1 along the bias.
    """

    def __init__(self, model: UFM) -> None:
        self.model = model
        ratio = balance_ratio(model)
        k, d, m = model.num_classes, model.feature_dim, len(model.labels)
        features = np.broadcast_to(ratio * np.sqrt(model.weights), (d, m))
        decay_sets_the_bias = model.bias and not isinstance(model.loss, MeanSquaredError)
        bias = math.sqrt(max(model.lambda_b / model.tau, 1.0)) if decay_sets_the_bias else 1.0
        self.scale: Vector = np.concatenate([np.full(k * d, 1 / ratio), features.ravel(), np.full(k, bias)])
        free = np.full(len(self.scale), -np.inf)
        if model.nonnegative:
            free[k * d : k * d + d * m] = 0
        self.lowest: Vector = free
        """Lower bounds of the coordinates: zero for nonnegative features."""

    def vector(self, point: Point) -> Vector:
        """A point in these coordinates."""
        return self.scale * point.to_vector()

    def point(self, vector: Vector) -> Point:
        """The inverse of :meth:`vector`."""
        return self.model.point(vector / self.scale)

    def random(self, seed: int, size: float) -> Point:
        """A normally distributed point of these coordinates, and b = 0."""
        point = self.model.random_point(seed, size)
        return Point(point.W * balance_ratio(self.model), self.point(point.to_vector()).H, point.b)

    def stretched(self, vector: Vector) -> Vector:
        """The vector with its logits doubled as long as that lowers f: small decays have large logits."""
        doubling = np.full(len(vector), math.sqrt(2))
        doubling[-self.model.num_classes :] = 2.0
        value = self.value_and_gradient(vector)[0]
        while True:
            larger = doubling * vector
            reached = self.value_and_gradient(larger)[0]
            if not reached < value:
                return vector
            vector, value = larger, reached

    def value_and_gradient(self, vector: Vector) -> tuple[float, Vector]:
        """F and its gradient, as SciPy's optimizers want them."""
        value, gradient = self.model.value_and_gradient(self.point(vector))
        return value, gradient.to_vector() / self.scale

    def hessian_product(self, vector: Vector, direction: Vector) -> Vector:
        """The Hessian applied to a direction."""
        product = self.model.hessian_product(self.point(vector), self.point(direction))
        return product.to_vector() / self.scale

    def dense_hessian(self, vector: Vector) -> Float[np.ndarray, "size size"]:
        """The Hessian as a matrix."""
        return self.model.dense_hessian(self.point(vector)) / np.outer(self.scale, self.scale)

    def far(self, vector: Vector, gradient: Vector) -> float:
        """The gradient's size relative to the penalty's part of it: small near a critical point."""
        inwards = np.where(vector > self.lowest, gradient, np.minimum(gradient, 0))
        return euclidean(inwards) / self.model.tau / max(1.0, float(np.linalg.norm(vector)))


def value_and_gradient_of(model: UFM) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """F and its gradient as SciPy's optimizers want them, in the model's own coordinates."""

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = model.value_and_gradient(model.point(x))
        return value, gradient.to_vector()

    return value_and_gradient
