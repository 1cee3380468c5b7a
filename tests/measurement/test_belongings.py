"""Whatever a forward pass changes in a model is given back, or a warning names it."""

from __future__ import annotations

import copy
import random
import types
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse import CollapseWarning, extract_features, measure
from neuralcollapse.measurement import belongings

LABELS = torch.arange(12) % 3
INPUTS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]
TOKENS = torch.randint(9, (12, 4), generator=torch.Generator().manual_seed(1))


@dataclass
class Record:
    count: int = 0
    seen: list = field(default_factory=list)


class Own:
    """A class beside the model's."""

    def __init__(self) -> None:
        self.count, self.seen = 0, [torch.zeros(2)]

    def __repr__(self) -> str:
        return f"{self.count} {self.seen}"


class Changing(nn.Module):
    """A classifier whose forward pass also does something to itself."""

    def __init__(self, change: Callable[[Any], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 3)
        self.table = nn.Embedding(9, 4, max_norm=0.1)
        self.bag = nn.EmbeddingBag(9, 4, max_norm=0.1)
        self.prototypes = nn.Parameter(torch.randn(3, 4), requires_grad=False)
        self.late: nn.Module | None = None
        self.tensor, self.array = torch.zeros(3), np.zeros(3)
        self.grid = [torch.zeros(2), {"deep": torch.zeros(2)}]
        self.names, self.notes, self.kinds, self.queue = [1, 2], {"n": 0}, {1}, deque([1, 2], maxlen=2)
        self.nested: Any = {"a": [{"b": [1]}], "t": (np.zeros(2), [3])}
        self.ordered, self.default = OrderedDict(b=1, a=2), defaultdict(list, a=[1])
        self.record, self.space, self.own = Record(), types.SimpleNamespace(count=0), Own()
        self.torch_generator = torch.Generator().manual_seed(3)
        self.numpy_generator, self.python_generator = np.random.default_rng(3), random.Random(3)
        self.generators = [np.random.default_rng(4)]
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x).relu()
        with torch.no_grad():
            self.change(self)
        return self.head(features)


def make_late(model: Any) -> None:
    model.late = nn.Linear(2, 2)


def replace(model: Any) -> None:
    model.body = nn.Linear(5, 4)


def add_parameter(model: Any) -> None:
    model.register_parameter("extra", nn.Parameter(torch.ones(2)))


def add_hook(model: Any) -> None:
    model.body.register_forward_hook(lambda *_: None)


def renormalise_in_place(model: Any) -> None:
    model.body.weight.data.div_(model.body.weight.norm())


def renormalise_anew(model: Any) -> None:
    model.body.weight.data = model.body.weight.renorm(2, 0, 0.1)


def prototypes_plus(model: Any) -> None:
    model.prototypes += 1


def freeze(model: Any) -> None:
    model.body.weight.requires_grad_(False)


CHANGES: dict[str, Callable[[Any], object]] = {
    "embedding": lambda model: model.table(TOKENS),
    "embedding bag": lambda model: model.bag(TOKENS),
    "weight.data in place": renormalise_in_place,
    "weight.data replaced": renormalise_anew,
    "a parameter plus one": prototypes_plus,
    "F.embedding with max_norm": lambda model: F.embedding(TOKENS % 3, model.prototypes, max_norm=0.1),
    "requires_grad": freeze,
    "a gradient": lambda model: setattr(model.head.bias, "grad", torch.ones(3)),
    "tensor": lambda model: model.tensor.add_(1),
    "array": lambda model: model.array.__iadd__(1),
    "tensors in containers": lambda model: (model.grid[0].add_(1), model.grid[1]["deep"].add_(1)),
    "list": lambda model: model.names.append(3),
    "list in place": lambda model: model.names.reverse(),
    "dict": lambda model: model.notes.update(n=model.notes["n"] + 1, new=1),
    "set": lambda model: model.kinds.add(2),
    "deque": lambda model: model.queue.append(3),
    "nested": lambda model: (model.nested["a"][0]["b"].append(2), model.nested.update(more=1)),
    "nested in a tuple": lambda model: (model.nested["t"][0].fill(1), model.nested["t"][1].append(4)),
    "ordered": lambda model: model.ordered.move_to_end("b"),
    "default": lambda model: model.default["new"].append(1),
    "record": lambda model: (setattr(model.record, "count", 1), model.record.seen.append(1)),
    "namespace": lambda model: setattr(model.space, "count", 1),
    "object": lambda model: (setattr(model.own, "count", 1), model.own.seen[0].add_(1), model.own.seen.append(1)),
    "torch generator": lambda model: torch.rand(1, generator=model.torch_generator),
    "NumPy generator": lambda model: model.numpy_generator.random(),
    "Python generator": lambda model: model.python_generator.random(),
    "generator in a list": lambda model: model.generators[0].random(),
    "late module": make_late,
    "replaced module": replace,
    "late parameter": add_parameter,
    "late hook": add_hook,
}


def everything(model: Changing) -> dict[str, Any]:
    plain = {name: copy.deepcopy(value) for name, value in vars(model).items() if name not in belongings.INTERNAL}
    plain.pop("change")
    return {
        "plain": {name: repr(_shown(value)) for name, value in plain.items()},
        "tables": {name: [list(getattr(module, name)) for module in model.modules()]
                   for name in ("_modules", "_parameters", "_buffers", "_forward_hooks")},
        "identities": [id(tensor) for tensor in model.parameters()] + [id(module) for module in model.modules()],
        "places": [tensor.data_ptr() for tensor in model.parameters()],
        "values": [tensor.tolist() for tensor in model.parameters()],
        "flags": [(tensor.requires_grad, tensor.grad) for tensor in model.parameters()],
    }  # fmt: skip


def _shown(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    return [_shown(part) for part in value] if isinstance(value, list) else value


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("error", [False, True], ids=["", "after an error"])
def test_whatever_a_forward_pass_changes_is_given_back(kind: str, error: bool) -> None:
    model = Changing(CHANGES[kind])
    objects = {name: value for name, value in vars(model).items() if name not in belongings.INTERNAL}
    before = everything(model)
    CHANGES[kind](control := Changing(CHANGES[kind]))
    assert everything(control) != before, "the case changes nothing"
    batches = [(INPUTS, LABELS), (INPUTS, LABELS[:5] if error else LABELS)]
    if error:
        with pytest.raises(ValueError, match="for 5 labels"):
            measure(model, batches)
    else:
        measure(model, batches)
    assert everything(model) == before
    assert all(vars(model)[name] is value for name, value in objects.items())


def test_two_measurements_of_a_model_that_draws_are_the_same() -> None:
    model = Changing(lambda model: model.body.bias.copy_(torch.tensor(model.numpy_generator.normal(size=4))))
    first, second = (extract_features(model, [(INPUTS, LABELS)] * 2).features for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("how", ["in place", "data in place"])
def test_a_large_parameter_that_is_changed_in_place_is_named(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belongings, "_COPIED_BYTES", 70)
    change = {
        "in place": lambda model: model.body.weight.mul_(2),
        "data in place": lambda model: model.body.weight.data.mul_(2),
    }[how]
    with pytest.warns(CollapseWarning, match=r"the forward pass changes 'body.weight' of the model in place.*deepcopy"):
        measure(Changing(change), [(INPUTS, LABELS)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["embedding", "embedding bag", "weight.data replaced"])
def test_what_is_given_back_whatever_its_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belongings, "_COPIED_BYTES", 0)
    before = everything(model := Changing(CHANGES[kind]))
    measure(model, [(INPUTS, LABELS)])
    assert everything(model) == before


def test_tensors_of_every_kind_are_left_alone() -> None:
    model = Changing(lambda model: None)
    model.register_buffer("edges", torch.eye(3).to_sparse())
    model.register_buffer("narrow", torch.zeros(3).to(torch.float8_e4m3fn))
    model.sparse, model.meta = torch.eye(3).to_sparse(), torch.ones(3, device="meta")
    with torch.inference_mode():
        model.cached = torch.ones(3)
    model.scripted = torch.jit.script(nn.BatchNorm1d(3))
    model.computed = model.body.weight * 2  # of a graph
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(model, [(INPUTS, LABELS)])
    model.computed.sum().backward()
    assert model.body.weight.grad is not None
