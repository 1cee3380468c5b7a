from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d, cross_entropy

from neuralcollapse.nn import multiply_small_maps
from neuralcollapse.nn.small_maps import SmallMapConv2d


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, int]]:
    """A convolution with padding narrower than its kernel, and a map that it fits, of any size up to 5x5."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, side - 1)) for side in kernel)
    size = tuple(draw(st.integers(max(1, side - 2 * margin), 5)) for side, margin in zip(kernel, padding, strict=True))
    layer = nn.Conv2d(
        draw(st.integers(1, 3)), draw(st.integers(1, 4)), kernel, draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding, bias=draw(st.booleans()), dtype=torch.float64,
    )  # fmt: skip
    return layer.to(memory_format=draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))), size


@settings(deadline=None, max_examples=200)
@given(layers(), st.integers(0, 3))
def test_values_and_gradients_are_torchs(drawn: tuple[nn.Conv2d, tuple[int, int]], batch: int) -> None:
    layer, size = drawn
    images = torch.randn(batch, layer.in_channels, *size, dtype=torch.float64, requires_grad=True)
    expected = conv2d(images, layer.weight, layer.bias, layer.stride, layer.padding)
    inputs = [images, *layer.parameters()]
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, direction)
    multiply_small_maps(layer)
    assert type(layer) is SmallMapConv2d
    found = layer(images)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(found, inputs, direction), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_it_is_a_product_on_small_maps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = multiply_small_maps(nn.Conv2d(2, 3, 3, padding=1))
    called: list[tuple[int, ...]] = []
    convolve = nn.Conv2d.forward

    def recorded(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        called.append(tuple(images.shape))
        return convolve(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", recorded)
    for side in (1, 2):
        assert layer(torch.zeros(4, 2, side, side)).shape == (4, 3, side, side)
    assert not called
    layer(torch.zeros(4, 2, 3, 3))
    layer(torch.zeros(2, 1, 1))  # without a batch
    assert called == [(4, 2, 3, 3), (2, 1, 1)]


def test_a_strided_1x1_convolution_of_few_channels_is_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (multiply_small_maps(nn.Conv2d(channels, 8, 1, stride=2)) for channels in (7, 8))
    images = torch.randn(4, 7, 8, 8, requires_grad=True)
    found = few(images)
    wanted = torch.einsum("oc,bchw->bohw", few.weight[:, :, 0, 0], images[:, :, ::2, ::2]) + few.bias[:, None, None]
    torch.testing.assert_close(found, wanted)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, images: torch.full((4, 8, 4, 4), 7.0))
    assert few(images).ne(7.0).all()
    assert many(torch.zeros(4, 8, 8, 8)).eq(7.0).all()


@pytest.mark.parametrize(("side", "product"), [(1, True), (2, True), (4, True), (5, False)])
def test_a_strided_1x1_convolution_of_many_channels_is_a_product_on_small_maps(
    monkeypatch: pytest.MonkeyPatch, side: int, product: bool
) -> None:
    layer = nn.Conv2d(16, 24, 1, stride=2).double().to(memory_format=torch.channels_last)
    images = torch.randn(3, 16, side, side, dtype=torch.float64, requires_grad=True)
    inputs = [images, *layer.parameters()]
    expected = layer(images)
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, direction)
    convolved: list[int] = []
    convolve = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: convolved.append(side) or convolve(self, x))
    found = multiply_small_maps(layer)(images)
    assert convolved == ([] if product else [side])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(found, inputs, direction), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=3),
        nn.Conv1d(4, 4, 3),
    ],
)
def test_other_convolutions_stay(layer: nn.Module) -> None:
    before = type(layer)
    assert type(multiply_small_maps(layer)) is before


def test_a_kernel_that_does_not_fit_is_refused_as_by_torch() -> None:
    layer = multiply_small_maps(nn.Conv2d(1, 1, 3))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        layer(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 1)])
def test_a_wrong_number_of_channels_is_refused_as_by_torch(kernel: int, stride: int) -> None:
    layer = multiply_small_maps(nn.Conv2d(3, 4, kernel, stride=stride, padding=kernel // 2))
    with pytest.raises(RuntimeError, match=r"to have 3 channels, but got 5 channels instead"):
        layer(torch.zeros(1, 5, 2, 2))


def test_a_resnet_trains_as_before() -> None:
    torch.manual_seed(0)
    plain = torchvision.models.resnet18(num_classes=4).double().to(memory_format=torch.channels_last)
    ours = multiply_small_maps(copy.deepcopy(plain))
    small = [name for name, module in ours.named_modules() if isinstance(module, SmallMapConv2d)]
    assert len(small) == 20
    assert list(ours.state_dict()) == list(plain.state_dict())
    images, labels = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.arange(8) % 4
    for network in (plain, ours):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(network(images), labels).backward()
            optimizer.step()
    for (name, mine), theirs in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9, msg=name)
    for parameter in ours.parameters():  # the fused optimizers read both as one run of numbers
        assert parameter.grad is not None
        assert torch.empty_like(parameter).stride() == torch.empty_like(parameter.grad).stride()
