"""Every kind of batch that people have gives the numbers of a plain (inputs, labels) pair, or a sentence."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from neuralcollapse import extract_features, measure
from neuralcollapse.measurement.transfer import moved

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]
LEFT, RIGHT = INPUTS[:, :4], INPUTS[:, 4:]
INDEX = torch.arange(60)
NET = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(INPUTS, LABELS, strict=True)


class Two(nn.Module):
    """A model of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.net(torch.cat([left, right], 1))


class Whole(Two):
    """A model that takes the mapping itself."""

    def forward(self, batch: dict) -> Tensor:
        return super().forward(batch["one"], batch["other"])


Pair = namedtuple("Pair", "inputs labels")
Turned = namedtuple("Turned", "label index image")


@dataclass
class Record:
    image: Tensor
    target: Tensor


@dataclass(frozen=True)
class Inside:
    """Inputs that a model takes whole; one field is made from the others, once."""

    image: Tensor
    width: int = field(init=False)

    def __post_init__(self) -> None:
        assert self.image.device.type == "cpu"
        object.__setattr__(self, "width", self.image.shape[1])


class OfRecords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, record: Inside) -> Tensor:
        return self.net(record.image[:, : record.width])


LOADERS = {
    "IterableDataset": lambda: DataLoader(Stream(), 7),
    "generator": lambda: iter([(INPUTS[:50], LABELS[:50]), (INPUTS[50:], LABELS[50:])]),
    "single samples": lambda: zip(INPUTS.split(1), LABELS.split(1), strict=True),
    "an empty batch among others": lambda: [(INPUTS[:0], LABELS[:0]), (INPUTS, LABELS)],
    "with an index": lambda: DataLoader(TensorDataset(INPUTS, LABELS, INDEX), 7),
    "with names": lambda: [[INPUTS, LABELS.tolist(), ["file"] * 60]],
    "image and label": lambda: [{"image": INPUTS, "label": LABELS}],
    "with metadata": lambda: [{"image": INPUTS, "label": LABELS, "path": ["file"] * 60, "idx": INDEX}],
    "arrays": lambda: [(INPUTS.numpy(), LABELS.numpy())],
    "arrays of another precision": lambda: [(INPUTS.double().numpy(), LABELS.numpy().astype(np.uint8))],
    "lists": lambda: [(INPUTS.tolist(), LABELS.tolist())],
    "labels of numbers in a list": lambda: [(INPUTS, list(LABELS))],
    "narrow labels": lambda: [(INPUTS, LABELS.to(torch.uint8))],
    "named tuple": lambda: [Pair(INPUTS, LABELS)],
    "named tuple in another order": lambda: [Turned(LABELS, INDEX, INPUTS)],
    "dataclass": lambda: [Record(INPUTS, LABELS)],
}


@pytest.fixture(scope="module")
def expected() -> dict[str, float | None]:
    return measure(NET, [(INPUTS, LABELS)]).to_dict()


@pytest.mark.parametrize("kind", LOADERS)
def test_batches_of_one_input(kind: str, expected: dict) -> None:
    assert measure(NET, LOADERS[kind](), progress=False).to_dict() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_in_a_dataclass(dtype: torch.dtype, expected: dict) -> None:
    given = Inside(INPUTS.to(dtype))
    assert measure(OfRecords(), [(given, LABELS)]).to_dict() == pytest.approx(expected, rel=1e-5)
    assert given.image.dtype == dtype


TWO_INPUTS = {
    "nested": [((LEFT, RIGHT), LABELS)],
    "nested list of default_collate": DataLoader([((LEFT[i], RIGHT[i]), int(LABELS[i])) for i in range(60)], 9),
    "flat": [(LEFT, RIGHT, LABELS)],
    "flat with an index": [(LEFT, RIGHT, LABELS, INDEX)],
    "by name": [{"right": RIGHT, "left": LEFT, "labels": LABELS}],
    "by name with an index": [{"right": RIGHT, "left": LEFT, "y": LABELS, "id": INDEX}],
}  # fmt: skip


@pytest.mark.parametrize("kind", TWO_INPUTS)
def test_batches_of_two_inputs(kind: str, expected: dict) -> None:
    assert measure(Two(), TWO_INPUTS[kind]).to_dict() == pytest.approx(expected, rel=1e-5)


def test_a_model_that_takes_the_mapping(expected: dict) -> None:
    found = measure(Whole(), [{"one": LEFT, "other": RIGHT, "labels": LABELS}])
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)


def test_callables_for_everything_else(expected: dict) -> None:
    batch = SimpleNamespace(a=INPUTS, b=LABELS)
    found = measure(
        NET, [batch], batch=lambda batch: ({"deep": [batch.a]}, batch.b), forward=lambda m, x: m(x["deep"][0])
    )
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)
    found = measure(NET, [(INPUTS, LABELS)], forward=NET.forward)
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)


def test_batch_encodings_of_hugging_face(expected: dict) -> None:
    transformers = pytest.importorskip("transformers")
    found = measure(Two(), [transformers.BatchEncoding({"left": LEFT, "right": RIGHT, "labels": LABELS})])
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)


BAD = {
    "column": ([(INPUTS, LABELS[:, None])], ValueError, r"labels have shape \(60, 1\).*labels\[:, 0\]"),
    "one-hot": ([(INPUTS, nn.functional.one_hot(LABELS))], ValueError, r"shape \(60, 3\).*labels.argmax\(1\)"),
    "floats": ([(INPUTS, LABELS.float())], TypeError, "labels have dtype torch.float32"),
    "words": ([(INPUTS, ["cat"] * 60)], TypeError, "labels are a list of strings: turn each name into its class index"),
    "other things": ([(INPUTS, [{}] * 60)], TypeError, "labels are a list that holds no integers: pass batch="),
    "negative": ([(INPUTS, LABELS - 1)], ValueError, "label -1 is out of range.*leave rows without a label out"),
    "a tensor": ([INPUTS], ValueError, r"gave a Tensor: .*; pass two tensors X and Y as \[\(X, Y\)\], or pass batch="),
    "two tensors": ((INPUTS, LABELS), ValueError, r"gave a Tensor: .*; pass two tensors X and Y as \[\(X, Y\)\]"),
    "none": ([(INPUTS, None)], ValueError, "labels of a batch are None"),
    "missing": ([(INPUTS,)], ValueError, "a tuple of 1: there are no labels in it; pass batch="),
    "nothing else": ([{"labels": LABELS}], ValueError, "holds labels and nothing else"),
    "ambiguous": ([(LEFT, INDEX.float(), INDEX.float())], ValueError, "the batch has 3 parts .*pass batch="),
    "unknown names": ([{"foo": INPUTS, "bar": INPUTS, "y": LABELS}], ValueError, "inputs foo, bar, and"),
    "too few labels": ([(INPUTS, LABELS[:50])], ValueError, r"shape \(60, 6\) for 50 labels"),
    "out of range": ([(INPUTS, LABELS + 7)], ValueError, "label 9 is out of range"),
    "data set": (TensorDataset(INPUTS, LABELS), ValueError, "wrap a data set in a DataLoader"),
    "empty": ([], ValueError, "the loader is empty"),
    "none at all": (None, TypeError, "loader is a NoneType: expected an iterable of batches"),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", BAD)
def test_batches_that_are_refused_with_a_sentence(kind: str) -> None:
    batches, error, message = BAD[kind]
    with pytest.raises(error, match=message):
        measure(NET, batches)


def test_an_error_of_the_model_names_the_batch() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        measure(NET, [(INPUTS, LABELS), (LEFT, LABELS)])
    assert caught.value.__notes__ == ["while measuring batch 1 (Tensor (60, 4), Tensor (60,))"]
    with pytest.raises(NotImplementedError) as caught:
        measure(nn.ModuleDict({"fc": NET[2]}), [{"x": INPUTS, "y": LABELS}])
    assert caught.value.__notes__[0].startswith(
        "while measuring batch 0 (Tensor (60, 8), Tensor (60,)); a model without"
    )
    assert "needs forward=, a function of (model, inputs)" in caught.value.__notes__[0]


def test_a_generator_can_be_read_once() -> None:
    batches = iter([(INPUTS, LABELS)])
    measure(NET, batches)
    with pytest.raises(ValueError, match="the loader is empty"):
        measure(NET, batches)


def test_nested_inputs_move_whole() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(2, 2)])
    nested = {
        "a": [torch.ones(1), (np.ones(2), Pair(torch.ones(3), None))],
        "b": Record(torch.ones(4), "text"),
        "c": packed,
    }
    found = moved(nested, torch.device("meta"), torch.float32)
    tensors = [found["a"][0], found["a"][1][0], found["a"][1][1].inputs, found["b"].image, found["c"].data]
    assert all(tensor.is_meta for tensor in tensors)
    assert found["b"].target == "text"


def test_extracted_features_come_in_order() -> None:
    features, labels, logits = extract_features(NET, DataLoader(TensorDataset(INPUTS, LABELS), 7))
    with torch.no_grad():
        torch.testing.assert_close(features, NET[:2](INPUTS))
        torch.testing.assert_close(logits, NET(INPUTS))
    assert torch.equal(labels, LABELS)
    with pytest.raises(ValueError, match="the loader is empty"):
        extract_features(NET, [])


# ---- which part of a batch the labels are ----------------------------------------------------------

DOMAIN = torch.randint(3, (60,), generator=torch.Generator().manual_seed(5))
LENGTHS = torch.randint(1, 5, (60,), generator=torch.Generator().manual_seed(6))


def model_of(signature: str, use: str = "x", *, extra: dict | None = None) -> nn.Module:
    """A network of an input whose forward has this signature."""
    scope: dict = {"NET": NET, "Tensor": Tensor, **(extra or {})}
    exec(f"def forward(self, {signature}):\n    return NET({use})", scope)
    kind = type("Made", (nn.Module,), {"forward": scope["forward"]})
    model = kind()
    model.net = NET
    return model


LABELS_ARE_SECOND = {
    "x, labels": "a required argument of that name",
    "x, label": "another name",
    "x, targets": "another name",
    "x, y": "another name",
    "x, labels, domain": "and one after it",
    "x, y=None": "an optional argument of that name",
    "x, labels=None": "another name",
    "x, return_features=False": "a flag",
    "x, scale=1.0": "a number",
    "x, output_attentions: bool | None = None": "a flag by its type",
    "x, attn_mask=None": "an argument of many numbers per sample",
    "x, head_mask=None, labels=None": "as Hugging Face's image models have them",
    "x, position_ids=None": "token positions",
    "x": "no other argument",
    "*, x": "no positional argument",
}


@pytest.mark.parametrize("signature", LABELS_ARE_SECOND)
def test_labels_before_a_domain(signature: str, expected: dict) -> None:
    batches = [(INPUTS, LABELS, DOMAIN)] if signature != "*, x" else [{"x": INPUTS, "labels": LABELS, "d": DOMAIN}]
    assert measure(model_of(signature), batches).to_dict() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("signature", ["x, lengths", "x, domain", "x, lengths, labels=None", "x, lengths, extra=None"])
def test_labels_after_what_a_model_requires(signature: str, expected: dict) -> None:
    found = measure(model_of(signature), [(INPUTS, LENGTHS, LABELS)])
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("signature", ["x, lengths=None", "x, lengths: Tensor = None", "x, domain=None", "x, *more"])
@pytest.mark.parametrize("order", ["input before", "label before"])
def test_labels_that_could_be_an_input_are_asked_for(signature: str, order: str, expected: dict) -> None:
    parts = (INPUTS, LENGTHS, LABELS) if order == "input before" else (INPUTS, LABELS, LENGTHS)
    name = "more" if "more" in signature else signature[3:].partition("=")[0].partition(":")[0]
    with pytest.raises(ValueError, match=rf"its part 1.* could be the labels or the argument '\*?{name}'.*pass batch="):
        measure(model_of(signature), [parts])
    found = measure(model_of(signature), [parts], batch=lambda parts: (parts[0], LABELS))
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)
    found = measure(model_of(signature), [(INPUTS, LABELS, ["file"] * 60)])  # there is one way to read it
    assert found.to_dict() == pytest.approx(expected, rel=1e-5)


def test_a_mask_is_no_set_of_labels_though_it_looks_like_one() -> None:
    sets, mask = nn.functional.one_hot(LABELS) | nn.functional.one_hot(INDEX % 7 % 3), LEFT > 0
    model = model_of("x, attention_mask=None")
    with pytest.raises(ValueError, match="could be the labels or the argument 'attention_mask'"):
        measure(model, [(INPUTS, mask, sets)], task="multilabel")
    found = measure(model_of("x, attention_mask"), [(INPUTS, mask, sets)], task="multilabel")
    assert found.to_dict() == measure(NET, [(INPUTS, sets)], task="multilabel").to_dict()


def test_a_model_that_requires_its_labels_gets_them(expected: dict) -> None:
    model = model_of("x, labels", "x + 0 * labels[:, None]")
    for batch in ((INPUTS, LABELS, DOMAIN), {"x": INPUTS, "label": LABELS}, {"x": INPUTS, "labels": LABELS}):
        assert measure(model, [batch]).to_dict() == pytest.approx(expected, rel=1e-5)
