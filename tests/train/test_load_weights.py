"""Weights are found under any nesting of the prefixes that wrappers leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from neuralcollapse.train.checkpoint import load_weights
from neuralcollapse.train.module import ImageNetwork

PREFIXES = (
    "", "module.", "_orig_mod.", "model.", "net.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod.",
    "model.module._orig_mod.", "network.backbone.", "network._orig_mod.backbone.", "ema.student.",
)  # fmt: skip


def network() -> ImageNetwork:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))
    return ImageNetwork(backbone, torch.zeros(3), torch.ones(3), 3)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("whole", [False, True], ids=["backbone", "network"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "state_dict"])
def test_weights_under_a_prefix(prefix: str, whole: bool, wrapped: bool, tmp_path: Path) -> None:
    given, found = network(), network()
    stored = {prefix + name: tensor for name, tensor in (given if whole else given.backbone).state_dict().items()}
    stored |= {"optimizer.step": torch.zeros(1)}
    torch.save({"state_dict": stored} if wrapped else stored, tmp_path / "weights.pt")
    load_weights(found, tmp_path / "weights.pt")
    assert all(
        torch.equal(tensor, found.backbone.state_dict()[name]) for name, tensor in given.backbone.state_dict().items()
    )


def test_names_with_a_compiled_part_in_the_middle(tmp_path: Path) -> None:
    given, found = network(), network()
    stored = {name.replace("1.", "1._orig_mod."): tensor for name, tensor in given.backbone.state_dict().items()}
    torch.save(stored, tmp_path / "weights.pt")
    load_weights(found, tmp_path / "weights.pt")
    assert torch.equal(found.backbone[1].weight, given.backbone[1].weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"module.1.weight": torch.zeros(4, 12)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"belongs to another network: it lacks \d of 4 tensors"):
        load_weights(network(), tmp_path / "weights.pt")
