"""What a sweep costs: an estimate before it starts, and the time left while it runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from neuralcollapse.durations import duration
from neuralcollapse.measurement.run_folder import read_metrics
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.train.config import TrainConfig

if TYPE_CHECKING:
    from neuralcollapse.paper.sweep import Job

_LINE_SEARCH = 1.25
"""Evaluations of the loss per iteration of L-BFGS, about."""

_START = 10.0
"""Seconds in which a process has loaded its libraries, at most."""


@dataclass(frozen=True)
class Cost:
    """Seconds that a run still needs on this machine, or why nobody can say."""

    seconds: float | None
    reason: str = ""

    def __str__(self) -> str:
        return "unknown time" if self.seconds is None else f"about {duration(self.seconds)}"


def estimate(runs: Sequence[Outcome], threads: int) -> dict[str, Cost]:
    """What each run still costs, by name: from its own epochs so far, or from a few timed batches of its network.

    Args:
        runs: finished ones cost nothing.
        threads: cores that a run has.
    """
    # A run's own process loads the same libraries as this one did, which may have done more since.
    start = min(time.process_time(), _START)
    return {run.experiment.name: _cost(run, start, threads) for run in runs}


def emulated_precisions(runs: Sequence[Outcome]) -> list[str]:
    """A sentence for each precision of runs still to come that this machine has no arithmetic for."""
    from neuralcollapse.train.precision import emulated

    kinds = dict.fromkeys((run.config.precision, run.config.accelerator) for run in runs if not run.finished)
    return [said for precision, accelerator in kinds if (said := emulated(precision, _device(accelerator)))]


def total(costs: Mapping[str, Cost], workers: int) -> float:
    """Seconds for all of them, so many at a time; those that nobody can say are left out."""
    known = [cost.seconds for cost in costs.values() if cost.seconds]
    return max(sum(known) / workers, max(known, default=0.0))


def _cost(run: Outcome, start: float, threads: int) -> Cost:
    if run.finished:
        return Cost(0.0)
    rate = pace(run)
    if rate is not None:
        return Cost(rate * (run.epochs - run.done))
    config = run.config
    try:
        images, tested = _sizes(
            config.dataset, config.data_root, config.samples_per_class, config.test_samples_per_class
        )
        train, look = _speed(tuple(getattr(config, name) for name in _MATTERS), threads)
    except (OSError, ValueError, ImportError) as error:
        return Cost(None, str(error))
    if config.optimizer == "lbfgs":
        train *= config.lbfgs_iterations * _LINE_SEARCH
    looks = run.epochs // config.measure_every + 1
    return Cost(start + run.epochs * images * train + looks * (images + tested) * look)


def pace(run: Outcome) -> float | None:
    """Seconds per epoch, from the epochs on disk, measurements included; None before the second."""
    rows = read_metrics(run.folder)
    if len(rows) < 2:
        return None
    epochs = int(rows[-1]["epoch"]) - int(rows[0]["epoch"])
    return (float(rows[-1]["seconds"]) - float(rows[0]["seconds"])) / max(epochs, 1)


@functools.cache
def _sizes(
    dataset: str, data_root: str, samples: int | None, test_samples: int | Literal["auto", "all"]
) -> tuple[int, int]:
    """Training and test images of a run."""
    from neuralcollapse.train.datasets import split_sizes

    most = None if test_samples == "all" else test_samples
    return split_sizes(dataset, data_root, samples_per_class=samples, test_samples_per_class=most)


_MATTERS = ("dataset", "data_root", "image_size", "model", "width", "stem", "head", "feature_dim", "batch_size",
            "accelerator", "precision")  # fmt: skip
"""What decides how fast a network is: runs that share it are timed once."""


@functools.cache
def _speed(choices: tuple[Any, ...], threads: int) -> tuple[float, float]:
    """Seconds per image of a network, by the values of :data:`_MATTERS`: forward and backward, and forward alone."""
    import torch

    from neuralcollapse.train.datasets import load_images
    from neuralcollapse.train.module import build_network
    from neuralcollapse.train.precision import autocast

    config = TrainConfig(**dict(zip(_MATTERS, choices, strict=True))).resolved()
    data = load_images(
        config.dataset, config.data_root, samples_per_class=2, test_samples_per_class=1, image_size=config.image_size
    )
    batch = min(int(config.batch_size or 128), 256)
    rows = torch.arange(batch) % len(data.train)
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):  # the network is drawn on the host: no accelerator need wake up
        torch.set_num_threads(min(threads, before))
        try:
            network = build_network(config, data).to(_device(config.accelerator))
            pixels, labels = (part[rows].to(network.mean.device) for part in (data.train.pixels, data.train.labels))

            def step() -> None:
                with autocast(config.precision, pixels.device):
                    loss = torch.nn.functional.cross_entropy(network(pixels), labels)
                loss.backward()
                _finish()

            def look() -> None:
                with torch.no_grad():
                    network(pixels)
                _finish()

            return _seconds(step) / batch, _seconds(look) / batch
        finally:
            torch.set_num_threads(before)


def _seconds(work: Any) -> float:
    """Of the fastest of a few repetitions, the first of which warms up; a second in all at most."""
    found: list[float] = []
    end = time.monotonic() + 1.0
    while len(found) < 2 or (len(found) < 5 and time.monotonic() < end):
        begun = time.monotonic()
        work()
        found.append(time.monotonic() - begun)
    return min(found[1:])


def _device(accelerator: str) -> Any:
    import torch

    chosen = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return chosen if chosen is not None and accelerator != "cpu" else torch.device("cpu")


def _finish() -> None:
    """Wait for what an accelerator still computes."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


class Forecast:
    """The time left of a sweep that runs: what was estimated, corrected by how fast its runs turn out to be.

    Args:
        runs: of the sweep, as they are before it starts.
        costs: their estimates.
        workers: runs at a time.
    """

    def __init__(self, runs: Sequence[Outcome], costs: Mapping[str, Cost], workers: int) -> None:
        self._before = {run.experiment.name: run.done for run in runs}
        self._costs = {name: cost.seconds for name, cost in costs.items() if cost.seconds}
        self._workers = workers

    def left(self, jobs: Sequence[Job]) -> float | None:
        """Seconds; None where nothing was estimated and no run has finished an epoch."""
        paces = {job.name: rate for job in jobs if (rate := pace(job.outcome)) is not None}
        factors = [
            paces[job.name] * (job.outcome.epochs - self._before[job.name]) / self._costs[job.name]
            for job in jobs
            if job.name in paces and job.name in self._costs
        ]
        factor = median(factors) if factors else 1.0
        left = []
        for job in jobs:
            if job.state in ("finished", "failed"):
                continue
            if job.name in paces:
                left.append(paces[job.name] * max(job.outcome.epochs - job.outcome.done, 0))
            elif job.name in self._costs:
                left.append(self._costs[job.name] * factor)
        return max(sum(left) / self._workers, max(left)) if left else None
