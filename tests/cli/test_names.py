"""Names read from a library's files are those that the library itself lists."""

from __future__ import annotations

import pytest
import torchvision

from neuralcollapse.names import BACKBONES, check_dataset, check_model, library_models
from neuralcollapse.nn import build_backbone


def test_torchvision() -> None:
    assert library_models("torchvision") == sorted(torchvision.models.list_models(module=torchvision.models))


def test_timm() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install '.[hf]'")
    assert library_models("timm") == sorted(timm.list_models())


def test_what_is_accepted_can_be_built() -> None:
    for name in (*BACKBONES, "torchvision:squeezenet1_1"):
        check_model(name)
        build_backbone(name, 3, (3, 32, 32))
    for name in ("digits", "mnist", "imagefolder:.", "hf:user/set", "hf:C:/folder"):
        check_dataset(name)


@pytest.mark.parametrize("name", ["", ":", "timm:", "torchvision:", "digits:x", "mnist:", "imagefolder", "hf"])
def test_half_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown|no model"):
        check_model(name)
    with pytest.raises(ValueError, match="unknown dataset"):
        check_dataset(name)
