"""The landscape where it is not benign: a search for all local minima with d < K - 1.

Theorem 3.2 of Zhu et al. holds for every d >= K - 1: all local minima are global. Below, several shapes can each be a
strict local minimum. This finds them, polishes each until its gradient is rounding, proves it strict, and brackets the
global value between the best one found and the convex bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuralcollapse.ufm.arguments import whole
from neuralcollapse.ufm.minima import LocalMinimum, descend, same
from neuralcollapse.ufm.problem import UFM

_GLOBAL = 1e-9
"""Relative distance to the convex bound at which a minimum is global, strict or not."""


@dataclass(frozen=True)
class Exploration:
    """What was found, and how much was searched."""

    problem: UFM
    minima: tuple[LocalMinimum, ...]
    """Strict local minima, and global ones even where they are not strict (d >= K has unused directions); lowest first.
    """
    starts: int
    unsettled: int
    """Starts that ended at neither: a degenerate point, or one that could not be polished."""
    lower_bound: float
    """No point of the model has a smaller value: the optimum of the convex program."""

    @property
    def best(self) -> float:
        """The lowest value found: the global minimum lies between ``lower_bound`` and this."""
        return min((found.value for found in self.minima), default=math.inf)

    def __str__(self) -> str:
        found = f"{len(self.minima)} local minim{'um' if len(self.minima) == 1 else 'a'}"
        lines = [
            f"{self.problem}",
            f"{self.starts} starts: {found}, {self.unsettled} starts unsettled. "
            f"The global minimum lies in [{self.lower_bound:.9g}, {self.best:.9g}]",
        ]
        lines += [
            f"  {found.value:.10f}  {found.hits:>4} starts  gradient {found.gradient_norm:.1e}  "
            f"{found.zero_eigenvalues} zero eigenvalues, the next {found.least_positive:.2e}  {found.shape}"
            for found in self.minima
        ]
        return "\n".join(lines)


def explore(problem: UFM, *, starts: int = 60, seed: int = 0) -> Exploration:
    """Search for all local minima from random starts.

    Args:
        problem: a model with up to some hundreds of variables (K (2d + 1)): the Hessian is taken as a matrix.
        starts: random starts; minima with a small basin need many.
        seed: of the starts.

    Raises:
        ValueError: if ``starts`` is less than 1, or features are nonnegative (the edge has no Hessian).

    >>> found = explore(UFM(5, 10, 3, lambda_w=1e-3, lambda_h=1e-4, lambda_b=1e-2), starts=12)
    >>> [round(minimum.value, 8) for minimum in found.minima], all(minimum.strict for minimum in found.minima)
    ([0.03585076, 0.03587342], True)
    """
    if isinstance(starts, bool) or not isinstance(starts, int) or starts < 1:
        raise ValueError(f"starts={starts!r} must be a whole number of at least 1")
    if problem.nonnegative:
        raise ValueError("explore needs free features: a minimum at the edge of H >= 0 has no Hessian to judge it by")
    model = problem.by_class
    bound = convex_bound(problem)
    rng = np.random.default_rng(whole("seed", seed, least=0))
    minima: list[LocalMinimum] = []
    unsettled = 0
    for _ in range(starts):
        found = descend(model, model.random_point(rng, scale=2 * rng.random() ** 2 + 0.05))
        if not found.strict and found.value - bound > _GLOBAL * abs(bound):
            unsettled += 1
            continue
        known = next((i for i, other in enumerate(minima) if same(found, other)), None)
        if known is None:
            minima.append(found)
        else:
            best = min(found, minima[known], key=lambda each: each.gradient_norm)
            minima[known] = replace(best, hits=minima[known].hits + 1)
    minima.sort(key=lambda each: each.value)
    return Exploration(problem, tuple(minima), starts, unsettled, bound)


def convex_bound(problem: UFM) -> float:
    """The optimum of the convex program, less what is unproved: no d reaches below it."""
    wide = problem.replace(feature_dim=max(problem.num_classes, problem.feature_dim))
    try:
        return wide.global_optimum().value
    except ValueError:
        bound = wide.solve(tol=1e-8).certificate.lower_bound
        return -math.inf if bound is None else bound


def catalogue(
    num_classes: Sequence[int],
    feature_dims: Sequence[int],
    lambdas: Sequence[float],
    *,
    samples_per_class: int = 10,
    ratio: float = 0.1,
    lambda_b: float = 1e-2,
    starts: int = 60,
    seed: int = 0,
) -> Iterator[dict[str, int | float | str | bool]]:
    """One row per local minimum of each combination of K, d and λW: what was found, and how much was searched.

    Args:
        num_classes: values of K.
        feature_dims: values of d.
        lambdas: values of λW; λH is ``ratio`` times as large.
        samples_per_class: n.
        ratio: λH/λW.
        lambda_b: weight decay of the bias.
        starts: random starts per combination.
        seed: of these starts.

    Raises:
        ValueError: as :func:`explore` and :class:`UFM`.

    >>> next(catalogue([4], [2], [1e-3], starts=2))["shape"]
    '4 corners'
    """
    for d in feature_dims:
        for k in num_classes:
            for lambda_w in lambdas:
                problem = UFM(k, samples_per_class, d, lambda_w=lambda_w, lambda_h=ratio * lambda_w, lambda_b=lambda_b)
                yield from rows(explore(problem, starts=starts, seed=seed))


def rows(found: Exploration) -> Iterator[dict[str, int | float | str | bool]]:
    """One row per minimum of an exploration: what was found, and how much was searched."""
    problem = found.problem
    for rank, minimum in enumerate(found.minima, start=1):
        yield {
            "num_classes": problem.num_classes,
            "feature_dim": problem.feature_dim,
            "samples_per_class": int(problem.class_counts[0]),
            "lambda_w": problem.lambda_w,
            "lambda_h": problem.lambda_h,
            "lambda_b": problem.lambda_b,
            "starts": found.starts,
            "unsettled": found.unsettled,
            "lower_bound": found.lower_bound,
            "minimum": rank,
            "value": minimum.value,
            "hits": minimum.hits,
            "strict": minimum.strict,
            "gradient_norm": minimum.gradient_norm,
            "zero_eigenvalues": minimum.zero_eigenvalues,
            "symmetries": minimum.symmetries,
            "least_positive": minimum.least_positive,
            "margin": minimum.margin,
            "shape": minimum.shape,
        }
