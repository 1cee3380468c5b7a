"""Find the classifier (the last linear layer) of a model somebody already has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from neuralcollapse.nn.adapters import base_of, is_adapted, read_through
from neuralcollapse.nn.etf_classifier import ETFClassifier, ETFConvolution, PrototypeClassifier

_CONVENTIONAL = ("fc", "classifier", "score", "head", "heads", "last_linear", "classification_head")
"""Names of the classifier at the top of torchvision, timm and Hugging Face models."""


def find_classifier(model: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """Name and module of the layer that turns features into logits.

    Looked for in this order: timm's ``get_classifier()``, a top-level module with a conventional name
    (``fc``, ``classifier``, ``head``, ...; inside it the last Linear, or last 1x1 convolution as in
    SqueezeNet), and otherwise the last Linear of the model. If a wrapper has a
    single child, that child is searched in the same way.
    A layer with an adapter (LoRA) is one layer: what is found is the module that adds the two.
    Several heads side by side are ambiguous, also where the model adds or averages them.
    A 1x1 convolution counts where it has stride 1, no padding and one group.

    Args:
        model: any torch classifier.
        name: the layer's dotted name, where the search cannot know it.

    Raises:
        ValueError: if no layer fits, several fit equally (they are listed), or ``name`` is not a layer
            that is linear.
        TypeError: if the model is no module, or the name no string.

    >>> find_classifier(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))[0]
    '2'
    """
    if not isinstance(model, nn.Module):
        raise not_a_module(model)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"classifier is a {type(name).__name__}: pass the layer's dotted name, such as 'fc'")
    modules = dict(model.named_modules())
    quantised = next((key for key, module in modules.items() if "quantized" in type(module).__module__), None)
    if quantised is not None:
        raise ValueError(
            f"the model is quantised (layer {quantised!r} is a {type(modules[quantised]).__name__}): its classifier "
            "has no weight to read. Use the model as it was before quantisation"
        )
    if name is not None:
        if name not in modules:
            linear = ", ".join(_linear_layers(model, whole=True)) or "none"
            raise ValueError(f"classifier={name!r} is not a layer of this model. Its linear layers: {linear}")
        owner = _adapted_owner(modules, name)
        if owner is not None:
            return owner, modules[owner]
        inside = _linear_layers(modules[name])
        if len(inside) != 1:
            raise ValueError(
                f"classifier={name!r} is a {type(modules[name]).__name__} that holds {len(inside)} linear "
                "layers: name a single nn.Linear, or convolution of kernel size 1, stride 1, no padding and one group"
            )
        inner = next(iter(inside))
        return _join(name, inner), inside[inner]
    candidates = _candidates(model)
    if not candidates:
        raise ValueError(
            f"no classifier found: the model ends in no linear layer{_left_out(model)}. Name one with classifier=, or "
            "measure what the model gives with features_only=True"
        )
    if len(candidates) > 1:
        listed = ", ".join(f"{key} {layer_shape(module)[::-1]}" for key, module in candidates.items())
        raise ValueError(f"ambiguous classifier: {listed}. Choose one with classifier=NAME")
    return next(iter(candidates.items()))


def not_a_module(model: Any) -> TypeError:
    """The error for what is no model; for a path or the weights alone, with the way to a model."""
    said = f"model is a {type(model).__name__}, not a torch.nn.Module"
    if isinstance(model, str | os.PathLike | Mapping):
        return TypeError(f"{said}: build the network and load its weights first, with model.load_state_dict(...)")
    return TypeError(f"{said}: pass the module itself; forward= says how measure() calls it, where that is unusual")


def _adapted_owner(modules: dict[str, nn.Module], name: str) -> str | None:
    """The outermost layer with an adapter that a named layer is part of."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        outer = ".".join(parts[:depth])
        if is_adapted(modules[outer], by_name=True):
            return outer
    return None


def _candidates(model: nn.Module) -> dict[str, nn.Module]:
    if _lost_its_head(model):
        raise ValueError(
            f"this model has no classifier ({type(model).__name__} gives features): measure them with "
            "features_only=True, or name a linear layer with classifier="
        )
    found = _timm_candidates(model) or _conventional_candidates(model)
    if found or any(_left_out(child) for name, child in model.named_children() if name in _CONVENTIONAL):
        return found
    inner = {name: child for name, child in model.named_children() if _linear_layers(child, whole=True)}
    if len(inner) == 1 and _linear_layers(model, whole=True):  # a wrapper: LightningModule, DataParallel, torch.compile
        ((outer, child),) = inner.items()
        return {_join(outer, name): module for name, module in _candidates(child).items()}
    return _rivals(model, whole=True)


def _lost_its_head(model: nn.Module) -> bool:
    """Whether a model was made without a classifier: timm's num_classes=0, fc = nn.Identity(), Hugging Face's bases."""
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        head = get_classifier()
        heads = head if isinstance(head, tuple | list) else (head,)
        return all(part is None or isinstance(part, nn.Identity) for part in heads)
    if type(model).__name__.endswith("Model") and getattr(model, "base_model", None) is model:
        return True
    children = dict(model.named_children())
    tops = [children[name] for name in _CONVENTIONAL if name in children]
    empty = [top for top in tops if all(isinstance(part, nn.Identity | nn.Sequential) for part in top.modules())]
    return bool(empty) and not any(_linear_layers(top) for top in tops)


def _timm_candidates(model: nn.Module) -> dict[str, nn.Module]:
    get_classifier = getattr(model, "get_classifier", None)
    if not callable(get_classifier):
        return {}
    head = get_classifier()
    heads = head if isinstance(head, tuple | list) else (head,)
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if any(module is part for part in heads):
            found.update(_heads_in(name, module))
    return found


def _conventional_candidates(model: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    children = dict(model.named_children())
    for name in _CONVENTIONAL:
        if name in children:
            found.update(_heads_in(name, children[name]))
    return found


def _heads_in(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """The heads of a module that is known to hold nothing else."""
    return {_join(name, key): layer for key, layer in _rivals(module).items()}


def _rivals(module: nn.Module, *, whole: bool = False) -> dict[str, nn.Module]:
    """The last linear layer, and its siblings that it does not feed on: other heads.

    Siblings are heads if they read the same features, or give as many logits. A chain is one sibling, which ends in its
    last layer.
    """
    linear = _linear_layers(module, whole=whole)
    if not linear:
        return {}
    last = place = list(linear)[-1]
    while place and _is_chain(module.get_submodule(place.rpartition(".")[0])):
        place = place.rpartition(".")[0]
    if not place:
        return {last: linear[last]}
    prefix = place[: place.rfind(".") + 1]
    siblings: dict[str, list[str]] = {}
    for name in linear:
        if name.startswith(prefix):
            siblings.setdefault(prefix + name[len(prefix) :].partition(".")[0], []).append(name)
    width, classes = layer_shape(linear[siblings[place][0]])[0], layer_shape(linear[last])[1]

    def is_head(sibling: str, names: list[str]) -> bool:
        single = names == [sibling]
        if not single and not _is_chain(module.get_submodule(sibling)):
            return False
        reads, gives = layer_shape(linear[names[0]])[0], layer_shape(linear[names[-1]])[1]
        return gives != width and (gives == classes or (single and place == last and reads == width))

    heads = [names[-1] for sibling, names in siblings.items() if sibling == place or is_head(sibling, names)]
    return {name: linear[name] for name in heads}


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential)


def _linear_layers(module: nn.Module, *, whole: bool = False) -> dict[str, nn.Module]:
    """Linear layers by name, in order of registration; if there are none, the 1x1 convolutions that come last."""
    layers: dict[str, nn.Module] = {}
    convolutions: dict[str, nn.Module] = {}
    for name, layer, base in read_through(module, whole=whole):
        plain = layer if base is None else base
        if is_pointwise(plain):
            convolutions[name] = layer
        elif isinstance(plain, nn.Linear | ETFClassifier | PrototypeClassifier):
            layers[name] = layer
        elif any(True for _ in layer.parameters(recurse=False)):
            convolutions.clear()  # in the middle of a network it is a shortcut or a bottleneck, and classifies nothing
    return layers or convolutions


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a convolution of kernel size 1: a linear layer at each position of a map."""
    plain = base_of(layer) or layer
    if isinstance(plain, _ConvNd):
        return set(plain.kernel_size) == {1} and not _more_than_linear(plain)
    return isinstance(plain, ETFConvolution)


def _more_than_linear(layer: _ConvNd) -> str:
    """What keeps a convolution of kernel size 1 from being one linear layer at each position; empty for none."""
    if layer.transposed:
        return "it is transposed"
    if set(layer.stride) != {1}:
        return f"it has stride={layer.stride}"
    if not isinstance(layer.padding, str) and any(layer.padding):  # words pad a kernel of size 1 by nothing
        return f"it has padding={layer.padding}"
    return "" if layer.groups == 1 else f"it has groups={layer.groups}"


def _left_out(model: nn.Module) -> str:
    """Which convolution of kernel size 1 is no linear layer, and why, for the message."""
    found = [
        f" (the convolution {name!r} of kernel size 1 is none: {_more_than_linear(layer)})"
        for name, layer in model.named_modules()
        if isinstance(layer, _ConvNd) and set(layer.kernel_size) == {1} and _more_than_linear(layer)
    ]
    return found[-1] if found else ""


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(features, classes) of a linear layer, 1x1 convolution, fixed head, or one of these with an adapter."""
    plain = base_of(layer) or layer
    if isinstance(plain, _ConvNd):
        return plain.in_channels, plain.out_channels
    return plain.in_features, plain.out_features  # type: ignore[return-value]


def _join(outer: str, inner: str) -> str:
    return ".".join(part for part in (outer, inner) if part)
