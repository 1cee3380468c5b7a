"""Many runs, one after another or side by side. What is finished is never run again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from neuralcollapse.paper.engines import Engine, InProcesses, OnRay
from neuralcollapse.paper.outcome import Outcome, resumed


class State(StrEnum):
    """Of a run in a sweep."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass
class Job:
    """A run in a sweep, and how it fares."""

    outcome: Outcome
    state: State = State.WAITING
    attempts: int = 0
    error: str = ""
    """of the last attempt"""
    seconds: float = 0.0
    """in this sweep"""
    started: float = field(default=0.0, repr=False)

    @property
    def name(self) -> str:
        """Of its experiment."""
        return self.outcome.experiment.name


def sweep(
    runs: Sequence[Outcome],
    *,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    address: str | None = None,
    retries: int = 1,
    watch: Callable[[Sequence[Job]], None] = lambda jobs: None,
) -> list[Job]:
    """Bring every run to its end; one that fails leaves the others alone.

    A finished run is left as it is; an unfinished one continues after its last checkpoint.

    Args:
        runs: to be finished.
        engine: ``local`` processes of this machine, or ``ray``.
        workers: runs at a time.
        address: of a Ray cluster; without one Ray starts on this machine. The folders of the runs must be on
            a file system that all its machines share.
        retries: attempts after the first, for a run whose process died or that failed while it ran. A run whose
            input is wrong or whose training diverged is not tried again.
        watch: called with the jobs about once a second.

    Raises:
        ValueError: before anything runs, if a folder holds another run or an option is out of range.
        ImportError: if Ray is asked for and not installed.
        KeyboardInterrupt: on Ctrl-C; finished epochs are kept.
    """
    check_counts(workers, retries)
    check_folders(runs)
    jobs = [Job(run, State.FINISHED if run.finished else State.WAITING) for run in runs]
    if all(job.state is State.FINISHED for job in jobs):
        watch(jobs)
        return jobs
    place: Engine = OnRay(workers, address) if engine == "ray" else InProcesses(workers)
    try:
        _drive(jobs, place, retries, watch)
    finally:
        place.stop()
    watch(jobs)
    return jobs


def check_counts(workers: int, retries: int) -> None:
    """Accept the numbers of a sweep.

    Raises:
        ValueError: if there is no run at a time, or a negative number of retries.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1: that many runs go on at a time")
    if retries < 0:
        raise ValueError(f"retries={retries} must be at least 0: that many attempts follow the first")


def check_folders(runs: Sequence[Outcome]) -> None:
    """Refuse to begin where a folder holds a run of other settings.

    Raises:
        ValueError: naming each folder and what differs.
    """
    # Late, as everything that loads torch: the command line's help must not wait for it.
    from neuralcollapse.train.folder import check_folder

    wrong = []
    for run in runs:
        try:
            check_folder(run.folder, resumed(run.config))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("nothing was done. " + "; ".join(wrong) + " (or move the old folder away)")


def _drive(jobs: Sequence[Job], place: Engine, retries: int, watch: Callable[[Sequence[Job]], None]) -> None:
    by_name = {job.name: job for job in jobs}
    full = False
    while True:
        running = [job for job in jobs if job.state is State.RUNNING]
        waiting = [job for job in jobs if job.state is State.WAITING]
        for job in [] if full else waiting[: place.capacity - len(running)]:
            job.state, job.started = State.RUNNING, time.monotonic()
            job.attempts += 1
            place.start(job.name, resumed(job.outcome.config))
            running.append(job)
        watch(jobs)
        if not running:
            return
        for name, end in place.ended(1.0).items():
            job = by_name[name]
            job.seconds += time.monotonic() - job.started
            job.error = end.error
            full = full or end.disk_full
            if not end.error:
                job.state = State.FINISHED
                job.outcome = dataclasses.replace(job.outcome)  # a fresh look at its folder
            else:
                job.state = State.WAITING if end.again and job.attempts <= retries else State.FAILED
