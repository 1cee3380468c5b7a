"""How the best shape changes with the weight decay: minima followed over λ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from neuralcollapse.ufm.minima import LocalMinimum, polish
from neuralcollapse.ufm.problem import UFM


@dataclass(frozen=True)
class Branch:
    """One local minimum, followed over the weight decay for as long as it stays a strict minimum."""

    shape: str
    lambdas: tuple[float, ...]
    """λW, ascending; λH keeps its ratio."""
    minima: tuple[LocalMinimum, ...]


def follow(problem: UFM, minimum: LocalMinimum, lambdas: Sequence[float] | Float[np.ndarray, " steps"]) -> Branch:
    """Follow a minimum from the problem's own λW to each of the others, upwards and downwards, until it is lost.

    It is lost where Newton's method from the neighbouring λ does not end at a strict minimum of the same shape.

    Args:
        problem: where the minimum was found.
        minimum: a strict local minimum of it.
        lambdas: values of λW, close enough together for Newton's method.

    >>> problem = UFM(4, 10, 2, lambda_w=1e-3, lambda_h=1e-4, lambda_b=1e-2)
    >>> from neuralcollapse.ufm.explore import explore
    >>> square = explore(problem, starts=1).minima[0]
    >>> follow(problem, square, [8e-4, 9e-4, 1.1e-3]).lambdas
    (0.0008, 0.0009, 0.0011)
    """
    found: dict[float, LocalMinimum] = {}
    ordered = np.sort(np.asarray(lambdas, dtype=float))
    for way in (ordered[ordered >= problem.lambda_w], ordered[ordered < problem.lambda_w][::-1]):
        for value, point in _along(problem, minimum, way):
            found[value] = point
    kept = sorted(found)
    return Branch(minimum.shape, tuple(kept), tuple(found[value] for value in kept))


def _along(problem: UFM, minimum: LocalMinimum, lambdas: np.ndarray) -> Iterator[tuple[float, LocalMinimum]]:
    latest = minimum
    for value in lambdas:
        latest = polish(at(problem, float(value)).by_class, latest.point)
        if not latest.strict or latest.shape != minimum.shape:
            return
        yield float(value), latest


def at(problem: UFM, lambda_w: float) -> UFM:
    """The problem at another λW, with the same ratio λH/λW."""
    return problem.replace(lambda_w=lambda_w, lambda_h=lambda_w * problem.lambda_h / problem.lambda_w)


def crossing(problem: UFM, first: Branch, second: Branch) -> float | None:
    """The λW at which two branches have the same value; None where they do not cross on their common range.

    Raises:
        ValueError: if the branches have no λ in common.
    """
    ours, theirs = (dict(zip(branch.lambdas, branch.minima, strict=True)) for branch in (first, second))
    common = sorted(set(ours) & set(theirs))
    if not common:
        raise ValueError("the branches have no lambda in common: follow both over the same values")

    def difference(lambda_w: float) -> float:
        nearest = min(common, key=lambda value: abs(value - lambda_w))
        model = at(problem, lambda_w).by_class
        return polish(model, ours[nearest].point).value - polish(model, theirs[nearest].point).value

    signs = [ours[value].value - theirs[value].value for value in common]
    for low, high, before, after in zip(common, common[1:], signs, signs[1:], strict=False):
        if before * after < 0:
            return float(brentq(difference, low, high, xtol=1e-12, rtol=1e-10))
    return None
