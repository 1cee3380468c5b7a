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


def state(seed: int, width: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "1.weight": torch.randn(width, 12, generator=generator),
        "1.bias": torch.zeros(width),
        "3.weight": torch.randn(3, width, generator=generator),
        "3.bias": torch.zeros(3),
    }


def under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


ONE, OTHER = state(1), state(2)

NESTED = {
    "net": {"net": ONE},
    "params": {"params": ONE, "epoch": 3, "best": 0.5},
    "doubly": {"state_dict": {"state_dict": ONE}},
    "deep": {"trainer": {"model": {"weights": under("module.", ONE)}}},
    "beside an optimizer": {"model": ONE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4, 12)}}, "lr": 0.1}},
    "beside moments of the same names": {"model": ONE, "optimizer": {"momentum": {"1.weight": torch.zeros(4, 12)}}},
    "beside part of another": {"state_dict": under("model.", ONE) | under("ema.", {"1.weight": OTHER["1.weight"]})},
    "beside a wider one": {"state_dict": under("student.", ONE) | under("teacher.", state(2, 5))},
    "after a wider one": {"state_dict": under("aa.", state(2, 5)) | under("student.", ONE)},
    "twice the same": {"model": ONE, "model_copy": {name: tensor.clone() for name, tensor in ONE.items()}},
}


@pytest.mark.parametrize("kind", NESTED)
def test_the_one_mapping_that_fits_is_found(kind: str, tmp_path: Path) -> None:
    found = network()
    torch.save(NESTED[kind], tmp_path / "weights.pt")
    load_weights(found, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, ONE[name]) for name, tensor in found.backbone.state_dict().items())


TWO = {
    "prefixes": (under("student.", ONE) | under("teacher.", OTHER), "'student', 'teacher'"),
    "in a state_dict": (
        {"state_dict": under("student.", ONE) | under("teacher.", OTHER)},
        "'state_dict.student', 'state_dict.teacher'",
    ),
    "a wrapper and another": (under("model.", ONE) | under("ema.", OTHER), "'ema', 'model'"),
    "compiled": (under("a._orig_mod.", ONE) | under("b._orig_mod.", OTHER), "'a', 'b'"),
    "mappings": ({"model": ONE, "model_ema": OTHER}, "'model', 'model_ema'"),
    "plain and prefixed": (ONE | under("ema.", OTHER), r"'\.', 'ema'"),
    "whole networks": (
        under("student.backbone.", ONE) | under("teacher.backbone.", OTHER),
        "'student.backbone', 'teacher.backbone'",
    ),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", TWO)
def test_two_networks_that_fit_are_refused_whatever_their_order(kind: str, turned: bool, tmp_path: Path) -> None:
    content, places = TWO[kind]
    if turned and kind != "mappings":
        content = dict(reversed(content.items()))
    torch.save(content, tmp_path / "weights.pt")
    found = network()
    before = {name: tensor.clone() for name, tensor in found.state_dict().items()}
    with pytest.raises(
        ValueError, match=f"weights of 2 networks that fit, under {places}: choose one with checkpoint_key"
    ):
        load_weights(found, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "key", "other"),
    [
        ("prefixes", "teacher", "student"),
        ("prefixes", "teacher.", "student."),
        ("in a state_dict", "teacher", "student"),
        ("in a state_dict", "state_dict.teacher", "state_dict.student"),
        ("a wrapper and another", "ema", "model"),
        ("compiled", "b", "a"),
        ("mappings", "model_ema", "model"),
        ("plain and prefixed", "ema", "."),
        ("whole networks", "teacher", "student.backbone"),
    ],
)
def test_the_network_that_was_asked_for_is_loaded(kind: str, key: str, other: str, tmp_path: Path) -> None:
    torch.save(TWO[kind][0], tmp_path / "weights.pt")
    for asked, wanted in ((key, OTHER), (other, ONE)):
        found = network()
        load_weights(found, tmp_path / "weights.pt", asked)
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.backbone.state_dict().items())


def test_a_key_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    torch.save(TWO["mappings"][0], tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"checkpoint_key='ema': .* under 'model', 'model_ema' and nowhere else"):
        load_weights(network(), tmp_path / "weights.pt", "ema")


def test_a_key_of_two_places_is_refused(tmp_path: Path) -> None:
    torch.save({"a": {"net": ONE}, "b": {"net": OTHER}}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"2 networks that fit, under 'a\.net', 'b\.net': choose one"):
        load_weights(network(), tmp_path / "weights.pt", "net")


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    torch.save({"net": state(1, 5)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"belongs to another network: size mismatch for 1\.weight"):
        load_weights(network(), tmp_path / "weights.pt")
