"""Every collective of a measurement: all processes take part in the same ones, whatever each of them holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse.geometry import ClassStatistics

_MPI = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
"""Where Open MPI, MPICH (Intel MPI too) and MVAPICH tell a process its rank."""


def first_process() -> bool:
    """Whether this process is the one of its job that writes files and downloads.

    Before a process group exists, the environment tells: torchrun, SLURM, LSF, MPI, any launcher that sets RANK, or
    Lightning's own. The rules are Lightning's, so that both agree, but nothing of it is imported: that takes seconds.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    told = os.environ
    if "RANK" in told and dist.is_available() and dist.is_torchelastic_launched():
        return int(told["RANK"]) == 0
    by_hand = told.get("SLURM_JOB_NAME") in ("bash", "interactive")  # processes are started from a shell on the node
    if "SLURM_NTASKS" in told and not by_hand:
        return int(told.get("SLURM_PROCID", "0")) == 0
    for name in ("JSM_NAMESPACE_RANK", *(() if by_hand else _MPI), "RANK"):  # that shell has a PMI_RANK of its own
        if name in told:
            return int(told[name]) == 0
    return int(told.get("LOCAL_RANK", "0")) == 0 and int(told.get("NODE_RANK", told.get("GROUP_RANK", "0"))) == 0


def is_sharded(model: nn.Module) -> bool:
    """Whether the forward pass of a model is itself a collective, as with FSDP."""
    return any(type(parameter).__name__ in ("DTensor", "FlatParameter") for parameter in model.parameters())


class Ranks:
    """The processes that measure together: those of the default process group, or this one alone.

    Args:
        sync: whether to join the others of the process group, where there is one.
    """

    def __init__(self, sync: bool = True) -> None:
        joined = sync and dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if joined else 1

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return self.size == 1

    def gather(self, value: Any) -> list[Any]:
        """The value of each rank, in order, on every rank; tensors have to lie on the host."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def agree(self, error: BaseException | None, **record: Any) -> list[dict[str, Any]]:
        """Exchange status records; an error on one rank is raised on all of them.

        Args:
            error: what stopped this rank, None if nothing did.
            **record: what else the others need to know before they go on.

        Raises:
            BaseException: the error itself where it happened; elsewhere a ValueError, TypeError or RuntimeError that
                names the rank and repeats its message.
        """
        failure = None if error is None else (type(error).__name__, str(error))
        records = self.gather({"failure": failure, **record})
        if error is not None:
            raise error
        for rank, other in enumerate(records):
            if other["failure"] is not None:
                kind, message = other["failure"]
                raised = {"ValueError": ValueError, "TypeError": TypeError}.get(kind, RuntimeError)
                raise raised(f"rank {rank} failed with {kind}: {message}")
        return records

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the buffers of rank 0, as DDP does before a forward pass in training.

        Running statistics of batch normalisation differ between ranks: without this each would measure its share of
        the data on another model. The bytes travel through the host, so that any backend takes any device and dtype.

        Raises:
            ValueError: if the ranks hold different models.
        """
        if self.alone:
            return
        ours = {name: buffer for name, buffer in model.named_buffers() if type(buffer) is Tensor}
        sent: list[Any] = [None]
        if dist.get_rank() == 0:
            sent[0] = {name: buffer.detach().cpu() for name, buffer in ours.items()}
        dist.broadcast_object_list(sent, 0)
        error = None
        if {name: tensor.shape for name, tensor in sent[0].items()} != {key: b.shape for key, b in ours.items()}:
            error = ValueError("the ranks measure different models: their buffers differ in name or shape")
        self.agree(error)
        for name, buffer in ours.items():
            buffer.copy_(sent[0][name])

    def merge(self, statistics: ClassStatistics) -> ClassStatistics:
        """The statistics of all ranks; every rank gets the same."""
        if self.alone:
            return statistics
        parts = self.gather({name: tensor.cpu() for name, tensor in statistics.state().items()})
        merged = ClassStatistics.from_state(parts[0])
        for part in parts[1:]:
            merged.merge(ClassStatistics.from_state(part))
        return merged

    def total(self, value: float) -> float:
        """Sum over the ranks."""
        return float(sum(self.gather(float(value))))

    def in_step(self, batches: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
        """Batches of a model whose forward pass is itself a collective (FSDP): as many on each rank as on the longest.

        Yields:
            The batch, and whether it counts. A rank that has run out repeats a batch, and its results are thrown away.
        """
        if self.alone:
            yield from ((batch, True) for batch in batches)
            return
        batch: Any = None
        while True:
            found, error = True, None
            try:
                batch = next(batches)
            except StopIteration:
                found = False
            except Exception as failure:
                error = failure
            records = self.agree(error, found=found, ready=batch is not None)
            if not any(record["found"] for record in records):
                return
            if not all(record["ready"] for record in records):  # a rank without data borrows a batch
                source = next(rank for rank, record in enumerate(records) if record["ready"])
                sent = [batch]
                dist.broadcast_object_list(sent, source)
                batch = sent[0] if batch is None else batch
            yield batch, found
