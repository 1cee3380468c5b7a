"""Where data are read twice, a loader that gives other data the second time is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from neuralcollapse import CollapseWarning, measure, measure_language_model

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + 2 * nn.functional.one_hot(LABELS, 8)
TARGETS = INPUTS[:, :2] + 0.3 * torch.randn(60, 2, generator=torch.Generator().manual_seed(1))


class Once:
    """Gives the same iterator each time, and is none itself."""

    def __init__(self, batches: list) -> None:
        self.iterator = iter(batches)

    def __iter__(self) -> Iterator:
        return self.iterator


class Shrinking:
    """Gives a batch less each time."""

    def __init__(self, batches: list) -> None:
        self.batches, self.times = batches, 0

    def __iter__(self) -> Iterator:
        self.times += 1
        return iter(self.batches[self.times - 1 :])


class Growing(Shrinking):
    def __iter__(self) -> Iterator:
        self.times += 1
        return iter(self.batches * self.times)


class Indexed:
    """The old protocol, which can be read again."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


OTHERWISE: dict[str, tuple[Callable[[list], Any], str]] = {
    "once": (Once, "gave 60 samples when it was read, and 0 when it was read again"),
    "shrinking": (Shrinking, "gave 60 samples when it was read, and 40 when"),
    "growing": (Growing, "gave 60 samples when it was read, and 120 when"),
}


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs))


def batches(labels: torch.Tensor) -> list:
    return list(zip(INPUTS.split(20), labels.split(20), strict=True))


@pytest.mark.parametrize("kind", OTHERWISE)
def test_all_layers(kind: str) -> None:
    make, message = OTHERWISE[kind]
    with pytest.warns(CollapseWarning, match=f"{message}.*leaves out the nearest class centres.*Pass a loader"):
        found = measure(network(3), make(batches(LABELS)), layers="all")
    assert found.depth is not None
    assert found.depth.effective_depth is None
    assert all(layer.ncc_mismatch is None for layer in found.depth.layers.values())
    assert found.to_dict() == measure(network(3), batches(LABELS)).to_dict()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("error")
def test_what_can_be_read_again_is() -> None:
    expected = measure(network(3), batches(LABELS), layers="all").depth
    assert measure(network(3), Indexed(batches(LABELS)), layers="all").depth == expected


@pytest.mark.parametrize("kind", OTHERWISE)
def test_streamed_regression(kind: str) -> None:
    make, message = OTHERWISE[kind]
    with pytest.warns(CollapseWarning, match=f"{message}.*NRC1 and NRC2 are left out"):
        found = measure(network(2), make(batches(TARGETS)), task="regression", ncc=False).to_dict()
    expected = measure(network(2), batches(TARGETS), task="regression", ncc=False).to_dict()
    assert found == {**expected, "nrc1": None, "nrc2": None}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_language_models(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )
    tokens = list(torch.randint(9, (60, 12), generator=torch.Generator().manual_seed(2)).split(20))
    with pytest.warns(CollapseWarning, match=r"the loader gave 660 positions when it was read.*ncc_agreement is left"):
        found = measure_language_model(model, OTHERWISE[kind][0](tokens))
    assert found.ncc_agreement is None
    assert found.to_dict() == measure_language_model(model, tokens, ncc=False).to_dict()


def test_a_pooling_of_a_layer_that_a_block_stands_for_holds_in_the_second_pass() -> None:
    model = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3))
    plain = measure(model, [(INPUTS, LABELS)], layers="all")
    report = measure(model, [(INPUTS, LABELS)], layers="all", pooling={"0": -1, "1": -1, "4": -1})
    assert report.depth is not None
    assert report.depth == plain.depth
