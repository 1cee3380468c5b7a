"""Fix the classifier and choose the feature dimension of a model somebody already has.

Everything new is built before anything old is replaced: a model is converted whole, or left as it was.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.nn.adapters import base_of
from neuralcollapse.nn.etf_classifier import ETFClassifier, ETFConvolution, PrototypeClassifier
from neuralcollapse.nn.surgery import find_classifier, is_pointwise, layer_shape

Model = TypeVar("Model", bound=nn.Module)


def fix_classifier(model: Model, *, classifier: str | None = None, num_classes: int | None = None, **etf: Any) -> Model:
    """Replace the classifier by a fixed simplex ETF, in place (Zhu et al., Section 5).

    The new head has a bias where the old one had, starting from zero; all other weights stay. Make the
    optimizer afterwards: the head's weight is no parameter any more.

    Args:
        model: any torch classifier; torchvision, timm and Hugging Face models among them.
        classifier: dotted name of the classifier layer, where it cannot be found.
        num_classes: K, where it shall change.
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
    return _swap(model, {name: _fixed_head(old, width, classes if num_classes is None else num_classes, **etf)})


def set_feature_dim(model: Model, feature_dim: int, *, classifier: str | None = None) -> Model:
    """Give a model features of another dimension, such as d = K, in place (Zhu et al., Section 5).

    In a ResNet the last block's output width becomes ``feature_dim``, and its skip path's with it, as in
    the paper. In other models a linear projection without bias is put before the classifier. New layers
    are freshly initialised and trainable; all other weights stay. A fixed head stays fixed.

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
    if feature_dim < max(1, classes - 1):
        raise ValueError(
            f"feature_dim={feature_dim} cannot hold a simplex ETF of {classes} classes: pass at least {classes - 1}"
        )
    if feature_dim == width:
        return model
    head = _resized_head(old, feature_dim, classes)
    last = _last_block(model, name, width)
    if last is not None:
        return _swap(model, {**_narrowed(*last, feature_dim), name: head})
    made = _made_like(old) | {"bias": False}
    if is_pointwise(old):
        project = _pointwise(old)(width, feature_dim, 1, **made)
    else:
        project = nn.Linear(width, feature_dim, **made)
    return _swap(model, {name: nn.Sequential(project, head).train(old.training)})


def use_prototypes(model: Model, class_means: Float[Tensor, "K d"], *, classifier: str | None = None) -> Model:
    """Drop the classifier: the nearest class mean decides (NC4, Papyan et al. 2020), in place.

    Args:
        model: any torch classifier, collapsed well enough: see ``ncc_mismatch``.
        class_means: such as ``measure(model, loader).statistics.means``.
        classifier: dotted name of the classifier layer, where it cannot be found.

    Raises:
        ValueError: if the means do not have the features' dimension, or as :func:`fix_classifier`.
        TypeError: as :func:`fix_classifier`.
    """
    name, old = _replaceable(model, classifier)
    if is_pointwise(old):
        raise ValueError(f"classifier {name!r} classifies each position of a map: prototypes need pooled features")
    width, _ = layer_shape(old)
    if class_means.ndim != 2 or class_means.shape[1] != width:
        raise ValueError(
            f"class_means have shape {tuple(class_means.shape)}, but classifier {name!r} takes {width} features"
        )
    head = PrototypeClassifier(class_means).to(_weight(old)).train(old.training)
    return _swap(model, {name: head})


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


def _made_like(old: nn.Module) -> dict[str, Any]:
    """Bias or none, device and precision of a layer, as options of the layer that replaces it."""
    weight = _weight(old)
    return {"bias": getattr(old, "bias", None) is not None, "device": weight.device, "dtype": weight.dtype}


def _fixed_head(old: nn.Module, feature_dim: int, num_classes: int, **options: Any) -> ETFClassifier:
    kind = ETFConvolution if is_pointwise(old) else ETFClassifier
    head = kind(feature_dim, num_classes, **(_made_like(old) | options)).train(old.training)
    if isinstance(head, ETFConvolution):
        head.map_dims = _map_dims(old)
    return head


def _map_dims(old: nn.Module) -> int:
    return old.map_dims if isinstance(old, ETFConvolution) else len(old.kernel_size)  # type: ignore[arg-type]


def _pointwise(old: nn.Module) -> Any:
    """The class of convolution that works on maps like those of a head."""
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[_map_dims(old) - 1]


def _resized_head(old: nn.Module, feature_dim: int, num_classes: int) -> nn.Module:
    if isinstance(old, ETFClassifier):
        learned = isinstance(old.scale, nn.Parameter)
        options: dict[str, Any] = {"rotation": old.rotation, "scale": float(old.scale), "learn_scale": learned}
        return _fixed_head(old, feature_dim, num_classes, **options)
    made = _made_like(old)
    if is_pointwise(old):
        return _pointwise(old)(feature_dim, num_classes, 1, **made).train(old.training)
    return nn.Linear(feature_dim, num_classes, **made).train(old.training)


def _last_block(model: nn.Module, classifier: str, width: int) -> tuple[str, nn.Module] | None:
    """The residual block that makes the features of a ResNet of torchvision or timm, where there is one."""
    prefix = classifier.rpartition(".")[0]
    stage = dict(model.named_modules()).get(f"{prefix}.layer4" if prefix else "layer4")
    if not isinstance(stage, nn.Sequential) or not len(stage):
        return None
    block = stage[-1]
    norm = getattr(block, f"bn{_depth(block)}", None)
    plain = getattr(block, "se", None) is None and getattr(block, "drop_path", None) is None
    if not plain or not hasattr(block, "downsample") or getattr(norm, "num_features", None) != width:
        return None
    return f"{prefix}.layer4.{len(stage) - 1}" if prefix else f"layer4.{len(stage) - 1}", block


def _depth(block: nn.Module) -> int:
    """Of its convolutions: 2 in a basic block, 3 in a bottleneck."""
    return max((index for index in (1, 2, 3) if isinstance(getattr(block, f"conv{index}", None), nn.Conv2d)), default=0)


def _narrowed(name: str, block: nn.Module, width: int) -> dict[str, nn.Module]:
    last, norm = f"conv{_depth(block)}", f"bn{_depth(block)}"
    new = {
        f"{name}.{last}": _convolution_like(block.get_submodule(last), width),
        f"{name}.{norm}": _norm_like(block.get_submodule(norm), width),
    }
    skip = block.get_submodule("downsample") if block.downsample is not None else None
    if skip is not None:
        for key, part in skip.named_modules():
            if isinstance(part, nn.Conv2d):
                new[f"{name}.downsample.{key}"] = _convolution_like(part, width)
            elif hasattr(part, "num_features"):
                new[f"{name}.downsample.{key}"] = _norm_like(part, width)
        return new
    channels = block.get_submodule(last).out_channels
    weight = _weight(block.get_submodule(last))
    shortcut = nn.Conv2d(channels, width, 1, bias=False, device=weight.device, dtype=weight.dtype)
    nn.init.kaiming_normal_(shortcut.weight, mode="fan_out", nonlinearity="relu")
    new[f"{name}.downsample"] = nn.Sequential(shortcut, _norm_like(block.get_submodule(norm), width)).train(
        block.training
    )
    return new


def _convolution_like(old: nn.Module, width: int) -> nn.Conv2d:
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(
        old.in_channels, width, old.kernel_size, old.stride, old.padding, old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None, device=old.weight.device, dtype=old.weight.dtype,
    )  # fmt: skip
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new.train(old.training)


def _norm_like(old: nn.Module, width: int) -> nn.Module:
    weight = _weight(old)
    return type(old)(width, eps=old.eps).to(weight.device, weight.dtype).train(old.training)
