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
                "layers: name a single nn.Linear, or convolution of kernel size 1"
            )
        inner = next(iter(inside))
        return _join(name, inner), inside[inner]
    candidates = _candidates(model)
    if not candidates:
        raise ValueError(
            "no classifier found: the model ends in no linear layer. Name one with classifier=, or measure what the "
            "model gives with features_only=True"
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
    if found:
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
            inside = _linear_layers(module)
            if inside:
                last = list(inside)[-1]
                found[_join(name, last)] = inside[last]
    return found


def _conventional_candidates(model: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    children = dict(model.named_children())
    for name in _CONVENTIONAL:
        inside = _linear_layers(children[name]) if name in children else {}
        if not inside:
            continue
        if not _is_chain(children[name]) and len(inside) > 1:
            found.update({_join(name, key): module for key, module in _rivals(children[name]).items()})
        else:
            last = list(inside)[-1]
            found[_join(name, last)] = inside[last]
    return found


def _rivals(module: nn.Module, *, whole: bool = False) -> dict[str, nn.Module]:
    """The last linear layer, and its siblings that it does not feed on: other heads of the same trunk."""
    linear = _linear_layers(module, whole=whole)
    if not linear:
        return {}
    last = list(linear)[-1]
    parent = last.rpartition(".")[0]
    if _is_chain(module.get_submodule(parent)):
        return {last: linear[last]}
    width = layer_shape(linear[last])[0]
    return {
        name: layer
        for name, layer in linear.items()
        if layer is linear[last]
        or (name.rpartition(".")[0] == parent and layer_shape(layer)[1] != width and layer_shape(layer)[0] == width)
    }


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
        return not plain.transposed and plain.groups == 1 and all(size == 1 for size in plain.kernel_size)
    return isinstance(plain, ETFConvolution)


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(features, classes) of a linear layer, 1x1 convolution, fixed head, or one of these with an adapter."""
    plain = base_of(layer) or layer
    if isinstance(plain, _ConvNd):
        return plain.in_channels, plain.out_channels
    return plain.in_features, plain.out_features  # type: ignore[return-value]


def _join(outer: str, inner: str) -> str:
    return ".".join(part for part in (outer, inner) if part)
