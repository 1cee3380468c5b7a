"""Linear layers that an adapter corrects (LoRA and its kin): one layer, whose weight is the sum."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.conv import _ConvNd

_LINEAR = (nn.Linear, _ConvNd)


def is_adapted(module: nn.Module, *, by_name: bool = False) -> bool:
    """Whether a module is a linear layer with an adapter beside it.

    Known by the names that adapter libraries use (``base_layer``, ``lora_A``, ``modules_to_save``), or by its shape:
    a layer d -> K and beside it a chain d -> r -> K.

    Args:
        module: any module.
        by_name: go by the names alone, as for a layer that somebody has named.
    """
    return _named_base(module) is not None or (not by_name and _base_beside_chain(module) is not None)


def base_of(module: nn.Module) -> nn.Module | None:
    """The layer that an adapter corrects; None for a module that is no adapted layer."""
    return _named_base(module) or _base_beside_chain(module)


def read_through(module: nn.Module, *, whole: bool = False) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    """Name, module and adapted layer (or None) in order of registration, without what is inside adapted layers.

    Args:
        module: where to look.
        whole: that this is a whole model, which its shape alone does not make a layer with an adapter.
    """
    inside: tuple[str, ...] = ()
    for name, part in module.named_modules():
        if any(name.startswith(prefix) for prefix in inside):
            continue
        prefix = f"{name}." if name else ""
        kept = _saved_copy(part)
        if kept is not None:  # peft's trained copy of a module; the original beside it is not run
            others = [key for key, _ in part.modules_to_save.named_children() if key != kept]
            inside += (f"{prefix}original_module", *(f"{prefix}modules_to_save.{key}" for key in others))
        base = _named_base(part)
        if base is None and not (whole and part is module):
            base = _base_beside_chain(part)
        yield name, part, base
        if base is not None:
            if not prefix:
                return
            inside += (prefix,)


def _saved_copy(module: nn.Module) -> str | None:
    children = dict(module.named_children())
    if not {"original_module", "modules_to_save"} <= children.keys():
        return None
    active = getattr(module, "active_adapter", None)
    active = active[0] if isinstance(active, list) and active else active
    keys = [key for key, _ in children["modules_to_save"].named_children()]
    return str(active) if active in keys else keys[-1] if keys else None


def _named_base(module: nn.Module) -> nn.Module | None:
    if isinstance(module, (*_LINEAR, nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return None
    children = dict(module.named_children())
    base = children.get("base_layer")
    if isinstance(base, _LINEAR):
        return base
    own = [*children, *(name for name, _ in module.named_parameters(recurse=False))]
    if not any("lora" in name.lower() for name in own):
        return None
    bases = [child for name, child in children.items() if isinstance(child, _LINEAR) and "lora" not in name.lower()]
    return bases[0] if len(bases) == 1 else None


def _base_beside_chain(module: nn.Module) -> nn.Module | None:
    """The layer d -> K of a module that holds three linear layers, d -> K, d -> r and r -> K with r < min(d, K)."""
    if isinstance(module, (*_LINEAR, nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return None
    children = list(module.children())
    if len(children) > 8:
        return None
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if len(linear) != 3:
        return None
    for base in linear:
        down, up = (part for part in linear if part is not base)
        chained = (down.in_features, up.out_features) == (base.in_features, base.out_features)
        if base in children and chained and down.out_features == up.in_features < min(layer_sides(base)):
            return base
    return None


def layer_sides(layer: nn.Linear) -> tuple[int, int]:
    """Features and classes, d and K."""
    return layer.in_features, layer.out_features
