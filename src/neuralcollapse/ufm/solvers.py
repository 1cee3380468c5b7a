"""First- and second-order solvers, each ending with a certificate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from neuralcollapse.ufm.certificate import Verdict, certify, check_tolerance, descent_direction
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point, Solution, Step, Stop


def solve(
    problem: UFM,
    *,
    method: str = "newton",
    start: Point | None = None,
    seed: int = 0,
    tol: float = 1e-8,
    max_iterations: int | None = None,
    every: int | None = None,
    observe: Callable[[int, Point], None] | None = None,
) -> Solution:
    """Minimise f, until the duality gap is at most ``tol``.

    Args:
        problem: the model, with equal or unequal classes and any d.
        method: ``gradient`` (Barzilai-Borwein steps, nonmonotone line search), ``sgd``, ``adam``, ``lbfgs``
            (SciPy's), or ``newton``: features averaged within classes, L-BFGS, Newton steps, and from any
            strict saddle out along Theorem 3.2's direction.
        start: where to begin; by default a random point.
        seed: of the random start, and of SGD's batches.
        tol: the duality gap at which to stop.
        max_iterations: by default what the method needs.
        every: iterations between looks at the gap.
        observe: called at each look with the iteration and the point.

    Raises:
        ValueError: if the method is unknown, ``tol`` not positive, or the start does not fit.

    >>> unequal = UFM(3, [20, 5, 1], 3, lambda_w=1e-2, lambda_h=1e-3, lambda_b=1e-2)
    >>> unequal.solve().certificate.gap < 1e-8
    True
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown: choose {', '.join(METHODS)}")
    check_tolerance(tol)
    model = problem.by_class if method == "newton" else problem
    if start is None:
        start = model.random_point(seed, scale=1 / math.sqrt(problem.feature_dim))
    elif start.H.shape[1] == problem.total:
        problem.check(start)
        start = problem.average(start) if method == "newton" else start
    else:
        problem.by_class.check(start)
        start = start if method == "newton" else problem.expand(start)
    began = time.perf_counter()
    iterate, default, usual = METHODS[method]
    every, limit = every or usual, max_iterations or default
    if observe is not None:
        observe(0, start)
    history: list[Step] = []
    best = start
    stop = Stop.STALLED
    for iteration, point in iterate(model, start, seed, limit):
        best = point
        if iteration % every == 0 or iteration >= limit:
            found = certify(model, point, tol=tol)
            history.append(Step(iteration, found.value, found.gap))
            if observe is not None:
                observe(iteration, point)
            if found.verdict is Verdict.OPTIMAL:
                stop = Stop.CERTIFIED
                break
            if iteration >= limit:
                stop = Stop.ITERATIONS
                break
    solution = Solution(
        problem, best, model.objective(best), method, stop, history, time.perf_counter() - began, tol=tol
    )
    if stop is Stop.STALLED and method == "newton" and solution.certificate.verdict is Verdict.NOT_TIGHT:
        solution = replace(solution, relaxed=_raise_rank(problem, tol))
    return replace(solution, seconds=time.perf_counter() - began)


def _raise_rank(problem: UFM, tol: float) -> Solution | None:
    """The convex program through its factorisation: raise the rank until the certificate closes."""
    if problem.feature_dim >= problem.num_classes:
        return None
    wider = problem.replace(feature_dim=problem.feature_dim + 1)
    solution = solve(wider, tol=tol)
    return solution.relaxed or solution


Iterates = Iterator[tuple[int, Point]]


def value_and_gradient_of(model: UFM) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """F and its gradient as SciPy's optimizers want them, on vectors."""

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = model.value_and_gradient(model.point(x))
        return value, gradient.to_vector()

    return value_and_gradient


def _gradient(model: UFM, start: Point, seed: int, limit: int) -> Iterates:
    """Barzilai-Borwein steps under the nonmonotone line search of Grippo, Lampariello and Lucidi."""
    evaluate = value_and_gradient_of(model)
    x = start.to_vector()
    value, gradient = evaluate(x)
    recent = [value]
    size = 1.0
    for iteration in range(1, limit + 1):
        while True:
            candidate = x - size * gradient
            new_value, new_gradient = evaluate(candidate)
            if new_value <= max(recent) - 1e-4 * size * float(gradient @ gradient):
                break
            size /= 2
            if size < 1e-14:
                return
        step, change = candidate - x, new_gradient - gradient
        x, gradient = candidate, new_gradient
        recent = [*recent[-9:], new_value]
        curved = float(step @ change)
        size = min(max(float(step @ step) / curved, 1e-6), 1e6) if curved > 0 else 1e3
        yield iteration, model.point(x)


def _adam(model: UFM, start: Point, seed: int, limit: int) -> Iterates:
    """Adam (Kingma and Ba 2015) with a step falling from 0.05 as a cosine."""
    evaluate = value_and_gradient_of(model)
    x = start.to_vector()
    first, second = np.zeros_like(x), np.zeros_like(x)
    for iteration in range(1, limit + 1):
        gradient = evaluate(x)[1]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = 0.05 * (1 + math.cos(math.pi * iteration / limit)) / 2
        x = x - rate * (first / (1 - 0.9**iteration)) / (np.sqrt(second / (1 - 0.999**iteration)) + 1e-12)
        yield iteration, model.point(x)


def _sgd(model: UFM, start: Point, seed: int, limit: int) -> Iterates:
    """Batches of half the samples, reshuffled each epoch, momentum 0.9, a step falling from 0.5 as a square.

    A batch's gradient is that of W and b over the batch and of its own features, scaled to the mean.
    """
    rng = np.random.default_rng(seed)
    weight, features, bias = start.W.copy(), start.H.copy(), start.b.copy()
    speed = Point(np.zeros_like(weight), np.zeros_like(features), np.zeros_like(bias))
    samples = len(model.labels)
    size = max(1, samples // 2)
    order = np.empty(0, dtype=int)
    for iteration in range(1, limit + 1):
        if len(order) < size:
            order = rng.permutation(samples)
        rows, order = order[:size], order[size:]
        logits = weight @ features[:, rows] + bias[:, None]
        targets = np.eye(model.num_classes)[:, model.labels[rows]]
        residual = model.loss.gradient(logits, targets)
        rate = 0.5 * (1 - iteration / limit) ** 2
        speed.W[:] = 0.9 * speed.W + residual @ features[:, rows].T / size + model.lambda_w * weight
        speed.b[:] = 0.9 * speed.b + residual.sum(1) / size + model.lambda_b * bias
        own = (weight.T @ residual / model.total + model.lambda_h * features[:, rows]) * (samples / size)
        speed.H[:] *= 0.9
        speed.H[:, rows] += own
        weight -= rate * speed.W
        features -= rate * speed.H
        bias -= rate * speed.b
        yield iteration, Point(weight.copy(), features.copy(), bias.copy())


def _lbfgs(model: UFM, start: Point, seed: int, limit: int) -> Iterates:
    """SciPy's L-BFGS, a hundred iterations at a time: a solve that is certified does not run on."""
    x = start.to_vector()
    evaluate = value_and_gradient_of(model)
    iteration = 0
    while iteration < limit:
        trail: list[np.ndarray] = []
        options = {"maxiter": min(100, limit - iteration), "gtol": 1e-14, "ftol": 0, "maxcor": 20}
        minimize(evaluate, x, jac=True, method="L-BFGS-B", options=options, callback=trail.append)
        for x in trail:
            iteration += 1
            yield iteration, model.point(x)
        if not trail:
            return


def _newton(model: UFM, start: Point, seed: int, limit: int) -> Iterates:
    """From saddles along the negative curvature, far away by L-BFGS, near a minimum by Newton steps."""
    evaluate = value_and_gradient_of(model)
    point = start
    for iteration in range(1, limit + 1):
        before = model.objective(point)
        found = certify(model, point)
        if found.verdict is Verdict.SADDLE:
            point = _escape(model, point)
        elif found.gradient_norm > 1e-5:
            options = {"maxiter": 300, "gtol": 1e-7, "ftol": 0, "maxcor": 30}
            point = model.point(minimize(evaluate, point.to_vector(), jac=True, method="L-BFGS-B", options=options).x)
        else:
            point = _newton_step(model, point)
        yield iteration, point
        if not model.objective(point) < before and model.gradient(point).norm() < 1e-7:
            settled = certify(model, point)
            if settled.verdict is not Verdict.SADDLE:
                return


def _escape(model: UFM, point: Point) -> Point:
    """Go down along Theorem 3.2's direction, by as much as it pays."""
    step = descent_direction(model, point).step
    value = model.objective(point)
    size, best, best_value = 1.0, point, value
    for _ in range(40):
        candidate = point + size * step
        reached = model.objective(candidate)
        if reached < best_value:
            best, best_value = candidate, reached
        elif best_value < value:
            break
        size /= 2
    return best


def _newton_step(model: UFM, point: Point) -> Point:
    """A step with the absolute values of the Hessian's eigenvalues, halved until f does not rise."""
    values, vectors = np.linalg.eigh(model.dense_hessian(point))
    gradient = model.gradient(point).to_vector()
    along = vectors.T @ gradient
    scaled = np.where(np.abs(values) > 1e-10 * np.abs(values).max(), along / np.maximum(np.abs(values), 1e-300), 0)
    step = -vectors @ scaled
    value, size = model.objective(point), 1.0
    while size > 1e-8:
        candidate = model.point(point.to_vector() + size * step)
        if model.objective(candidate) <= value:
            return candidate
        size /= 2
    return point


METHODS: dict[str, tuple[Callable[[UFM, Point, int, int], Iterates], int, int]] = {
    "gradient": (_gradient, 50_000, 100),
    "sgd": (_sgd, 5_000, 500),
    "adam": (_adam, 20_000, 500),
    "lbfgs": (_lbfgs, 20_000, 20),
    "newton": (_newton, 200, 1),
}
"""Method: its iterates, its default limit, and iterations between looks at the gap."""
