"""Run a solver from a start until its point is certified."""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from threadpoolctl import ThreadpoolController

from neuralcollapse.ufm.arguments import as_point, whole
from neuralcollapse.ufm.certificate import Certificate, Verdict, certify, check_tolerance
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point, Solution, Step, Stop
from neuralcollapse.ufm.solvers.coordinates import Balanced
from neuralcollapse.ufm.solvers.first_order import SGD, Adam, GradientDescent
from neuralcollapse.ufm.solvers.lbfgs import LBFGS
from neuralcollapse.ufm.solvers.newton import Newton
from neuralcollapse.ufm.solvers.solver import Solver

METHODS: dict[str, type[Solver]] = {
    "gradient": GradientDescent, "sgd": SGD, "adam": Adam, "lbfgs": LBFGS, "newton": Newton,
}  # fmt: skip
"""Solvers by name."""

_LARGE = 400
"""Classes, or dimensions, from which on the products of matrices are worth several threads."""


def solve(
    problem: UFM,
    *,
    method: str | Solver = "newton",
    start: Point | None = None,
    seed: int = 0,
    tol: float = 1e-8,
    max_iterations: int | None = None,
    every: int | None = None,
    observe: Callable[[int, Point], None] | None = None,
) -> Solution:
    """Minimise f, until the duality gap is at most ``tol`` times the value.

    For a loss that is not convex there is no gap: the solver stops where the gradient is zero and Theorem 3.2 shows no
    way down.

    Args:
        problem: the model, with any loss, equal or unequal classes and any d.
        method: ``gradient`` (Barzilai-Borwein steps, nonmonotone line search), ``sgd`` and ``adam`` (torch's),
            ``lbfgs`` (SciPy's), or ``newton``: features averaged within classes, L-BFGS, Newton steps, and from any
            strict saddle out along Theorem 3.2's direction. A solver object brings settings of its own.
        start: where to begin; by default a random point.
        seed: of the random start, and of SGD's batches.
        tol: the duality gap at which to stop, as a share of the value.
        max_iterations: by default what the method needs.
        every: iterations between looks at the gap.
        observe: called at each look with the iteration and the point.

    Raises:
        ValueError: if the method is unknown, a number is out of its range, or the start does not fit.
        TypeError: if the start is no :class:`Point`.

    >>> unequal = UFM(3, [20, 5, 1], 3, lambda_w=1e-2, lambda_h=1e-3, lambda_b=1e-2)
    >>> unequal.solve().certificate.gap < 1e-8
    True
    """
    solver = _solver(method, max_iterations, every)
    check_tolerance(tol)
    seed = whole("seed", seed, least=0)
    by_class = isinstance(solver, Newton)
    model = problem.by_class if by_class else problem
    first = point = _start(problem, model, start, seed)
    began = time.perf_counter()
    if observe is not None:
        observe(0, point)
    history: list[Step] = []

    def look(iteration: int, point: Point) -> Stop | None:
        found = certify(model, point, tol=tol)
        history.append(Step(iteration, found.value, found.gap))
        if observe is not None:
            observe(iteration, point)
        return _reason(found)

    iteration, stop = 0, None
    with one_thread(model):
        for iteration, point in solver.iterates(model, first, seed):
            if iteration >= solver.max_iterations:
                stop = look(iteration, point) or Stop.ITERATIONS
            elif iteration % solver.every == 0:
                stop = look(iteration, point)
            if stop is not None:
                break
        else:  # the last point need not have been looked at
            seen = history and history[-1].iteration == iteration
            stop = (None if seen else look(iteration, point)) or Stop.STALLED
    assert stop is not None
    name = method if isinstance(method, str) else type(method).__name__.lower()
    solution = Solution(problem, point, model.objective(point), name, stop, history, tol=tol)
    if stop is Stop.STALLED and by_class and solution.certificate.verdict is Verdict.NOT_TIGHT:
        solution = replace(solution, relaxed=_raise_rank(problem, tol))
    return replace(solution, seconds=time.perf_counter() - began)


@contextlib.contextmanager
def one_thread(model: UFM) -> Iterator[None]:
    """One BLAS thread where the products are small: waking a second one takes longer than they do."""
    if max(model.num_classes, model.feature_dim) >= _LARGE:
        yield
        return
    with _blas().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _solver(method: str | Solver, max_iterations: int | None, every: int | None) -> Solver:
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method={method!r} is unknown: choose {', '.join(METHODS)}")
        method = METHODS[method]()  # type: ignore[call-arg]
    changes = {}
    for name, value in (("max_iterations", max_iterations), ("every", every)):
        if value is None:
            continue
        try:
            changes[name] = operator.index(value)
        except TypeError as error:
            raise ValueError(f"{name}={value!r} must be a whole number of at least 1") from error
        if changes[name] < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    return replace(method, **changes)


def _start(problem: UFM, model: UFM, start: Point | None, seed: int) -> Point:
    """The start in the coordinates of the solver's model."""
    if start is None:
        return Balanced(model).random(seed, 1 / math.sqrt(problem.feature_dim))
    as_point(start, "start")
    if start.H.shape[1] == problem.num_classes != problem.total:
        problem.by_class.check(start)
        return start if model is not problem else problem.expand(start)
    problem.check(start)
    return start if model is problem else problem.average(start)


def _reason(found: Certificate) -> Stop | None:
    if found.verdict is Verdict.OPTIMAL:
        return Stop.CERTIFIED
    return Stop.CRITICAL if found.verdict is Verdict.NO_CERTIFICATE else None


def _raise_rank(problem: UFM, tol: float) -> Solution | None:
    """The convex program through its factorisation: raise the rank until the certificate closes."""
    if problem.feature_dim >= problem.num_classes:
        return None
    solution = solve(problem.replace(feature_dim=problem.feature_dim + 1), tol=tol)
    return solution.relaxed or solution
