"""Training steps replayed as CUDA graphs: a small network's step is over before the host has launched the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From pixels and labels to what is minimised and to the cross-entropy in it."""

_WARM_UP = 3
"""Steps before the capture, in which libraries choose kernels and reserve memory."""


def can_capture(device: torch.device) -> bool:
    """Whether steps on this device can be captured: it is an accelerator, and torch has CUDA or ROCm for it."""
    accelerator = torch.accelerator.current_accelerator()
    return torch.cuda.is_available() and accelerator is not None and device.type == accelerator.type


class CapturedStep:
    """Forward and backward of a step, captured at the first full batch and replayed from then on.

    A step of ResNet18 on 32x32 images launches some 300 kernels of a few microseconds each, so that an eager loop
    waits for the host. The replayed kernels do the operations of the eager step. Libraries may choose other kernels
    during the capture, so that results can differ in rounding. Parameters and buffers must stay where they are in
    memory, as they do in training.

    Args:
        loss: of a batch.
        network: whose parameters get gradients, and whose statistics move with each step.
        batch_size: of full batches. Do not pass batches of another size.
    """

    def __init__(self, loss: Loss, network: nn.Module, batch_size: int) -> None:
        self._loss = loss
        self._network = network
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._gradients: list[Tensor | None] = []
        self.batch_size = batch_size
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._losses: tuple[Tensor, Tensor] | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both losses of a full batch; :meth:`set_gradients` then gives the gradients."""
        if self._replay is None:
            self._inputs = pixels.clone(), labels.clone()
            buffers = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
            self._replay = captured(self._work)
            with torch.no_grad():  # the steps that warm up leave no trace in batch normalisation's statistics
                for buffer, before in buffers:
                    buffer.copy_(before)
        assert self._inputs is not None
        for held, given in zip(self._inputs, (pixels, labels), strict=True):
            held.copy_(given, non_blocking=True)
        self._replay()
        assert self._losses is not None
        return self._losses

    def set_gradients(self) -> None:
        """Give the parameters the gradients of the last replay."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def _work(self) -> None:
        assert self._inputs is not None
        for parameter in self._parameters:  # the capture owns the memory of the gradients that it makes
            parameter.grad = None
        with _no_cached_casts():
            total, plain = self._loss(*self._inputs)
            with torch.autocast(total.device.type, enabled=False):
                total.backward()
        self._losses = total.detach(), plain.detach()
        self._gradients = [parameter.grad for parameter in self._parameters]


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """Capture what a function asks of the accelerator; the answer does it again in one launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@contextlib.contextmanager
def _no_cached_casts() -> Iterator[None]:
    """Under autocast, cast the weights anew in every pass: a capture would keep the copies that a warm-up has made."""
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
