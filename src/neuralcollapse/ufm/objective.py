"""The objective of the unconstrained feature model, its gradient and its Hessian, over blocks of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from neuralcollapse.ufm.arguments import as_point

if TYPE_CHECKING:
    from neuralcollapse.ufm.problem import UFM
    from neuralcollapse.ufm.solution import Point

_BLOCK = 1 << 20
"""Entries of logits held at once."""


def blocks(model: UFM, point: Point) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of columns with their logits and one-hot targets, both (K, block)."""
    columns = max(1, _BLOCK // model.num_classes)
    for start in range(0, len(model.labels), columns):
        part = slice(start, min(start + columns, len(model.labels)))
        targets = np.zeros((model.num_classes, part.stop - start))
        targets[model.labels[part], np.arange(part.stop - start)] = 1
        yield part, point.W @ point.H[:, part] + point.b[:, None], targets


def value_and_gradient(model: UFM, point: Point, *, gradient: bool = True) -> tuple[float, Point]:
    """Value and gradient in one pass; without the loss's part of the gradient where it is not asked for."""
    loss = 0.0
    slope = _decays(model, as_point(point))
    for part, logits, targets in blocks(model, point):
        values, residual = model.loss.value_and_gradient(logits, targets)
        loss += float(model.weights[part] @ values)
        if gradient:
            residual *= model.weights[part] / model.total
            slope.W[:] += residual @ point.H[:, part].T
            slope.H[:, part] += point.W.T @ residual
            slope.b[:] += residual.sum(1) if model.bias else 0
    # Decays under the square: with extreme λ the squares of W and H leave the range of float64.
    squares = ((math.sqrt(model.lambda_w) * point.W) ** 2).sum() + model.lambda_b * (point.b**2).sum()
    squares += (model.weights * (math.sqrt(model.lambda_h) * point.H) ** 2).sum()
    return float(loss / model.total + squares / 2), slope


def hessian_product(model: UFM, point: Point, direction: Point) -> Point:
    """The Hessian of f at a point, applied to a direction."""
    product = _decays(model, direction)
    for part, logits, targets in blocks(model, point):
        weights = model.weights[part] / model.total
        features, turned = point.H[:, part], direction.H[:, part]
        change = direction.W @ features + point.W @ turned + (direction.b[:, None] if model.bias else 0)
        second = model.loss.hessian_product(logits, targets, change) * weights
        residual = model.loss.gradient(logits, targets) * weights
        product.W[:] += second @ features.T + residual @ turned.T
        product.H[:, part] += point.W.T @ second + direction.W.T @ residual
        product.b[:] += second.sum(1) if model.bias else 0
    return product


def _decays(model: UFM, point: Point) -> Point:
    """The decays' part of the gradient at a point."""
    bias = model.lambda_b * point.b if model.bias else np.zeros(model.num_classes)
    return replace(point, W=model.lambda_w * point.W, H=model.lambda_h * model.weights * point.H, b=bias)


def dense_hessian(model: UFM, point: Point) -> Float[np.ndarray, "size size"]:
    """The Hessian at a point as a matrix on :meth:`Point.to_vector`, for small problems."""
    k, d, m = model.num_classes, model.feature_dim, len(model.labels)
    ww, wh, wb = np.zeros((k, d, k, d)), np.zeros((k, d, d, m)), np.zeros((k, d, k))
    hh, hb, bb = np.zeros((d, m, d, m)), np.zeros((d, m, k)), np.zeros((k, k))
    for part, logits, targets in blocks(model, point):
        weights, features = model.weights[part] / model.total, point.H[:, part]
        second = model.loss.hessians(logits, targets) * weights
        residual = model.loss.gradient(logits, targets) * weights
        turned = np.einsum("lkm,lb->bkm", second, point.W, optimize=True)
        ww += np.einsum("lkm,am,bm->lakb", second, features, features, optimize=True)
        wh[..., part] = np.einsum("bkm,am->kabm", turned, features)
        wh[:, range(d), range(d), part] += residual[:, None]
        wb += np.einsum("lkm,am->lak", second, features, optimize=True)
        columns = np.arange(part.start, part.stop)
        hh[:, columns, :, columns] = np.einsum("akm,kb->mab", turned, point.W, optimize=True)
        hb[:, part] = turned.transpose(0, 2, 1)
        bb += second.sum(2)
    sizes = (k * d, d * m, k)
    matrix = np.block([
        [ww.reshape(sizes[0], -1), wh.reshape(sizes[0], -1), wb.reshape(sizes[0], -1)],
        [wh.reshape(sizes[0], -1).T, hh.reshape(sizes[1], -1), hb.reshape(sizes[1], -1)],
        [wb.reshape(sizes[0], -1).T, hb.reshape(sizes[1], -1).T, bb],
    ])  # fmt: skip
    if not model.bias:
        matrix[-k:], matrix[:, -k:] = 0, 0
    ones = model.point(np.ones(sum(sizes)))
    return (matrix + matrix.T) / 2 + np.diag(_decays(model, ones).to_vector())
