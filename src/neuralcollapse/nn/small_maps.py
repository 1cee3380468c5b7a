"""Convolutions over maps smaller than their kernel, and 1x1 ones, as the plain matrix products that they are.

A ResNet made for large images ends, on images of 32x32, in maps of 2x2 and of one pixel. Most taps of a
3x3 kernel meet nothing but padding there: eight of nine on one pixel. A convolution is linear, and on such
a map its matrix is small, so that one product with it does the same for a part of the arithmetic.

Strided 1x1 convolutions are products for two other reasons. On maps of up to 4x4, PyTorch 2.14's own (oneDNN 3.12) take
longer than the product, in bfloat16 most of all. With a few channels, on processors with AVX2 and no AVX-512, the
backward pass of PyTorch's own writes beyond its memory. ``benchmarks/bench_small_maps.py`` times a step both ways.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

Model = TypeVar("Model", bound=nn.Module)


_LANES = 8
"""Channels that one AVX2 register holds: with fewer, a strided 1x1 convolution is a product."""

_STRIDED_PIXELS = 16
"""Pixels of the largest map on which every strided 1x1 convolution is a product."""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that is a matrix product wherever the map has fewer pixels than the kernel has taps.

    So is a 1x1 convolution with a stride on a map of up to 16 pixels, or of fewer than 8 channels.

    Parameters, their names and the function are those of :class:`torch.nn.Conv2d`; values and gradients
    differ by rounding alone. Made by :func:`multiply_small_maps`.
    """

    def forward(self, input: Float[Tensor, "*B C H W"]) -> Float[Tensor, "*B O h w"]:
        """The convolution of ``input``."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        fits = input.ndim == 4 and input.shape[1] == self.in_channels  # otherwise torch says what is wrong
        pixels = input.shape[2] * input.shape[3] if fits else 0
        strided = taps == 1 and self.stride != (1, 1)
        if strided and pixels and (pixels <= _STRIDED_PIXELS or self.in_channels < _LANES):
            seen = input[:, :, :: self.stride[0], :: self.stride[1]]
            matrix = self.weight.permute(0, 2, 3, 1).flatten(1)
            return linear(seen.permute(0, 2, 3, 1), matrix, self.bias).permute(0, 3, 1, 2)
        if not 0 < pixels < taps:
            return super().forward(input)
        assert not isinstance(self.padding, str)
        rows, columns = (
            _windows(size, kernel, stride, padding)
            for size, kernel, stride, padding in zip(
                input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        if not rows or not columns:  # the kernel does not fit: torch says so
            return super().forward(input)
        matrix = _matrix(self.weight, (input.shape[2], input.shape[3]), rows, columns)
        bias = None if self.bias is None else self.bias.repeat(len(rows) * len(columns))
        flat = linear(input.permute(0, 2, 3, 1).flatten(1), matrix, bias)
        return flat.unflatten(1, (len(rows), len(columns), self.out_channels)).permute(0, 3, 1, 2)


def multiply_small_maps(model: Model) -> Model:
    """Let the plain convolutions of a model be matrix products on small maps, in place; returns the model.

    Those with groups, dilation, or padding other than with zeros and narrower than the kernel stay as
    they are, and so do subclasses of ``nn.Conv2d``. Do it last: layers made afterwards are not touched.

    >>> layer = multiply_small_maps(nn.Conv2d(3, 5, kernel_size=3, padding=1))
    >>> layer(torch.ones(2, 3, 1, 1)).shape
    torch.Size([2, 5, 1, 1])
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = SmallMapConv2d
    return model


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and all(padding < kernel for padding, kernel in zip(layer.padding, layer.kernel_size, strict=True))
    )


def _windows(size: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int, int]]:
    """For each output position along one axis: the first and last + 1 of its taps on the map, and where they start."""
    starts = range(-padding, size + padding - kernel + 1, stride)
    return [(max(0, -start), min(kernel, size - start), max(0, start)) for start in starts]


def _matrix(
    weight: Float[Tensor, "O C k l"],
    size: tuple[int, int],
    rows: list[tuple[int, int, int]],
    columns: list[tuple[int, int, int]],
) -> Float[Tensor, "hwO HWC"]:
    """The convolution's matrix on a map of this size: a block of O rows for each output position."""
    kernels = weight.permute(0, 2, 3, 1)  # contiguous in channels_last: each slice is made of whole runs
    blocks = []
    for top, bottom, row in rows:
        for left, right, column in columns:
            block = kernels[:, top:bottom, left:right]
            below, behind = size[0] - row - (bottom - top), size[1] - column - (right - left)
            if row or below or column or behind:
                block = pad(block, (0, 0, column, behind, row, below))
            blocks.append(block.flatten(1))
    return torch.cat(blocks)
