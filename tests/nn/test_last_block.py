"""The last block of a ResNet given another width: everything but the width and the weights stays."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from neuralcollapse import fix_classifier, set_feature_dim
from neuralcollapse.nn.small_maps import SmallMapConv2d, multiply_small_maps


class Block(nn.Module):
    """A residual block of two convolutions, as torchvision and timm name its parts."""

    def __init__(self, convolution: nn.Module, norm: nn.Module, *, skip: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = convolution, norm
        self.downsample = (
            nn.Sequential(nn.Conv2d(8, 8, 1, padding_mode="circular"), nn.BatchNorm2d(8)) if skip else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (found + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.layer4, self.fc = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), block), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer4(x).mean((2, 3)))


def convolution(**options: object) -> nn.Conv2d:
    return nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1, **options})  # type: ignore[arg-type]


def settings(layer: nn.Module) -> dict[str, object]:
    """Every plain attribute, and the kind of every tensor, but for the width."""
    plain = {name: value for name, value in vars(layer).items() if isinstance(value, bool | int | float | str | tuple)}
    tensors = {f"{name} {tensor.dtype} {tensor.ndim}": True for name, tensor in layer.state_dict().items()}
    hidden = ("out_channels", "num_features", "groups")
    return {name: value for name, value in (plain | tensors).items() if name not in hidden} | {
        "type": type(layer),
        "momentum": getattr(layer, "momentum", None),
        "tracked": getattr(layer, "running_mean", None) is not None,
        "bias": layer._parameters.get("bias") is not None,
    }


NORMS = {
    "eps and momentum": lambda: nn.BatchNorm2d(8, eps=1e-3, momentum=0.01),
    "cumulative": lambda: nn.BatchNorm2d(8, momentum=None),
    "not affine": lambda: nn.BatchNorm2d(8, affine=False),
    "not tracked": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "neither": lambda: nn.BatchNorm2d(8, affine=False, track_running_stats=False),
    "synchronised": lambda: nn.SyncBatchNorm(8, momentum=0.3),
    "instance": lambda: nn.InstanceNorm2d(8),
    "affine instance": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "float64": lambda: nn.BatchNorm2d(8).double(),
    "evaluated": lambda: nn.BatchNorm2d(8).eval(),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_keep_every_setting(name: str) -> None:
    block = Block(convolution(), NORMS[name]())
    old = block.bn2
    with torch.no_grad():
        for tensor in old.state_dict().values():
            tensor.fill_(7)
    set_feature_dim(ResNet(block), 4)
    assert isinstance(block.downsample, nn.Sequential)
    for new in (block.bn2, block.downsample[1]):
        assert settings(new) == settings(old)
        assert new.num_features == 4
        fresh = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
        for key, tensor in new.state_dict().items():
            assert tensor.tolist() == (fresh[key] if tensor.ndim == 0 else [fresh[key]] * 4)
    assert old.num_features == 8
    assert all(bool((tensor == 7).all()) for tensor in old.state_dict().values())
    assert all(parameter.requires_grad for parameter in block.bn2.parameters())


CONVOLUTIONS = {
    "circular": {"padding_mode": "circular"},
    "reflected": {"padding_mode": "reflect", "bias": False},
    "dilated": {"dilation": 2, "padding": 2},
    "words": {"padding": "same", "dilation": 3},
    "two groups": {"groups": 2},
    "float64": {"dtype": torch.float64},
    "no bias": {"bias": False},
    "by five": {"kernel_size": (1, 5), "padding": (0, 2)},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("skip", [False, True])
def test_convolutions_keep_every_setting(name: str, skip: bool) -> None:
    block = Block(convolution(**CONVOLUTIONS[name]), nn.BatchNorm2d(8), skip=skip)
    old, path = block.conv2, block.downsample and block.downsample[0]
    model = set_feature_dim(ResNet(block), 6)
    assert settings(block.conv2) == settings(old)
    assert block.conv2.groups == old.groups
    assert tuple(block.conv2.weight.shape) == (6, *old.weight.shape[1:])
    assert bool(block.conv2.weight.requires_grad)
    assert tuple(old.weight.shape[:1]) == (8,)
    if skip:
        assert settings(block.downsample[0]) == settings(path)
    x = torch.randn(5, 3, 7, 7)
    if name == "float64":
        model = model.double()
    assert model(x.to(model.fc.weight)).shape == (5, 4)
    found = block.conv2(torch.ones(1, 8, 7, 7, dtype=block.conv2.weight.dtype))
    with torch.no_grad():
        block.conv2.weight.zero_()
    assert found.shape == (1, 6, 7, 7)
    assert not torch.equal(found, block.conv2(torch.ones(1, 8, 7, 7, dtype=block.conv2.weight.dtype)))


def test_groups_that_do_not_divide_the_width_become_those_that_do() -> None:
    block = Block(convolution(groups=4), nn.BatchNorm2d(8))
    model = set_feature_dim(ResNet(block), 6)
    assert block.conv2.groups == 2
    assert model(torch.randn(5, 3, 7, 7)).shape == (5, 4)


def test_the_function_of_the_new_convolution_is_that_of_its_settings() -> None:
    block = Block(convolution(padding_mode="circular", bias=False), nn.BatchNorm2d(8))
    set_feature_dim(ResNet(block), 4)
    x = torch.randn(2, 8, 6, 6)
    plain = nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular", bias=False)
    with torch.no_grad():
        plain.weight.copy_(block.conv2.weight)
    torch.testing.assert_close(block.conv2(x), plain(x))


def test_kinds_of_layers_and_hooks_stay() -> None:
    block = Block(convolution(), nn.BatchNorm2d(8))
    model = multiply_small_maps(ResNet(block))
    seen: list[tuple[int, ...]] = []
    handle = block.conv2.register_forward_hook(lambda layer, given, found: seen.append(tuple(found.shape)))
    set_feature_dim(model, 4)
    assert isinstance(block.conv2, SmallMapConv2d)
    model(torch.randn(5, 3, 2, 2))
    assert seen == [(5, 4, 2, 2)]
    handle.remove()
    model(torch.randn(5, 3, 2, 2))
    assert len(seen) == 1


def test_the_norm_of_a_new_skip_path_has_no_hooks_of_the_block_s_norm() -> None:
    block = Block(convolution(), nn.BatchNorm2d(8))
    seen: list[int] = []
    block.bn2.register_forward_hook(lambda layer, given, found: seen.append(1))
    block.bn2.register_forward_pre_hook(lambda layer, given: seen.append(2))
    block.bn2.register_full_backward_hook(lambda layer, given, found: seen.append(3))
    model = set_feature_dim(ResNet(block), 4)
    assert isinstance(block.downsample, nn.Sequential)
    model(torch.randn(5, 3, 7, 7)).sum().backward()
    assert seen == [2, 1, 3]


@pytest.mark.parametrize("change", [
    lambda block: nn.utils.parametrizations.weight_norm(block.conv2),
    lambda block: nn.utils.parametrizations.spectral_norm(block.conv2),
    lambda block: prune.l1_unstructured(block.conv2, "weight", 0.5),
    lambda block: setattr(block, "bn2", nn.GroupNorm(2, 8)),
])  # fmt: skip
def test_a_block_that_cannot_be_narrowed_gets_a_projection_behind_it(change: object) -> None:
    block = Block(convolution(), nn.BatchNorm2d(8))
    change(block)  # type: ignore[operator]
    old = block.conv2
    model = set_feature_dim(ResNet(block), 4)
    assert block.conv2 is old
    assert isinstance(model.fc, nn.Sequential)
    assert model(torch.randn(5, 3, 7, 7)).shape == (5, 4)


class Attending(Block):
    """Weighs its channels, as squeeze-and-excitation blocks do."""

    def __init__(self) -> None:
        super().__init__(convolution(), nn.BatchNorm2d(8))
        self.attention = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        weights = self.attention(found.mean((2, 3), keepdim=True)).sigmoid()
        return (weights * found + (x if self.downsample is None else self.downsample(x))).relu()


class Scaled(Block):
    def __init__(self) -> None:
        super().__init__(convolution(), nn.BatchNorm2d(8))
        self.gamma = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.gamma * self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (found + (x if self.downsample is None else self.downsample(x))).relu()


class NormFirst(Block):
    def __init__(self) -> None:
        super().__init__(convolution(), nn.BatchNorm2d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        return found + (x if self.downsample is None else self.downsample(x))


class Recorder:
    """Holds what cannot be copied, as loggers do."""

    def __init__(self) -> None:
        self.seen, self.lock = 0, threading.Lock()

    def note(self, *_: object) -> None:
        self.seen += 1


@pytest.mark.parametrize("kind", [Attending, Scaled, NormFirst])
def test_a_block_that_does_not_run_narrowed_gets_a_projection_behind_it(kind: type[Block]) -> None:
    model, ran = ResNet(kind()), Recorder()
    model.layer4[1].conv1.register_forward_hook(ran.note)
    before = {name: tensor.clone() for name, tensor in model.layer4.state_dict().items()}
    set_feature_dim(model, 4)
    assert not ran.seen
    assert isinstance(model.fc, nn.Sequential)
    assert model.layer4.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.layer4.state_dict().items())
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)


def test_a_reader_of_the_last_block_joined_with_another_gets_a_projection() -> None:
    class Joined(ResNet):
        def __init__(self) -> None:
            super().__init__(Block(convolution(), nn.BatchNorm2d(8)))
            self.decoder = nn.Conv2d(11, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.decoder(torch.cat([self.layer4(x), x], 1)).mean((2, 3)))

    model = set_feature_dim(Joined(), 4)
    assert isinstance(model.fc, nn.Sequential)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)


def test_what_is_new_trains_and_a_fixed_head_follows() -> None:
    model = fix_classifier(set_feature_dim(ResNet(Block(convolution(), nn.BatchNorm2d(8, affine=False))), 4))
    model(torch.randn(5, 3, 7, 7)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
