"""Random generators are found wherever a loader holds them, so that a measurement changes no training."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, WeightedRandomSampler

from neuralcollapse import measure
from neuralcollapse.measurement.generators import generators_in, set_state, state_of

SHARED = np.random.default_rng(11)

pytestmark = pytest.mark.filterwarnings("ignore:the class means span only")  # which is no matter here


class Noisy(Dataset):
    """Inputs drawn anew each time, by a generator of its own."""

    def __init__(self, draw: Callable[[], float] | None = None, transform: Any = None) -> None:
        self.rng = np.random.default_rng(0) if draw is None else None
        self.draw, self.transform = draw, transform

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        drawn = self.draw() if self.draw is not None else self.rng.normal()
        x = torch.full((4,), float(drawn) + index % 3)
        return x if self.transform is None else self.transform(x), index % 3


class Jitter:
    __slots__ = ("rng",)

    def __init__(self) -> None:
        self.rng = np.random.RandomState(0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.rng.rand()


class JitterModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(1, generator=self.generator)


class Compose:
    def __init__(self, transforms: list) -> None:
        self.transforms = transforms

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functools.reduce(lambda found, transform: transform(found), self.transforms, x)


class OfClass(Noisy):
    generator = random.Random(2)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((4,), self.generator.random() + index % 3), index % 3


class OfModule(Noisy):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((4,), SHARED.random() + index % 3), index % 3


class Streamed(IterableDataset):
    def __init__(self) -> None:
        self.rngs = {"train": (np.random.default_rng(5),)}

    def __iter__(self) -> Iterator:
        for index in range(12):
            yield torch.full((4,), self.rngs["train"][0].random() + index % 3), index % 3


class Linked(Noisy):
    """In a circle, and behind a long chain."""

    def __init__(self) -> None:
        super().__init__()
        self.rng, self.me = None, self
        chain: Any = np.random.default_rng(6)
        for _ in range(200):
            chain = types.SimpleNamespace(inner=[chain])
        self.chain = chain

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        found = self.chain
        while isinstance(found, types.SimpleNamespace):
            found = found.inner[0]
        return torch.full((4,), found.random() + index % 3), index % 3


def closure() -> Callable[[], float]:
    rng = np.random.default_rng(7)
    return lambda: rng.random()


def default(rng: np.random.Generator = np.random.default_rng(8)) -> float:  # noqa: B008
    return rng.random()


def collate(samples: list, rng: random.Random) -> Any:
    x, y = torch.utils.data.default_collate(samples)
    return x + rng.random(), y


def batches(data: Any, **options: Any) -> DataLoader:
    return DataLoader(data, 4, **options)


def among_names() -> Noisy:
    data = Noisy()
    data.names = [(f"file {index}", index) for index in range(200_000)]
    data.sizes = {f"file {index}": index for index in range(200_000)}
    data.rng, data.last = None, {"rng": np.random.default_rng(9)}
    data.draw = data.last["rng"].random
    return data


LOADERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: batches(Noisy()),
    "concatenated": lambda: batches(ConcatDataset([Noisy()])),
    "composed": lambda: batches(Noisy(lambda: 0.0, Compose([Jitter()]))),
    "composed modules": lambda: batches(Noisy(lambda: 0.0, nn.Sequential(JitterModule()))),
    "four subsets": lambda: batches(functools.reduce(lambda data, _: Subset(data, range(12)), range(4), Noisy())),
    "sixty subsets": lambda: batches(functools.reduce(lambda data, _: Subset(data, range(12)), range(60), Noisy())),
    "of the class": lambda: batches(OfClass()),
    "of the module": lambda: batches(OfModule()),
    "streamed": lambda: batches(Streamed()),
    "a circle": lambda: batches(Linked()),
    "a closure": lambda: batches(Noisy(closure())),
    "a default": lambda: batches(Noisy(default)),
    "a bound method": lambda: batches(Noisy(np.random.default_rng(10).random)),
    "a partial": lambda: batches(Noisy(), collate_fn=functools.partial(collate, rng=random.Random(1))),
    "a sampler": lambda: batches(
        Noisy(), sampler=WeightedRandomSampler([1.0] * 12, 60, generator=torch.Generator().manual_seed(2))
    ),
    "among names": lambda: batches(among_names()),
    "a list of loaders": lambda: types.SimpleNamespace(loaders=[batches(Noisy())]),
}


def drawn(loader: Any) -> torch.Tensor:
    loaders = getattr(loader, "loaders", [loader])
    return torch.cat([x for part in loaders for x, _ in part])


@pytest.mark.parametrize("kind", LOADERS)
def test_a_measurement_changes_no_draw(kind: str) -> None:
    loader, model = LOADERS[kind](), nn.Linear(4, 3)
    states = [(generator, state_of(generator)) for generator in generators_in(loader)]
    assert states
    expected = drawn(loader)
    assert not torch.equal(drawn(loader), expected)  # the next epoch is another one
    for generator, state in states:
        set_state(generator, state)
    if hasattr(loader, "loaders"):

        class Chained:
            def __init__(self) -> None:
                self.loaders = loader.loaders

            def __iter__(self) -> Iterator:
                for part in self.loaders:
                    yield from part

        loader = Chained()
    measure(model, loader, allow_missing=True)
    assert torch.equal(drawn(loader), expected)


def test_looking_for_generators_runs_no_code_of_the_user() -> None:
    class Touchy(dict):
        def __iter__(self) -> Iterator:
            raise AssertionError

        def items(self) -> Any:
            raise AssertionError

        def __getattr__(self, name: str) -> Any:
            raise AssertionError

        @property
        def rng(self) -> Any:
            raise AssertionError

    held = random.Random(1)
    assert generators_in(Touchy(a=[held])) == [held]


def test_what_has_no_state_is_left_alone() -> None:
    data = Noisy(random.SystemRandom().random)
    measure(nn.Linear(4, 3), batches(data))
