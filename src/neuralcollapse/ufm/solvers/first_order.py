"""Gradient descent, SGD and Adam, in the model's own coordinates; with nonnegative features each step is projected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point
from neuralcollapse.ufm.solvers.solver import Iterates, Solver


def _project(model: UFM, point: Point) -> Point:
    return Point(point.W, np.maximum(point.H, 0), point.b) if model.nonnegative else point


@dataclass(frozen=True)
class GradientDescent(Solver):
    """Barzilai-Borwein steps under the nonmonotone line search of Grippo, Lampariello and Lucidi (1986)."""

    max_iterations: int = 50_000
    every: int = 100
    memory: int = 10
    """Values that a new one may not exceed all of."""
    decrease: float = 1e-4
    """Share of the predicted decrease that a step must reach."""
    least_step: float = 1e-14
    """Step size at which the search gives up."""

    def iterates(self, model: UFM, start: Point, seed: int) -> Iterates:
        """Points after 1, 2, ... iterations."""
        point = start
        value, gradient = model.value_and_gradient(point)
        recent = [value]
        size, iteration = 1.0, 0
        while True:
            while True:
                candidate = _project(model, point + -size * gradient)
                step = (candidate + -1.0 * point).to_vector()
                new_value, new_gradient = model.value_and_gradient(candidate)
                if new_value <= max(recent) + self.decrease * float(gradient.to_vector() @ step):
                    break
                size /= 2
                if size < self.least_step:
                    return
            change = (new_gradient + -1.0 * gradient).to_vector()
            point, gradient = candidate, new_gradient
            recent = [*recent[1 - self.memory :], new_value]
            curved = float(step @ change)
            size = min(max(float(step @ step) / curved, 1e-6), 1e6) if curved > 0 else 1e3
            iteration += 1
            yield iteration, point


@dataclass(frozen=True)
class Adam(Solver):
    """torch.optim.Adam on all samples, with a step that falls as a cosine."""

    max_iterations: int = 20_000
    every: int = 500
    lr: float = 0.05

    def iterates(self, model: UFM, start: Point, seed: int) -> Iterates:
        """Points after 1, 2, ... iterations."""
        parts = _parameters(start)
        optimizer = torch.optim.Adam(parts, lr=self.lr, eps=1e-12)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.max_iterations)
        for iteration in range(1, self.max_iterations + 1):
            _set_gradients(parts, model.gradient(_point(parts)))
            yield iteration, _step(model, parts, optimizer, schedule)


@dataclass(frozen=True)
class SGD(Solver):
    """torch.optim.SGD with momentum on reshuffled batches, with a step that falls as a square.

    The gradient of a batch is that of W and b over the batch and of its own features, scaled to the mean.
    """

    max_iterations: int = 5_000
    every: int = 500
    lr: float = 0.5
    momentum: float = 0.9
    batch: float = 0.5
    """Share of the samples in a batch."""

    def iterates(self, model: UFM, start: Point, seed: int) -> Iterates:
        """Points after 1, 2, ... iterations."""
        rng = np.random.default_rng(seed)
        parts = _parameters(start)
        optimizer = torch.optim.SGD(parts, lr=self.lr, momentum=self.momentum)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, self.max_iterations, power=2)
        size = max(1, int(self.batch * len(model.labels)))
        order = np.empty(0, dtype=int)
        for iteration in range(1, self.max_iterations + 1):
            if len(order) < size:
                order = rng.permutation(len(model.labels))
            rows, order = order[:size], order[size:]
            _set_gradients(parts, _batch_gradient(model, _point(parts), rows))
            yield iteration, _step(model, parts, optimizer, schedule)


def _batch_gradient(model: UFM, point: Point, rows: np.ndarray) -> Point:
    features = point.H[:, rows]
    targets = np.eye(model.num_classes)[:, model.labels[rows]]
    residual = model.loss.gradient(point.W @ features + point.b[:, None], targets)
    own = np.zeros_like(point.H)
    share = len(rows) / len(model.labels)
    own[:, rows] = (point.W.T @ residual / model.total + model.lambda_h * features) / share
    bias = residual.mean(1) + model.lambda_b * point.b if model.bias else np.zeros_like(point.b)
    return Point(residual @ features.T / len(rows) + model.lambda_w * point.W, own, bias)


def _parameters(point: Point) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor(part)) for part in (point.W, point.H, point.b)]


def _point(parts: list[torch.nn.Parameter]) -> Point:
    return Point(*(part.detach().numpy() for part in parts))


def _set_gradients(parts: list[torch.nn.Parameter], gradient: Point) -> None:
    for part, slope in zip(parts, (gradient.W, gradient.H, gradient.b), strict=True):
        part.grad = torch.from_numpy(slope)


def _step(
    model: UFM,
    parts: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> Point:
    optimizer.step()
    schedule.step()
    if model.nonnegative:
        parts[1].data.clamp_(min=0)
    return Point(*(part.detach().numpy().copy() for part in parts))
