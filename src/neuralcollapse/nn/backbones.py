"""The paper's networks, and any other by name.

Zhu et al., Section 4, use torchvision's ResNets with the ImageNet stem, and in Section 5 multilayer
perceptrons. The two small networks are for small images and short waits.
"""

from __future__ import annotations

import difflib

from torch import nn

BACKBONES = ("mlp", "convnet", "resnet18", "resnet50")


def build_backbone(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Build an untrained network by name.

    Args:
        name: ``mlp``, ``convnet``, ``resnet18``, ``resnet50``, ``torchvision:NAME`` or ``timm:NAME``.
        num_classes: K, the number of logits.
        image_shape: (channels, height, width) of the input.

    Raises:
        ValueError: if no network has this name, or it cannot be built for these images.
        ImportError: if ``timm:`` is asked for and timm is not installed.

    >>> net = build_backbone("mlp", 10, (1, 8, 8))
    >>> sum(parameter.numel() for parameter in net.parameters())
    218634
    """
    channels, height, width = image_shape
    if name == "mlp":
        return mlp(channels * height * width, num_classes)
    if name == "convnet":
        return convnet(channels, num_classes)
    source, _, architecture = name.rpartition(":")
    if source == "timm":
        return _timm(architecture, num_classes, channels)
    if source == "torchvision" or (not source and name in BACKBONES):
        return _torchvision(architecture, num_classes, channels)
    raise ValueError(f"unknown model {name!r}: choose {', '.join(BACKBONES)}, torchvision:NAME or timm:NAME")


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


def _torchvision(architecture: str, num_classes: int, channels: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    _check_name(architecture, known, "torchvision")
    if channels != 3:
        raise ValueError(f"torchvision:{architecture} takes images of 3 channels, not {channels}")
    options = {"init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(architecture, weights=None, num_classes=num_classes, **options)


def _timm(architecture: str, num_classes: int, channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError("timm: models need the extra: pip install 'neuralcollapse[hf]'") from error
    _check_name(architecture.partition(".")[0], timm.list_models(), "timm")
    return timm.create_model(architecture, pretrained=False, num_classes=num_classes, in_chans=channels)


def _check_name(name: str, known: list[str], library: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise ValueError(f"{library} has no model {name!r}; close names: {', '.join(close)}")
