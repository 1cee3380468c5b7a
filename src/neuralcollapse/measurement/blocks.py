"""The blocks of a network for ``layers="all"``: what a user would call its layers, in the order in which they run.

Which modules count: the children of the network, where these are opened in turn: nn.Sequential, nn.ModuleList and
nn.ModuleDict; whatever holds the classifier; whatever of the user's own holds more than half of the parameters of the
trunk (embeddings not counted). So a ResNet gives its residual blocks, a transformer its encoder layers, and an MLP its
linear layers. Modules without parameters, and norms, belong to the block that runs before them: it is measured at the
last of them, after its activation, and bears that module's name. What runs before the first block, or after the
classifier, is no layer; dropout, flattening and identities are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import batchnorm, dropout

from neuralcollapse.measurement.layers import Layer, unwatchable

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PASSED = (nn.Flatten, nn.Unflatten, nn.Identity, dropout._DropoutNd)
_NORMS = (batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, getattr(nn, "RMSNorm", nn.LayerNorm), nn.LocalResponseNorm)


class Block(Layer):
    """A layer that may turn out to have no features: in the first batch that is noted, and raised in later ones."""

    def __init__(self, name: str, module: nn.Module, order: list[Block]) -> None:
        super().__init__(name, module)
        self.problem: str | None = None
        self.settled = False
        self.idle = False
        self._order = order

    @property
    def begins(self) -> bool:
        """Whether a new block begins with this module."""
        return not isinstance(self.module, _NORMS) and any(True for _ in self.module.parameters())

    def watch(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        if self.idle:
            return
        if self.settled:
            super().watch(module, inputs, output)
            return
        try:
            super().watch(module, inputs, output)
        except ValueError as error:
            self.problem = str(error)
        if self not in self._order:
            self._order.append(self)


class Blocks:
    """All modules that may be blocks; the first batch shows which are.

    Args:
        model: the network.
        head: its classifier, if it has one.
    """

    def __init__(self, model: nn.Module, head: nn.Module | None) -> None:
        self._order: list[Block] = []
        self._before_head: int | None = None
        self.candidates: dict[str, Block] = {}
        self.skipped: dict[str, str] = {}
        """Why a block was left out, by name."""
        for name, module in trunk(model, head):
            problem = unwatchable(module)
            if problem is None:
                self.candidates[name] = Block(name, module, self._order)
            elif any(True for _ in module.parameters()):
                self.skipped[name] = problem

    def watch_head(self, *_: Any) -> None:
        """A forward hook of the classifier: what runs from here on is no block."""
        self._before_head = len(self._order)

    def settle(self) -> dict[str, Block]:
        """The blocks, in the order in which they ran.

        Raises:
            ValueError: if there are none.
        """
        ran = self._order[: self._before_head]
        groups: list[list[Block]] = []
        for block in ran:
            if block.begins:
                groups.append([block])
            elif groups:
                groups[-1].append(block)
        found: dict[str, Block] = {}
        for group in groups:
            readable = [block for block in group if block.problem is None]
            if readable:
                found[readable[-1].name] = readable[-1]
            else:
                self.skipped[group[0].name] = str(group[0].problem)
        if not found:
            why = "; ".join(self.skipped.values()) or "it has no layers with parameters before its classifier"
            raise ValueError(f"layers='all' found nothing to measure in this model: {why}")
        for name, block in self.candidates.items():
            block.settled, block.idle = name in found, name not in found
        return found


def trunk(model: nn.Module, head: nn.Module | None) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules that blocks are made of, without the classifier."""
    half = (_weight(model) - (0 if head is None else _weight(head))) / 2
    seen: set[nn.Module] = set()

    def opened(module: nn.Module) -> bool:
        if isinstance(module, torch.jit.ScriptModule):
            return False
        if module is model or type(module) in _CONTAINERS or any(part is head for part in module.modules()):
            return True
        own = not type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.TransformerEncoder)
        return own and any(True for _ in module.children()) and _weight(module) > half

    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if module is head or module in seen or isinstance(module, _PASSED):
            return
        seen.add(module)
        if not opened(module):
            yield name, module
            return
        for part, child in module.named_children():
            yield from walk(f"{name}.{part}" if name else part, child)

    yield from walk("", model)


def _weight(module: nn.Module) -> int:
    """Parameters, those of embeddings left out."""
    tables = {id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters(False)}
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in tables)
