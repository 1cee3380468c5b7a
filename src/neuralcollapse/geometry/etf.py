"""The simplex equiangular tight frame (ETF): build it, measure the distance to it, find the nearest one.

Source of the definitions: Zhu et al., "A Geometric Analysis of Neural Collapse with Unconstrained
Features", NeurIPS 2021 (arXiv 2105.02375), Definition 2.1, equation (8) and footnote 14.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse.geometry.arithmetic import float64_device, full_precision
from neuralcollapse.geometry.inputs import Rows, as_count, as_real
from neuralcollapse.geometry.pairs import product_norm

_BLOCK = 1024
"""Rows of a K x K product held at once: a K x K matrix is never formed."""

_TRACE_FORM_FLOOR = 1e-6
"""Squared distance under which the trace form has lost too many digits (its error is about 1e-16)."""


def simplex_etf(
    num_classes: int,
    feature_dim: int,
    *,
    rotation: Literal["canonical", "random"] = "canonical",
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "K d"]:
    r"""Build a simplex ETF with unit rows: ``W @ W.T == K/(K-1) (I - 11'/K)``.

    Args:
        num_classes: K, the number of rows, at least 2.
        feature_dim: d, at least K - 1.
        rotation: ``"canonical"`` is the paper's footnote 14, :math:`\sqrt{K/(K-1)} (I - 11'/K)` in the
            first K coordinates (for d = K - 1, the same frame in Helmert coordinates); ``"random"``
            turns it by a Haar-distributed rotation.
        generator: randomness of ``rotation="random"``; the frame is drawn on the generator's device.
        dtype: of the result; torch's default dtype if not given. The arithmetic is float64.

    Raises:
        ValueError: if K < 2, d < K - 1, or the rotation is unknown.
        TypeError: if a size is no integer, or the dtype no floating point dtype.
        MemoryError: if the frame does not fit into memory.

    >>> W = simplex_etf(4, 8, dtype=torch.float64)
    >>> round(float(W[0] @ W[1]), 6)    # the cosine between any two classes is -1/(K-1)
    -0.333333
    """
    num_classes, feature_dim = as_count(num_classes, "num_classes"), as_count(feature_dim, "feature_dim")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a simplex ETF needs at least 2 classes")
    if feature_dim < num_classes - 1:
        raise ValueError(
            f"feature_dim={feature_dim} cannot hold a simplex ETF of {num_classes} classes: "
            f"pass at least {num_classes - 1}"
        )
    if rotation not in ("canonical", "random"):
        raise ValueError(f"rotation={rotation!r} is unknown: choose 'canonical' or 'random'")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype} cannot hold the frame's fractions: choose a floating point dtype of torch")
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator={generator!r} must be a torch.Generator")
    try:
        frame = _frame(num_classes, feature_dim, rotation, generator)
    except RuntimeError as error:  # torch has no type of its own for memory that it cannot get
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        size = 8 * num_classes * feature_dim / 1e9
        raise MemoryError(
            f"num_classes={num_classes} and feature_dim={feature_dim}: a frame of {size:,.0f} GB (it is built in "
            "float64) does not fit into memory; choose fewer classes or features"
        ) from error
    return frame.to(dtype)


def _frame(num_classes: int, feature_dim: int, rotation: str, generator: torch.Generator | None) -> Tensor:
    scale = math.sqrt(num_classes / (num_classes - 1))
    if rotation == "random":
        device = generator.device if generator is not None else None
        gaussian = torch.randn(feature_dim, num_classes - 1, generator=generator, dtype=torch.float64, device=device)
        q, r = torch.linalg.qr(gaussian)
        q = q * r.diagonal().sign()  # the sign makes the frame Haar-distributed
        return scale * helmert(num_classes).to(q) @ q.T
    etf = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
    if feature_dim == num_classes - 1:
        etf[:] = helmert(num_classes)
    else:
        etf[:, :num_classes] = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    return etf.mul_(scale)


def helmert(num_classes: int) -> Float[Tensor, "K K-1"]:
    """Orthonormal basis (Helmert's) of the vectors of R^K whose entries sum to zero, in float64."""
    j = torch.arange(1, num_classes, dtype=torch.float64)
    rows = torch.arange(num_classes, dtype=torch.float64)[:, None]
    basis = torch.where(rows < j, 1.0, torch.where(rows == j, -j, 0.0))
    return basis / torch.sqrt(j * (j + 1))


def product_rows(
    left: Float[Tensor, "K d"], right: Float[Tensor, "K d"]
) -> Iterator[tuple[int, Float[Tensor, "rows K"]]]:
    """Row blocks of ``left @ right.T`` with the index of their first row: O(K) memory per row."""
    for start in range(0, len(left), _BLOCK):
        yield start, left[start : start + _BLOCK] @ right.T


def frame_distance(left: Float[Tensor, "K d"], right: Float[Tensor, "K d"]) -> float:
    r"""Distance of ``A = left @ right.T`` to the ETF's Gram matrix, equations (8) and (9).

    :math:`\| A/\|A\|_F - E \|_F` with :math:`E = (I - 11'/K)/\sqrt{K-1}`; NaN where A = 0.

    Never forms a K x K matrix. Where d < K the trace form, 2 - 2<A,E>/||A||, costs O(K d²); as its
    error is about 1e-16 in the square, a square under 1e-6 is computed again row block by row block.
    """
    same = left is right
    left = _unit_scale(left.double())
    right = left if same else _unit_scale(right.double())
    num_classes = len(left)
    root = math.sqrt(num_classes - 1)
    inner = ((left * right).sum() - left.sum(0) @ right.sum(0) / num_classes) / root
    norm = product_norm(left, right)
    if norm == 0:
        return math.nan
    if left.shape[1] < num_classes:
        square = float(2 - 2 * inner / norm)
        if not square < _TRACE_FORM_FLOOR:
            return math.sqrt(square)
    total = left.new_zeros(())
    for start, block in product_rows(left, right):
        difference = block / norm + 1 / (num_classes * root)
        difference.diagonal(start).sub_(1 / root)
        total += difference.square().sum()
    return float(total.sqrt())


def lowest_frame_distance(num_classes: int, feature_dim: int) -> float:
    r"""The smallest NC2, and NC3, that K classes can reach in d dimensions: 0 for d >= K - 1, otherwise
    :math:`\sqrt{2 - 2\sqrt{d/(K-1)}}`.

    A matrix A of rank d and norm 1 has :math:`\langle A, E \rangle \leq \sqrt{d/(K-1)}`, because E has K - 1 equal
    singular values (von Neumann's trace inequality). Simplex vertices projected to d dimensions reach it.

    >>> lowest_frame_distance(10, 9), round(lowest_frame_distance(101, 25), 6)
    (0.0, 1.0)
    """
    return math.sqrt(2 - 2 * math.sqrt(min(1.0, feature_dim / (num_classes - 1))))


def _unit_scale(matrix: Float[Tensor, "K d"]) -> Float[Tensor, "K d"]:
    """Divide by the largest entry, so that squares of squares neither overflow nor vanish."""
    largest = matrix.abs().max()
    return matrix / largest if largest > 0 else matrix


def etf_distance(weight: Float[Tensor, "K d"] | Rows) -> float:
    r"""NC2 of a classifier: how far its Gram matrix is from a simplex ETF's.

    .. math:: \bigl\| WW'/\|WW'\| - (I - 11'/K)/\sqrt{K-1} \bigr\|

    In [0, sqrt(2)]; 0 at collapse, which is exactly where the rows are a simplex ETF of any scale and rotation. NaN for
    a zero matrix. Source: Zhu et al. 2021, equation (8). Cost: O(Kd²), or O(K²d) near collapse.

    Raises:
        ValueError: if ``weight`` is not a K x d matrix with K >= 2, or has non-finite entries.
        TypeError: if it has other than real floating point entries.

    >>> etf_distance(simplex_etf(3, 5, rotation="random", dtype=torch.float64)) < 1e-12
    True
    """
    weight = _matrix(weight, "weight")
    with full_precision(weight.device):
        exact = weight.to(float64_device(weight.device), torch.float64)
        return frame_distance(exact, exact)


def nearest_etf(weight: Float[Tensor, "K d"] | Rows) -> Float[Tensor, "K d"]:
    """Nearest simplex ETF in the Frobenius norm, over all rotations and scales (orthogonal Procrustes).

    The result is float64 for float64 input, otherwise of the input's dtype.

    Raises:
        ValueError: if ``weight`` is not a finite K x d matrix with K >= 2 and d >= K - 1.

    >>> W = 3 * simplex_etf(3, 4, rotation="random", dtype=torch.float64)
    >>> bool(torch.allclose(nearest_etf(W), W))
    True
    """
    weight = _matrix(weight, "weight")
    num_classes, feature_dim = weight.shape
    if feature_dim < num_classes - 1:
        raise ValueError(
            f"weight has {feature_dim} columns, too few for a simplex ETF of {num_classes} classes: "
            f"it needs at least {num_classes - 1}"
        )
    home = float64_device(weight.device)
    with full_precision(home):
        exact = weight.to(home, torch.float64)
        unit = float(exact.abs().max()) or 1.0
        # With the basis U of sum-zero vectors an ETF is s U Q', Q' Q = I: maximise <U'W, Q'> over Q.
        basis = helmert(num_classes).to(home)
        left, singular, right = torch.linalg.svd(basis.T @ (exact / unit), full_matrices=False)
        scale = singular.sum() / (num_classes - 1)
        return ((scale * basis @ (left @ right)) * unit).to(weight.device, weight.dtype)


def _matrix(values: Any, name: str) -> Float[Tensor, "K d"]:
    matrix = as_real(values, name)
    if matrix.ndim != 2 or len(matrix) < 2 or not matrix.shape[1]:
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}: it must be K x d with K >= 2")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"{name} has non-finite entries (NaN or infinity)")
    return matrix
