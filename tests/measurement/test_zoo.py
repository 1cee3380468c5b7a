"""Every torchvision classification model and 30 timm families, measured, converted and trained for a step.

No test is told which layer is the classifier. By default the smallest model of each of torchvision's families, and
timm's families that differ in their head; the rest are exhaustive.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from neuralcollapse import ETFClassifier, find_classifier, fix_classifier, measure, set_feature_dim

CLASSES = 3
TORCHVISION = torchvision.models.list_models(module=torchvision.models)
ONE_PER_FAMILY = {
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11",
    "vit_b_16",
}  # fmt: skip
DIFFERENT_HEADS = {
    "resnet18", "vit_tiny_patch16_224", "convnext_atto", "cait_xxs24_224", "repvgg_a0", "mobilevit_xxs", "resnetv2_50",
    "mobilenetv3_small_050",
}  # fmt: skip
TIMM = {
    "resnet18": 64, "vit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 224, "convnext_atto": 64,
    "efficientnet_b0": 64, "mobilenetv3_small_050": 64, "densenet121": 64, "regnetx_002": 64, "mixer_s32_224": 224,
    "deit_tiny_patch16_224": 224, "cait_xxs24_224": 224, "beit_base_patch16_224": 224, "ghostnet_050": 64,
    "repvgg_a0": 64, "hrnet_w18_small": 64, "visformer_tiny": 224, "poolformer_s12": 64, "edgenext_xx_small": 64,
    "mobilevit_xxs": 64, "vgg11": 64, "xcit_nano_12_p16_224": 224, "dla34": 64, "inception_v4": 96, "nf_regnet_b0": 64,
    "davit_tiny": 64, "pvt_v2_b0": 64, "resnetv2_50": 64, "res2net50_26w_4s": 64, "mnasnet_050": 64, "lcnet_050": 64,
    "seresnet18": 64,
}  # fmt: skip


def quick(names: Iterable[str], chosen: set[str]) -> list[Any]:
    """All names; those that are not chosen run with the exhaustive tests."""
    assert chosen <= set(names)
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.exhaustive) for name in names]


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
    convert(model, x[:CLASSES], y[:CLASSES])


def convert(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = copy.deepcopy(model)
    old, _ = find_classifier(model)
    fix_classifier(model)
    assert find_classifier(model)[0] == old
    assert f"{old}.weight" in untouched(model, before) <= {f"{old}.weight", f"{old}.bias"}
    set_feature_dim(model, CLASSES)
    new, head = find_classifier(model)
    assert isinstance(head, ETFClassifier)
    assert head.in_features == CLASSES
    block = new == old
    changed = untouched(model, before) - {f"{old}.weight", f"{old}.bias"}
    assert all(block and name.startswith(("layer4.", "backbone.layer4.")) for name in changed), changed

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    output = model(x)
    logits = output[0] if isinstance(output, tuple) else output
    nn.functional.cross_entropy(logits, y).backward()
    projected = [p for name, p in model.named_parameters() if name not in before or p.shape != before[name].shape]
    assert projected
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in projected)
    optimizer.step()
    # The same conversion of another copy takes what this one saved.
    set_feature_dim(fix_classifier(fresh), CLASSES).load_state_dict(model.state_dict())
    trained = fresh.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


def untouched(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors of before that are gone or have changed."""
    now = model.state_dict()
    return {
        name
        for name, tensor in before.items()
        if name not in now or now[name].shape != tensor.shape or not torch.equal(now[name], tensor)
    }


@pytest.mark.parametrize("name", quick(TORCHVISION, ONE_PER_FAMILY))
def test_torchvision(name: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = 299 if name == "inception_v3" else 224 if name.startswith(("vit", "swin", "maxvit")) else 64
    torch.manual_seed(0)
    check(torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options), size)


@pytest.mark.parametrize("name", quick(TIMM, DIFFERENT_HEADS))
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    check(timm.create_model(name, pretrained=False, num_classes=CLASSES), TIMM[name])


def test_two_heads_trained_together_are_ambiguous() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("levit_128s", pretrained=False, num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"ambiguous classifier: head\.linear .*, head_dist\.linear"):
        measure(model, [])
