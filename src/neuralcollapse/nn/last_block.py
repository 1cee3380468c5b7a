"""The last residual block of a ResNet, and the layers that give it another width."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

Layer = TypeVar("Layer", bound=nn.Module)


def last_block(model: nn.Module, classifier: str, width: int) -> tuple[str, nn.Module] | None:
    """Name and module of the residual block that makes the features of a ResNet of torchvision or timm.

    None where there is none, where something beside the classifier reads features of that width, or where a layer of
    it cannot be narrowed: one whose weight is computed (weight norm, pruning), or a norm other than torch's batch and
    instance norms.
    """
    prefix = classifier.rpartition(".")[0]
    stage = dict(model.named_modules()).get(f"{prefix}.layer4" if prefix else "layer4")
    if not isinstance(stage, nn.Sequential) or not len(stage):
        return None
    block = stage[-1]
    norm = getattr(block, f"bn{_depth(block)}", None)
    plain = getattr(block, "se", None) is None and getattr(block, "drop_path", None) is None
    if not plain or not hasattr(block, "downsample") or getattr(norm, "num_features", None) != width:
        return None
    if _has_other_readers(model, prefix, classifier, width):
        return None
    if not all(_can_be_made_anew(layer) for layer in _widened(block).values()):
        return None
    return f"{prefix}.layer4.{len(stage) - 1}" if prefix else f"layer4.{len(stage) - 1}", block


def _has_other_readers(model: nn.Module, prefix: str, classifier: str, width: int) -> bool:
    """Whether something outside the ResNet's stages and the classifier has that width: a neck, a projection, a scale.

    Which layers read the last block is known only when the model runs. One that comes after it and is wider may read it
    joined with other features.
    """
    inside = tuple(f"{prefix}.layer{stage}." if prefix else f"layer{stage}." for stage in (1, 2, 3, 4))
    after = False
    for name, layer in model.named_modules():
        after = after or name.startswith(inside[-1])
        if name.startswith((*inside, f"{classifier}.")) or name == classifier:
            continue
        own = itertools.chain(layer.parameters(recurse=False), layer.buffers(recurse=False))
        if any(width in tensor.shape for tensor in own):
            return True
        if next(layer.children(), None) is not None:
            continue
        shape = getattr(layer, "normalized_shape", None) or ()  # norms without weights have numbers alone
        names = ("in_features", "in_channels", "num_features", "num_channels")
        sizes = [*(size for name in names if (size := getattr(layer, name, None)) is not None), *shape[-1:]]
        if width in sizes or (after and any(size > width for size in sizes)):
            return True
    return False


@torch.no_grad()
def runs_with(name: str, block: nn.Module, layers: Mapping[str, nn.Module], width: int) -> bool:
    """Whether a block runs with the layers that :func:`narrowed` made, and gives that width.

    Attention over its channels, a scale of its own or a norm before its convolution are seen only so. A copy without
    hooks is tried; where the block as it was does not run alone either, nothing can be said against the layers.
    """
    try:
        trial = _copy_without_hooks(block)
    except Exception:  # one that holds a computed tensor, as weight norm of the old style leaves
        return True
    if _channels(trial) is None:
        return True
    for key, layer in layers.items():
        parent, _, child = key.removeprefix(f"{name}.").rpartition(".")
        setattr(trial.get_submodule(parent), child, _copy_without_hooks(layer))
    return _channels(trial) == width


def _copy_without_hooks(block: nn.Module) -> nn.Module:
    """A deep copy; what the hooks hold, such as a trainer or a lock, is not copied."""
    tables = [held for module in block.modules() for name, held in vars(module).items() if "hook" in name]
    return copy.deepcopy(block, {id(held): type(held)() for held in tables if isinstance(held, dict)})


def _channels(block: nn.Module) -> int | None:
    """Of what a block makes of a blank map; None where it does not run."""
    first = getattr(block.eval(), "conv1", None)
    if not isinstance(first, nn.Conv2d):
        return None
    try:
        return int(block(first.weight.new_zeros(1, first.in_channels, 8, 8)).shape[1])
    except Exception:  # whatever a block of somebody's own raises, it does not run so
        return None


def narrowed(name: str, block: nn.Module, width: int) -> dict[str, nn.Module]:
    """The layers of a block that give it another width, by their dotted names.

    They are like those whose place they take, but for the width and their weights. A block without a layer on its skip
    path gets a convolution and a norm there.
    """
    new = {f"{name}.{key}": _of_width(layer, width) for key, layer in _widened(block).items()}
    if block.downsample is None:
        last, norm = block.get_submodule(f"conv{_depth(block)}"), block.get_submodule(f"bn{_depth(block)}")
        assert isinstance(last, nn.Conv2d)
        shortcut = nn.Conv2d(last.out_channels, width, 1, bias=False).to(last.weight)
        nn.init.kaiming_normal_(shortcut.weight, mode="fan_out", nonlinearity="relu")
        new[f"{name}.downsample"] = nn.Sequential(shortcut.train(last.training), _without_hooks(_of_width(norm, width)))
        new[f"{name}.downsample"].training = block.training
    return new


def _depth(block: nn.Module) -> int:
    """Of its convolutions: 2 in a basic block, 3 in a bottleneck."""
    return max((index for index in (1, 2, 3) if isinstance(getattr(block, f"conv{index}", None), nn.Conv2d)), default=0)


def _widened(block: nn.Module) -> dict[str, nn.Module]:
    """The layers that decide the width of a block: its last convolution and norm, and those of its skip path."""
    found = {key: block.get_submodule(key) for key in (f"conv{_depth(block)}", f"bn{_depth(block)}")}
    if block.downsample is not None:
        for key, part in block.get_submodule("downsample").named_modules():
            if isinstance(part, nn.Conv2d) or hasattr(part, "num_features"):
                found[f"downsample.{key}" if key else "downsample"] = part
    return found


def _can_be_made_anew(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return type(layer._parameters.get("weight")) is nn.Parameter
    return isinstance(layer, _NormBase) and not hasattr(layer, "parametrizations")


def _of_width(layer: nn.Module, width: int) -> nn.Module:
    """A layer with other weights and another width; all of its settings and hooks are those of the old one."""
    return _convolution(layer, width) if isinstance(layer, nn.Conv2d) else _norm(layer, width)


def _without_hooks(layer: nn.Module) -> nn.Module:
    """An additional layer, beside the one whose settings it has: the hooks are that one's alone."""
    vars(layer).update({name: made for name, made in vars(nn.Module()).items() if "hook" in name})
    return layer


def _convolution(old: nn.Conv2d, width: int) -> nn.Conv2d:
    new = _copy(old)
    new.out_channels, new.groups = width, math.gcd(old.groups, width)
    new.weight = nn.Parameter(old.weight.new_empty(width, old.in_channels // new.groups, *old.kernel_size))
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias.new_empty(width))
    new.reset_parameters()
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def _norm(old: nn.Module, width: int) -> nn.Module:
    assert isinstance(old, _NormBase)
    new = _copy(old)
    new.num_features = width
    for name, parameter in old.named_parameters(recurse=False):
        setattr(new, name, nn.Parameter(parameter.new_empty(width)))
    for name, buffer in old.named_buffers(recurse=False):
        setattr(new, name, buffer.new_empty(width) if buffer.ndim else torch.zeros_like(buffer))
    new.reset_parameters()
    return new


def _copy(old: Layer) -> Layer:
    """A layer that shares nothing with the old one that either replaces later, and its hooks."""
    new = old.__class__.__new__(old.__class__)
    vars(new).update(vars(old))
    for held in ("_parameters", "_buffers", "_modules"):
        vars(new)[held] = vars(old)[held].copy()
    return new
