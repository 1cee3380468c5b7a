"""The geometry that given class sizes and weight decays imply: what an imbalanced network should collapse to.

A simplex ETF is the target of equal classes only. Classes of unequal size lead to another classifier and other class
means, which the unconstrained feature model gives: in closed form where there is one, by a certified solve otherwise,
and by the SELI geometry in the limit of no decay (Thrampoulidis, Kini, Vakilian and Behnia, "Imbalance trouble:
revisiting neural-collapse geometry", NeurIPS 2022, arXiv 2208.05512).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuralcollapse.ufm.arguments import class_sizes
from neuralcollapse.ufm.certificate import Verdict
from neuralcollapse.ufm.losses import Loss
from neuralcollapse.ufm.minima import polish
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.seli import no_decay
from neuralcollapse.ufm.solution import Point, Solution

_DENSE = 600
"""Variables up to which Newton steps polish a certified solve: its Gram matrices are then exact to rounding."""

_MERGED = 1e-6
"""Relative distance of two rows of W under which their classes are one."""


@dataclass(frozen=True)
class TargetGeometry:
    """Classifier and class means at the global optimum, up to a rotation of feature space.

    In the limit of no decay they have no scale: only shapes, ratios of norms and angles mean anything.
    """

    class_counts: tuple[int, ...]
    weight: Float[np.ndarray, "K d"]
    """W."""
    class_means: Float[np.ndarray, "K d"]
    """h̄_k, one row per class, not centred."""
    bias: Float[np.ndarray, " K"]
    value: float | None
    """The optimum of f; None in the limit."""
    gap: float | None
    """How far the value can be from the optimum at most; 0 for a closed form, None where nothing proves it."""
    source: str
    """``closed form``, ``certified solve``, ``solve without a proof``, ``SELI`` or ``SELI with a free bias``."""

    @property
    def weight_gram(self) -> Float[np.ndarray, "K K"]:
        """W W'."""
        return self.weight @ self.weight.T

    @property
    def centred_means(self) -> Float[np.ndarray, "K d"]:
        """Class means less their mean over classes, as NC1 to NC3 take them."""
        return self.class_means - self.class_means.mean(0)

    @property
    def means_gram(self) -> Float[np.ndarray, "K K"]:
        """Inner products of the centred class means."""
        return self.centred_means @ self.centred_means.T

    @property
    def duality(self) -> Float[np.ndarray, "K K"]:
        """W H̄: logits of the centred class means, without bias."""
        return self.weight @ self.centred_means.T

    @property
    def weight_norms(self) -> Float[np.ndarray, " K"]:
        """Norms of the rows of W."""
        return np.linalg.norm(self.weight, axis=1)

    @property
    def mean_norms(self) -> Float[np.ndarray, " K"]:
        """Norms of the centred class means."""
        return np.linalg.norm(self.centred_means, axis=1)

    @property
    def merged(self) -> tuple[tuple[int, ...], ...]:
        """Groups of classes that the optimum does not tell apart: equal rows of W."""
        scale = max(float(self.weight_norms.max()), 1e-300)
        groups: list[list[int]] = []
        for k, row in enumerate(self.weight):
            apart = [float(np.linalg.norm(row - self.weight[group[0]])) / scale for group in groups]
            if apart and min(apart) < _MERGED:
                groups[int(np.argmin(apart))].append(k)
            else:
                groups.append([k])
        return tuple(tuple(group) for group in groups if len(group) > 1)

    @property
    def rank(self) -> int:
        """Directions that W uses: K - 1 for cross-entropy, unless the weight decay erases some."""
        singular = np.linalg.svd(self.weight, compute_uv=False)
        return int((singular > _MERGED * max(float(singular[0]), 1e-300)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Everything by name, as lists and numbers."""
        return {
            "class_counts": list(self.class_counts),
            "source": self.source,
            "value": self.value,
            "gap": self.gap,
            "rank": self.rank,
            "merged": [list(group) for group in self.merged],
            "bias": self.bias.tolist(),
            "weight_norms": self.weight_norms.tolist(),
            "mean_norms": self.mean_norms.tolist(),
            "weight_gram": self.weight_gram.tolist(),
            "means_gram": self.means_gram.tolist(),
            "duality": self.duality.tolist(),
        }

    def __str__(self) -> str:
        proved = "" if not self.gap else f", within {self.gap:.1g} of the optimum"
        lines = [f"target geometry ({self.source}{proved})"]
        lines.append("|w|, |mean|: norms of the rows of W and of the centred class means, relative to the largest")
        lines.append(f"{'class':>6}{'samples':>10}{'|w|':>12}{'|mean|':>12}{'nearest class':>16}{'cosine':>10}")
        cosines = _cosines(self.weight)
        nearest = cosines.argmax(1)
        for k, (w, h) in enumerate(zip(_relative(self.weight_norms), _relative(self.mean_norms), strict=True)):
            cosine = cosines[k, nearest[k]]  # -inf for a row that is zero, and where all others are
            near = f"{nearest[k]:>16}{cosine:>10.4f}" if cosine > -math.inf else f"{'-':>16}{'-':>10}"
            lines.append(f"{k:>6}{self.class_counts[k]:>10}{w:>12.6f}{h:>12.6f}{near}")
        if not self.weight_norms.any():
            lines.append("everything collapses to the origin: the weight decay is too large for these classes")
        else:
            lines.append(f"W uses {self.rank} direction{'s' * (self.rank > 1)}")
            lost = np.flatnonzero(_relative(self.weight_norms) < _MERGED)
            lines += [f"class {k} has no direction: its row of W is zero" for k in lost]
            lines += [f"classes {', '.join(map(str, group))} merge into one point" for group in self.merged]
        return "\n".join(lines)


def target_geometry(
    class_counts: Sequence[int] | Int[np.ndarray, " K"],
    lambda_w: float | int,
    lambda_h: float | int,
    lambda_b: float | int = 0.0,
    *,
    loss: str | Loss = "cross_entropy",
    bias: bool = True,
    nonnegative: bool = False,
    feature_dim: int | None = None,
    tol: float = 1e-10,
    seed: int = 0,
) -> TargetGeometry:
    """The Gram matrices and norms of W and class means that these class sizes and decays imply.

    Args:
        class_counts: samples of each class.
        lambda_w: weight decay of the classifier. With ``lambda_h`` both zero: the limit λ → 0, which is SELI
            without a bias or with a decayed one. A free bias (``lambda_b=0``) has a limit of its own, near SELI.
        lambda_h: weight decay of the features, per sample, as in the unconstrained feature model.
        lambda_b: weight decay of the bias.
        loss: as :class:`UFM` takes it.
        bias: whether there is a bias.
        nonnegative: whether features are nonnegative, as after a ReLU.
        feature_dim: d; by default K, which loses nothing: every larger d has the same optimum.
        tol: relative duality gap of a solve.
        seed: of a solve's start.

    Raises:
        ValueError: naming the argument, its value and the constraint; or if only one decay is zero, or the limit is
            asked for where it is not known (losses but cross-entropy, nonnegative features).

    >>> target = target_geometry([500, 50, 5], 5e-3, 5e-4)
    >>> target.source, (target.weight_norms / target.weight_norms.max()).round(3).tolist()
    ('certified solve', [1.0, 0.903, 0.535])
    >>> target_geometry([500, 50, 5], 0, 0, bias=False).weight_norms.round(3).tolist()
    [1.0, 0.698, 0.66]
    """
    if lambda_w == 0 and lambda_h == 0:
        return _limit(class_counts, lambda_b, loss, bias=bias, nonnegative=nonnegative)
    counts = class_sizes(class_counts)
    k = len(counts)
    problem = UFM(
        k, counts, k if feature_dim is None else feature_dim, lambda_w=lambda_w, lambda_h=lambda_h, lambda_b=lambda_b,
        loss=loss, bias=bias, nonnegative=nonnegative,
    )  # fmt: skip
    try:
        solution, source = problem.global_optimum(), "closed form"
    except ValueError:  # there is none for this model
        solution = problem.solve(tol=tol, seed=seed)
        proved = solution.certificate.verdict is Verdict.OPTIMAL
        source = "certified solve" if proved else "solve without a proof"
        return _of(counts, _polished(problem, solution), solution, source)
    return _of(counts, solution.class_point, solution, source)


def _polished(problem: UFM, solution: Solution) -> Point:
    """Newton steps beyond the solve's tolerance: Gram matrices err by about the square root of the gap."""
    point = solution.class_point
    if problem.nonnegative or len(point.to_vector()) > _DENSE:
        return point
    better = polish(solution.model, point).point
    return better if solution.model.objective(better) <= solution.value else point


def _of(counts: list[int], point: Point, solution: Solution, source: str) -> TargetGeometry:
    means = point.H if point.H.shape[1] == len(counts) else solution.problem.average(point).H
    gap = 0.0 if source == "closed form" else solution.certificate.gap
    return TargetGeometry(tuple(counts), point.W, means.T, point.b, solution.value, gap, source)


def _limit(
    class_counts: Sequence[int] | Int[np.ndarray, " K"],
    lambda_b: float,
    loss: str | Loss,
    *,
    bias: bool,
    nonnegative: bool,
) -> TargetGeometry:
    """The geometry of the limit, after what it is not known for is refused."""
    if str(loss) != "cross_entropy" or nonnegative:
        raise ValueError(
            "lambda_w=0 and lambda_h=0 ask for the limit of no decay, known for cross-entropy and free features only: "
            "give small positive decays instead"
        )
    if not (lambda_b >= 0 and math.isfinite(lambda_b)):
        raise ValueError(f"lambda_b={lambda_b} must be zero or positive, and finite (bias=False leaves it out)")
    counts = class_sizes(class_counts)
    free = bias and lambda_b == 0
    source = "SELI with a free bias" if free else "SELI"
    return TargetGeometry(tuple(counts), *no_decay(counts, free=free), None, None, source)


def _relative(norms: np.ndarray) -> np.ndarray:
    return norms / largest if (largest := float(norms.max())) > 0 else norms


def _cosines(rows: np.ndarray) -> np.ndarray:
    """Cosines between rows, with -inf on the diagonal, and for a row that is zero up to rounding."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    kept = norms > _MERGED * norms.max()
    units = np.divide(rows, norms, out=np.zeros_like(rows), where=kept)
    cosines = np.where(kept & kept.T, units @ units.T, -math.inf)
    np.fill_diagonal(cosines, -math.inf)
    return cosines
