from __future__ import annotations

import pytest
import torch
import torchvision

from neuralcollapse.nn import build_backbone


@pytest.mark.parametrize(("name", "channels"), [("mlp", 1), ("convnet", 3), ("resnet18", 3), ("timm:resnet10t", 3)])
def test_networks_by_name(name: str, channels: int) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    network = build_backbone(name, 7, (channels, 32, 32))
    assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


def test_resnet18_is_torchvisions() -> None:
    torch.manual_seed(0)
    ours = build_backbone("resnet18", 10, (3, 32, 32))
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=10)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 11_181_642  # the paper's figure
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'lenet'.*Choose mlp, convnet"):
        build_backbone("lenet", 10, (1, 8, 8))
    with pytest.raises(ValueError, match="takes images of 3 channels, not 1"):
        build_backbone("resnet18", 10, (1, 8, 8))


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18"])
@pytest.mark.parametrize("width", [0, -1])
def test_a_width_below_one_is_refused(name: str, width: int) -> None:
    with pytest.raises(ValueError, match=f"width={width} must be at least 1"):
        build_backbone(name, 10, (3, 32, 32), width=width)
