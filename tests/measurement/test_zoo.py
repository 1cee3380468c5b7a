"""Every torchvision classification model and many timm families, never told which layer is the classifier."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from torch import nn

from neuralcollapse import measure

CLASSES = 4
TORCHVISION = torchvision.models.list_models(module=torchvision.models)
TIMM = {
    "resnet18": 64, "vit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 224, "convnext_atto": 64,
    "efficientnet_b0": 64, "mobilenetv3_small_050": 64, "densenet121": 64, "regnetx_002": 64, "mixer_s32_224": 224,
    "deit_tiny_patch16_224": 224, "cait_xxs24_224": 224, "beit_base_patch16_224": 224, "ghostnet_050": 64,
    "repvgg_a0": 64, "hrnet_w18_small": 64, "visformer_tiny": 224, "poolformer_s12": 64, "edgenext_xx_small": 64,
    "mobilevit_xxs": 64, "vgg11": 64, "xcit_nano_12_p16_224": 224, "dla34": 64, "inception_v4": 96, "nf_regnet_b0": 64,
    "davit_tiny": 64, "pvt_v2_b0": 64,
}  # fmt: skip


def check(model: nn.Module, size: int) -> None:
    x, y = torch.randn(2 * CLASSES, 3, size, size), torch.arange(2 * CLASSES) % CLASSES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = measure(model, [(x[:CLASSES], y[:CLASSES]), (x[CLASSES:], y[CLASSES:])])
    layer = model.get_submodule(report.classifier)
    assert layer.weight.shape[0] == CLASSES
    assert report.statistics.total == 2 * CLASSES
    # The features measured are those behind the logits.
    logits = report.features @ layer.weight.detach().flatten(1).T
    if layer.bias is not None:
        logits += layer.bias.detach()
    if isinstance(layer, nn.Linear):
        with torch.no_grad():
            direct = model.eval()(x)
        torch.testing.assert_close(logits.float(), direct, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 75 if name == "inception_v3" else 224 if name.startswith(("vit", "swin", "maxvit")) else 64
    torch.manual_seed(0)
    check(torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options), size)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    check(timm.create_model(name, pretrained=False, num_classes=CLASSES), TIMM[name])


def test_two_heads_trained_together_are_ambiguous() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("levit_128s", pretrained=False, num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"ambiguous classifier: head\.linear .*, head_dist\.linear"):
        measure(model, [])
