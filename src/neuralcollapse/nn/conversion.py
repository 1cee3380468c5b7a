"""Fix the classifier and choose the feature dimension of a model somebody already has.

Everything new is built before anything old is replaced: a model is converted whole, or left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.geometry.inputs import Rows, as_real
from neuralcollapse.nn.adapters import base_of
from neuralcollapse.nn.etf_classifier import ETFClassifier, ETFConvolution, PrototypeClassifier
from neuralcollapse.nn.last_block import last_block, narrowed, runs_with
from neuralcollapse.nn.surgery import find_classifier, is_pointwise, layer_shape

Model = TypeVar("Model", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Module)


def fix_classifier(model: Model, *, classifier: str | None = None, num_classes: int | None = None, **etf: Any) -> Model:
    """Replace the classifier by a fixed simplex ETF, in place (Zhu et al., Section 5).

    The new head has a bias where the old one had, starting from zero, and frozen where that one was frozen
    (``bias=True`` learns it); all other weights stay, and so do hooks on the head. Make the optimizer
    afterwards: the head's weight is no parameter any more.

    Args:
        model: any torch classifier; torchvision, timm and Hugging Face models among them.
        classifier: dotted name of the classifier layer, where it cannot be found.
        num_classes: K, where it shall change. A model that keeps K beside its layers, as Hugging Face's do in
            ``config.num_labels``, is told.
        **etf: options of :class:`ETFClassifier`: ``bias``, ``rotation``, ``scale``, ``learn_scale``, ``generator``.

    Returns:
        The same model.

    Raises:
        ValueError: if the classifier is not found or ambiguous (two heads), is tied to another layer, is
            quantised, or has too few features for a simplex ETF.
        TypeError: if the model is wrapped for several devices or scripted: convert it before that.

    >>> model = fix_classifier(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    >>> model[2]
    ETFClassifier(in_features=16, num_classes=3, bias=True, rotation='canonical', scale=1.0)
    """
    name, old = _replaceable(model, classifier)
    width, classes = layer_shape(old)
    head = _fixed_head(old, width, classes if num_classes is None else num_classes, **etf)
    _tell_classes(model, name, classes, head.num_classes)
    return _swap(model, {name: head})


def set_feature_dim(model: Model, feature_dim: int, *, classifier: str | None = None) -> Model:
    """Give a model features of another dimension, such as d = K, in place (Zhu et al., Section 5).

    In a ResNet the last block's output width becomes ``feature_dim``, and its skip path's with it, as in
    the paper. In other models, and where that block cannot be narrowed, a linear projection without bias is
    put before the classifier. New layers have the settings of the old ones, and are freshly initialised and
    trainable; all other weights stay. A fixed head stays fixed, and its bias frozen where it was frozen.

    Args:
        model: any torch classifier.
        feature_dim: d, at least K - 1.
        classifier: dotted name of the classifier layer, where it cannot be found.

    Returns:
        The same model.

    Raises:
        ValueError: if d < K - 1, or as :func:`fix_classifier`.
        TypeError: as :func:`fix_classifier`.

    >>> model = set_feature_dim(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), 3)
    >>> model[2]
    Sequential(
      (0): Linear(in_features=16, out_features=3, bias=False)
      (1): Linear(in_features=3, out_features=3, bias=True)
    )
    """
    name, old = _replaceable(model, classifier)
    width, classes = layer_shape(old)
    check_feature_dim(feature_dim, classes)
    if feature_dim == width:
        return model
    head = _resized_head(old, feature_dim, classes)
    last = last_block(model, name, width)
    if last is not None:
        layers = narrowed(*last, feature_dim)
        if runs_with(*last, layers, feature_dim):
            return _swap(model, {**layers, name: head})
    made = _made_like(old) | {"bias": False}
    if is_pointwise(old):
        project = _pointwise(old)(width, feature_dim, 1, **made)
    else:
        project = nn.Linear(width, feature_dim, **made)
    return _swap(model, {name: nn.Sequential(project, head).train(old.training)})


def check_feature_dim(feature_dim: int, num_classes: int) -> None:
    """Refuse a dimension that cannot hold a simplex ETF.

    Raises:
        ValueError: if d is less than K - 1, or than 1.
    """
    least = max(1, num_classes - 1)
    if feature_dim < least:
        raise ValueError(
            f"feature_dim={feature_dim} cannot hold a simplex ETF of {num_classes} classes: pass at least {least}"
        )


def use_prototypes(model: Model, class_means: Float[Tensor, "K d"] | Rows, *, classifier: str | None = None) -> Model:
    """Drop the classifier: the nearest class mean decides (NC4, Papyan et al. 2020), in place.

    Args:
        model: any torch classifier, collapsed well enough: see ``ncc_mismatch``.
        class_means: such as ``measure(model, loader).statistics.means``; copied.
        classifier: dotted name of the classifier layer, where it cannot be found.

    Raises:
        ValueError: if the means do not have the features' dimension, a class has none, or as :func:`fix_classifier`.
        TypeError: as :func:`fix_classifier`.
    """
    name, old = _replaceable(model, classifier)
    if is_pointwise(old):
        raise ValueError(f"classifier {name!r} classifies each position of a map: prototypes need pooled features")
    width, classes = layer_shape(old)
    class_means = as_real(class_means, "class_means")
    if class_means.ndim != 2 or class_means.shape[1] != width:
        raise ValueError(
            f"class_means have shape {tuple(class_means.shape)}, but classifier {name!r} takes {width} features"
        )
    weight = _weight(old)
    head = PrototypeClassifier(class_means.to(weight.device), dtype=weight.dtype).train(old.training)
    _tell_classes(model, name, classes, head.out_features)
    return _swap(model, {name: _with_hooks(head, old)})


def _replaceable(model: nn.Module, classifier: str | None) -> tuple[str, nn.Module]:
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise TypeError(f"the model is wrapped in {type(model).__name__}: convert model.module before wrapping it")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("the model is a ScriptModule, whose layers cannot be replaced: convert it before scripting")
    name, old = find_classifier(model, classifier)
    if not name:
        raise ValueError("the model is itself the linear layer: make an ETFClassifier in its place")
    if isinstance(old, PrototypeClassifier):
        raise ValueError(f"classifier {name!r} is a PrototypeClassifier: there is no linear layer to convert")
    if base_of(old) is not None:
        raise ValueError(
            f"classifier {name!r} carries an adapter (LoRA): merge it into its layer first, as by peft's "
            "model.merge_and_unload()"
        )
    if not isinstance(old, ETFClassifier):
        weight = _weight(old)
        if isinstance(weight, nn.UninitializedParameter):
            raise ValueError(f"classifier {name!r} is lazy and has no shape yet: run one batch through the model first")
        if weight.is_complex():
            raise ValueError(f"classifier {name!r} has complex weights ({weight.dtype}): a simplex ETF is real")
        if not weight.is_floating_point():
            raise ValueError(f"classifier {name!r} is quantised ({weight.dtype}): convert the unquantised model")
        others = [
            key
            for key, parameter in model.named_parameters(remove_duplicate=False)
            if parameter is weight and key != f"{name}.weight"
        ]
        if others:
            raise ValueError(
                f"classifier {name!r} shares its weight with {', '.join(others)}: replacing it would untie them. "
                "Give the classifier a weight of its own first"
            )
    return name, old


def _weight(layer: nn.Module) -> Tensor:
    stored = layer.scale if isinstance(layer, ETFClassifier) else layer.weight
    assert isinstance(stored, Tensor)
    return stored


def _swap(model: Model, replacements: dict[str, nn.Module]) -> Model:
    for name, module in replacements.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return model


def _tell_classes(model: nn.Module, classifier: str, before: int, now: int) -> None:
    """Let the modules around a classifier that keep its number of classes know the new one: the loss may read it."""
    parts = classifier.split(".")
    for depth in range(len(parts) if before != now else 0):
        owner = model.get_submodule(".".join(parts[:depth]))
        for place in (owner, getattr(owner, "config", None)):
            for attribute in ("num_labels", "num_classes"):
                if type(held := getattr(place, attribute, None)) is int and held == before:
                    setattr(place, attribute, now)


_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


def _with_hooks(new: Layer, old: nn.Module) -> Layer:
    """The new layer with the user's hooks on the old one; their handles remove them from it.

    Hooks by which torch computes the old weight (weight norm, pruning) stay behind. A handle knows its hook by the
    very table that holds it: the new layer takes that one, and the old layer, where the two differ, gets a copy.
    """
    for attribute in _HOOKS:
        held = vars(new)[attribute] = getattr(old, attribute)
        of_torch = [key for key, hook in held.items() if _computes_weight(hook)] if isinstance(held, dict) else []
        if of_torch:
            vars(old)[attribute] = held.copy()
        for key in of_torch:
            del held[key]
    return new


def _computes_weight(hook: Any) -> bool:
    return any(kind.__module__.startswith("torch.nn.utils") for kind in type(getattr(hook, "__self__", hook)).__mro__)


def _made_like(old: nn.Module) -> dict[str, Any]:
    """Bias or none, device and precision of a layer, as options of the layer that replaces it."""
    weight = _weight(old)
    return {"bias": getattr(old, "bias", None) is not None, "device": weight.device, "dtype": weight.dtype}


def _fixed_head(old: nn.Module, feature_dim: int, num_classes: int, **options: Any) -> ETFClassifier:
    kind = ETFConvolution if is_pointwise(old) else ETFClassifier
    head = kind(feature_dim, num_classes, **(_made_like(old) | options)).train(old.training)
    bias = getattr(old, "bias", None)
    if head.bias is not None and isinstance(bias, Tensor) and "bias" not in options:
        head.bias.requires_grad_(bias.requires_grad)
    if isinstance(head, ETFConvolution):
        head.map_dims = _map_dims(old)
    return _with_hooks(head, old)


def _map_dims(old: nn.Module) -> int:
    return old.map_dims if isinstance(old, ETFConvolution) else len(old.kernel_size)  # type: ignore[arg-type]


def _pointwise(old: nn.Module) -> Any:
    """The class of convolution that works on maps like those of a head."""
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[_map_dims(old) - 1]


def _computes_as(old: nn.Module, plain: Any) -> bool:
    """Whether a layer with a forward of its own computes what the plain class does, as timm's ``Linear`` does.

    It is asked with another weight, which is not zero, about small features and large ones: logits may be capped.
    """
    if type(old).forward is plain.forward and "forward" not in vars(old):
        return True
    if {name for name, _ in old.named_parameters()} - {"weight", "bias"}:
        return False
    held = {name: part for name, part in old._parameters.items() if part is not None}
    with torch.no_grad():
        try:
            # Others take their place for a moment, in float32 at least: half precision reaches no large logits.
            old._parameters.update({name: nn.Parameter(_wave(part.shape, part, 0.7)) for name, part in held.items()})
            points = _wave((3, *_weight(old).shape[1:]), _weight(old), 1.0)
            for scale in (1.0, 1e3):
                found, expected = old.forward(scale * points), plain.forward(old, scale * points)
                if not bool((found - expected).abs().max() <= 1e-3 * expected.abs().max()):
                    return False
        except Exception:  # it needs what a plain layer does not, such as labels, or gives no tensor
            return False
        finally:
            old._parameters.update(held)
    return True


def _wave(shape: Sequence[int], like: Tensor, frequency: float) -> Tensor:
    """Numbers in [-1, 1], none of them drawn at random."""
    count = torch.arange(float(math.prod(shape)), device=like.device)
    waves = (frequency * (count + 1)).sin().reshape(*shape)
    return waves.to(torch.promote_types(like.dtype, torch.float32))


def _resized_head(old: nn.Module, feature_dim: int, num_classes: int) -> nn.Module:
    if isinstance(old, ETFClassifier):
        learned = isinstance(old.scale, nn.Parameter)
        options: dict[str, Any] = {"rotation": old.rotation, "scale": float(old.scale.detach()), "learn_scale": learned}
        head = _fixed_head(old, feature_dim, num_classes, **options)
        if learned:
            head.scale.requires_grad_(old.scale.requires_grad)
        return head
    plain = _pointwise(old) if is_pointwise(old) else nn.Linear
    if isinstance(old, plain) and not _computes_as(old, plain):
        raise ValueError(
            f"the classifier is a {type(old).__name__}, whose forward is its own, and which cannot be made in another "
            f"size: build the model with feature_dim={feature_dim}"
        )
    made = _made_like(old)
    if is_pointwise(old):
        return _with_hooks(_pointwise(old)(feature_dim, num_classes, 1, **made).train(old.training), old)
    return _with_hooks(nn.Linear(feature_dim, num_classes, **made).train(old.training), old)
