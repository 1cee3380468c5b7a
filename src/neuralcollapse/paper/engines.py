"""Where the runs of a sweep happen: in processes of this machine, or on Ray."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, runtime_checkable

from neuralcollapse import files
from neuralcollapse.extras import missing
from neuralcollapse.train.config import TrainConfig

_LOG = "log.txt"
"""In the folder of a run: what its process printed."""


@dataclass(frozen=True)
class End:
    """How an attempt ended: no error, or one that trying again may or may not help."""

    error: str = ""
    again: bool = False
    disk_full: bool = False


@runtime_checkable
class Engine(Protocol):
    """Where attempts run."""

    capacity: int

    def start(self, name: str, config: TrainConfig) -> None:
        """Begin an attempt."""

    def ended(self, seconds: float) -> dict[str, End]:
        """Wait so long at most for attempts to end; those that did."""

    def stop(self) -> None:
        """End every attempt; finished epochs stay on disk."""


def run_once(config: TrainConfig, threads: int | None = None) -> End:
    """One attempt in this process."""
    import torch

    from neuralcollapse.train.run import train

    for name in list(os.environ):  # a scheduler's job holds many runs, each of which is one process and no rank of it
        if name.startswith("SLURM_") or name in ("LOCAL_RANK", "NODE_RANK"):
            del os.environ[name]
    if threads:
        torch.set_num_threads(min(threads, torch.get_num_threads()))
    try:
        train(config, progress=False)
    except OSError as error:
        return _failed_write(error)
    except (ValueError, TypeError, ImportError, ArithmeticError) as error:  # what diverged will do so again
        return End(str(error))
    except Exception as error:  # an accelerator out of memory, a lost peer: may pass
        return End(f"{type(error).__name__}: {error}", again=True)
    return End()


def _failed_write(error: OSError) -> End:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = ": free some space and give the same command again" if full else ""
    return End(f"{error}{way_out}", disk_full=full)


def threads(workers: int) -> int:
    """Cores that each of so many runs at a time has."""
    return max(1, (os.cpu_count() or 1) // workers)


class InProcesses:
    """Each attempt in a process of its own, so that its death is the death of nothing else."""

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self._context = _context()
        self._running: dict[str, tuple[Any, Connection]] = {}

    def start(self, name: str, config: TrainConfig) -> None:
        """Begin an attempt."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(config, threads(self.capacity), sender), name=name)
        process.start()
        sender.close()
        self._running[name] = process, receiver

    def ended(self, seconds: float) -> dict[str, End]:
        """Wait for processes to end."""
        wait([process.sentinel for process, _ in self._running.values()], seconds)
        ends = {}
        for name, (process, receiver) in list(self._running.items()):
            if process.is_alive():
                continue
            try:
                ends[name] = receiver.recv()
            except EOFError:
                ends[name] = End(f"its process died with code {process.exitcode}: see {_LOG} in its folder", again=True)
            receiver.close()
            del self._running[name]
        return ends

    def stop(self) -> None:
        """End the processes; those that write a checkpoint leave the previous one whole."""
        for process, _ in self._running.values():
            process.terminate()
        for process, receiver in self._running.values():
            process.join()
            receiver.close()
        self._running.clear()


def _context() -> Any:
    """A server that has loaded the libraries forks each process, so that many small runs do not load them each."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neuralcollapse.train.run", "torchvision"])
    return context


def _child(config: TrainConfig, threads: int, sender: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    try:
        with (files.make_folder(str(config.output)) / _LOG).open("a") as log:
            for descriptor in (1, 2):  # warnings, and what a crash leaves, without disturbing the table
                os.dup2(log.fileno(), descriptor)
    except OSError as error:
        sender.send(_failed_write(error))
        return

    # A parent killed with -9 cannot end its children: they would train on, in folders that the next sweep takes over.
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    try:
        sender.send(run_once(config, threads))
    except KeyboardInterrupt:  # Ctrl-C reaches the whole group; the parent says what there is to say
        os._exit(130)


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


class OnRay:
    """Each attempt a Ray task: on this machine, or wherever the cluster has room."""

    def __init__(self, workers: int, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise missing("runs on engine 'ray'", "ray") from error
        self.capacity = workers
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
        resources = ray.cluster_resources()
        # A run takes an accelerator where the cluster has some (or its share of one, where there are more runs at a
        # time than accelerators), otherwise its share of the cores.
        share = max(1, int(resources.get("CPU", 1)) // workers)
        accelerators = resources.get("GPU", 0)
        needs: dict[str, Any] = {"num_gpus": min(1, accelerators / workers)} if accelerators else {"num_cpus": share}
        self._task: Any = ray.remote(max_calls=1, max_retries=0, **needs)(_on_worker)
        self._running: dict[Any, str] = {}

    def start(self, name: str, config: TrainConfig) -> None:
        """Submit an attempt."""
        self._running[self._task.options(name=name).remote(config.to_dict(), os.getcwd())] = name

    def ended(self, seconds: float) -> dict[str, End]:
        """Wait for tasks to end."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        ends = {}
        for task in ready:
            try:
                end = End(**self._ray.get(task))
            except self._ray.exceptions.RayError as error:
                first_line = (str(error).splitlines() or [""])[0]
                end = End(f"its worker vanished ({type(error).__name__}: {first_line})", again=True)
            ends[self._running.pop(task)] = end
        return ends

    def stop(self) -> None:
        """Cancel what runs, and leave the cluster, or end the one started here."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        if self._started:
            self._ray.shutdown()


def _on_worker(options: Mapping[str, Any], folder: str) -> dict[str, Any]:
    if os.path.isdir(folder):  # relative paths mean the same as where the sweep was started
        os.chdir(folder)
    end = run_once(TrainConfig(**options))
    return {"error": end.error, "again": end.again, "disk_full": end.disk_full}
