"""The inner layers that a measurement watches, found by the names that people know them by."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.measurement.axes import FeatureAxes, decides
from neuralcollapse.measurement.pooling import Batch, Pooling, pooled

_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names of the one child of modules that wrap another: compiled, replicated, sharded, checkpointed."""


_FEW = 10
"""Layers that an error lists, all of them."""


class Layer:
    """Watches one layer through a forward pass.

    Args:
        name: as it was asked for, for messages and reports.
        module: the layer.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self.pooling: Pooling | None = None
        self._axis: int | None = None
        self._axes: FeatureAxes | None = None
        self._batch: Batch | None = None
        self._found: Tensor | None = None
        self._read = False  # the batch under way
        self._again = False  # an attack runs it once more

    @property
    def undecided(self) -> bool:
        """Whether its feature axis has to be found from the layers that run before."""
        return not decides(self.module) and (self.pooling is None or self.pooling in ("first", "last"))

    def start(self, batch: Batch, axes: FeatureAxes | None) -> None:
        """Expect a batch; ``axes`` follows the features through the first one.

        A batch that was read already is run once more by an attack, whose features of this layer nobody asks for; to
        differentiate it, layers may run several times (activation checkpointing).
        """
        self._again = batch is self._batch and self._read
        if not self._again:
            self._batch, self._axes, self._found, self._read = batch, axes, None, False

    def watch(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook: pools at once, so that no map outlives its layer."""
        if self._again:
            return
        if self._found is not None:
            raise ValueError(
                f"layer {self.name!r} runs more than once per batch: its features are ambiguous. Name a layer around "
                "or inside it"
            )
        assert self._batch is not None
        known = self._axis if self._axes is None else self._axes
        rows, self._axis = pooled(self.name, module, output, self._batch, self.pooling, known)
        self._found = rows.detach().clone()

    def read(self) -> Tensor:
        """(samples, features) of the batch.

        Raises:
            ValueError: if the layer did not run.
        """
        if self._found is None:
            raise ValueError(f"layer {self.name!r} did not run in the forward pass: name another in layers=")
        self._read = True
        return self._found


def inner_model(model: nn.Module) -> nn.Module:
    """The model inside wrappers that replicate or compile it.

    Raises:
        TypeError: if it is scripted or exported, so that its layers cannot be watched.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif type(model).__name__ == "OptimizedModule":
            model = model._orig_mod  # type: ignore[assignment]
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("the model is a ScriptModule, whose layers cannot be watched: measure it before scripting")
    if isinstance(model, torch.fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in model.graph.nodes
    ):  # torch.export calls operators in place of layers
        raise TypeError("the model was exported, and its layers cannot be watched: measure it before torch.export")
    return model


def own_name(model: nn.Module, name: str) -> str:
    """The name under which a model has a layer that was named with or without wrappers in between.

    A name that fits nothing is returned as it is.
    """
    modules = _by_name(model)
    if name in modules:
        return name
    bare = {_without_wrappers(key): key for key in modules}
    return bare.get(_without_wrappers(name), name)


def _by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer under each of its names: modules that are shared have several."""
    return dict(model.named_modules(remove_duplicate=False))


def unwatchable(module: nn.Module) -> str | None:
    """Why a layer takes no hooks; None where it does."""
    if isinstance(module, torch.jit.ScriptModule):
        return f"it is a {type(module).__name__}, which cannot be watched: measure the model before it is scripted"
    return None


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def chosen_layers(model: nn.Module, names: Sequence[str] | None) -> dict[str, Layer]:
    """The layers asked for.

    Raises:
        TypeError: if a single string is given, or a name is no string.
        ValueError: if the model has no layer of a name, those with similar names are listed; or if it is scripted.
    """
    if isinstance(names, str):
        raise TypeError(f"layers={names!r} is a string: pass a list of names, layers=[{names!r}]")
    modules = _by_name(model)
    found: dict[str, Layer] = {}
    for name in names or ():
        if not isinstance(name, str):
            raise TypeError(f"layers names a {type(name).__name__}: pass dotted names, such as 'layer4'")
        own = own_name(model, name)
        if own not in modules or not own:
            raise ValueError(
                f"layers: the model has no layer {name!r}{_suggestion(name, [key for key in modules if key])}"
            )
        problem = unwatchable(modules[own])
        if problem is not None:
            raise ValueError(f"layer {name!r} cannot be measured: {problem}, or name a layer around it")
        found[name] = Layer(name, modules[own])
    return found


def _suggestion(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [key for key in names if key not in near and key.rpartition(".")[2] == name][:3]
    if near:
        return f": did you mean {' or '.join(map(repr, near))}?"
    if len(names) <= _FEW:
        return f". Its layers: {', '.join(names)}"
    tops = [key for key in names if "." not in key]
    return f". Its {len(names)} layers begin with {', '.join(tops[:10])}" + (", ..." if len(tops) > 10 else "")
