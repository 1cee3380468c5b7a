"""The paper's networks, and any other by name.

Zhu et al., Section 4, use torchvision's ResNets with the ImageNet stem, and in Section 5 multilayer
perceptrons. The two small networks are for small images and short waits.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from neuralcollapse.extras import missing
from neuralcollapse.names import BACKBONES, check_library_model, unknown_model


def build_backbone(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    width: int | None = None,
    stem: Literal["imagenet", "small"] = "imagenet",
) -> nn.Module:
    """Build an untrained network by name.

    Args:
        name: ``mlp``, ``convnet``, ``resnet18``, ``resnet50``, ``torchvision:NAME`` or ``timm:NAME``.
        num_classes: K, the number of logits.
        image_shape: (channels, height, width) of the input.
        width: of ``mlp``'s layers (256), or of the first stage of ``resnet18`` and ``resnet50`` (64).
        stem: of ``resnet18`` and ``resnet50``: ``small`` is a 3x3 convolution of stride 1 without pooling.

    Raises:
        ValueError: if no network has this name, it cannot be built for these images, or the width is less than 1.
        ImportError: if ``timm:`` is asked for and timm is not installed.

    >>> net = build_backbone("mlp", 10, (1, 8, 8))
    >>> sum(parameter.numel() for parameter in net.parameters())
    218634
    """
    if width is not None and width < 1:
        raise ValueError(f"width={width} must be at least 1, or None for the usual width")
    channels, height, breadth = image_shape
    if name == "mlp":
        return mlp(channels * height * breadth, num_classes, 256 if width is None else width)
    if name == "convnet":
        return convnet(channels, num_classes)
    if name in BACKBONES and (width not in (None, 64) or stem != "imagenet"):
        return resnet(name, num_classes, 64 if width is None else width, stem)
    source, _, architecture = name.rpartition(":")
    if source == "timm":
        return _timm(architecture, num_classes, channels)
    if source == "torchvision" or (not source and name in BACKBONES):
        return _torchvision(architecture, num_classes, channels)
    raise unknown_model(name)


def mlp(inputs: int, num_classes: int, width: int = 256, depth: int = 4) -> nn.Sequential:
    """Multilayer perceptron with batch normalisation; ``depth`` hidden layers and a linear classifier."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def convnet(channels: int, num_classes: int, width: int = 32) -> nn.Sequential:
    """Four 3x3 convolutions with batch normalisation, average pooling and a linear classifier."""
    layers: list[nn.Module] = []
    for index in range(4):
        outputs = width * 2 ** (index // 2)
        stride = 2 if index == 2 else 1
        layers += [
            nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def resnet(name: str, num_classes: int, width: int, stem: Literal["imagenet", "small"]) -> nn.Module:
    """Torchvision's ResNet18 or ResNet50 with another width of the first stage (64), or a stem for small images."""
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    class Wide(ResNet):  # torchvision writes the widths into its constructor, which calls _make_layer four times
        def _make_layer(self, block: Any, planes: int, *rest: Any, **options: Any) -> nn.Sequential:
            if planes == 64:
                self.inplanes = width
            return super()._make_layer(block, planes * width // 64, *rest, **options)

    block, depths = {"resnet18": (BasicBlock, [2, 2, 2, 2]), "resnet50": (Bottleneck, [3, 4, 6, 3])}[name]
    model = Wide(block, depths, num_classes)
    kernel, stride, padding = (3, 1, 1) if stem == "small" else (7, 2, 3)
    model.conv1 = nn.Conv2d(3, width, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.bn1 = nn.BatchNorm2d(width)
    if stem == "small":
        model.maxpool = nn.Identity()
    model.fc = nn.Linear(8 * width * block.expansion, num_classes)
    return model


def _torchvision(architecture: str, num_classes: int, channels: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    check_library_model(architecture, known, "torchvision")
    if channels != 3:
        raise ValueError(f"torchvision:{architecture} takes images of 3 channels, not {channels}")
    options = {"init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(architecture, weights=None, num_classes=num_classes, **options)


def _timm(architecture: str, num_classes: int, channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise missing("timm: models", "hf") from error
    check_library_model(architecture.partition(".")[0], timm.list_models(), "timm")
    return timm.create_model(architecture, pretrained=False, num_classes=num_classes, in_chans=channels)
