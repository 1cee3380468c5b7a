"""The weight and bias of a classifier layer, whatever computes them."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from neuralcollapse.nn import ETFClassifier, PrototypeClassifier
from neuralcollapse.nn.adapters import base_of
from neuralcollapse.nn.surgery import layer_shape

_COMPUTING = (WeightNorm, SpectralNorm, BasePruningMethod)
_SHARE = 1e-2
"""Largest part of the logits, in norm, by which W h + b may miss them: low-precision products, not another function."""
_ROWS = 256
"""Unit vectors put through a head at a time, where its weight has to be found by asking it."""


@torch.no_grad()
def affine(
    classifier: nn.Module, features: Float[Tensor, "B d"] | None = None, logits: Float[Tensor, "B K"] | None = None
) -> tuple[Float[Tensor, "K d"], Float[Tensor, " K"] | None]:
    """W and b of a classifier layer, without gradient; b is None where it has none.

    A layer that is more than its weight (LoRA, a scaled or quantised Linear) is asked for its answers to unit vectors.
    Prototypes have the W and b that give their logits up to a number that all of a sample share.

    Args:
        classifier: the layer.
        features: some of its inputs, after a forward pass, and
        logits: its outputs for them. Where W and b do not give these (a hook or a patched ``forward`` changes them),
            the layer is asked as well.

    Raises:
        ValueError: if the layer is not affine, so that it has no weight.
    """
    found = _read(classifier)
    if found is not None and (features is None or logits is None or _gives(found, features, logits)):
        return found
    asked = _asked(classifier)
    if features is not None and logits is not None and not _gives(asked, features, logits):
        raise _not_affine(classifier)
    return asked


def _read(classifier: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """W and b as the layer holds them; None where they are not all of it."""
    if isinstance(classifier, PrototypeClassifier):
        means = _whole(classifier.class_means)
        means = means.to(torch.promote_types(means.dtype, torch.float32))  # half precision holds no squares of these
        norms = means.square().sum(1) / 2
        return means - means.mean(0), norms.mean() - norms
    if not (isinstance(classifier, ETFClassifier) or _is_its_weight(classifier)):
        return None
    _compute_weight(classifier)
    weight, bias = classifier.weight, getattr(classifier, "bias", None)
    assert isinstance(weight, Tensor)
    return _whole(weight).flatten(1), None if bias is None else _whole(bias)


def _is_its_weight(classifier: nn.Module) -> bool:
    """Whether a layer does what torch's own linear layers and convolutions do, whatever computes its weight."""
    if "forward" in vars(classifier):  # patched, as accelerate does
        return False
    of_torch = isinstance(classifier, _ConvNd) and type(classifier).__module__.startswith("torch.nn.")
    return of_torch or type(classifier).forward is nn.Linear.forward


def _compute_weight(classifier: nn.Module) -> None:
    """Do now what old-style weight and spectral normalisation and pruning do before each forward pass."""
    hooks = [hook for hook in classifier._forward_pre_hooks.values() if isinstance(hook, _COMPUTING)]
    if not hooks:
        return
    training = classifier.training
    classifier.training = False  # spectral normalisation takes no step then
    try:
        for hook in hooks:
            hook(classifier, ())
    finally:
        classifier.training = training


def _gives(found: tuple[Tensor, Tensor | None], features: Tensor, logits: Tensor) -> bool:
    """Whether W h + b are these logits, up to rounding and a number that all logits of a sample share."""
    weight, bias = (None if part is None else part.detach().cpu().double() for part in found)
    assert weight is not None
    inputs, given = features.detach().cpu().double(), logits.detach().cpu().double()
    expected = torch.nn.functional.linear(inputs, weight, bias)
    off = given - expected
    off, varying = (part - part.mean(1, keepdim=True) for part in (off, given))
    eps = max(torch.finfo(part.dtype).eps for part in (found[0], features, logits))
    rounding = torch.nn.functional.linear(inputs.abs(), weight.abs(), None if bias is None else bias.abs()).norm()
    return not bool(off.norm() > torch.maximum(_SHARE * varying.norm(), 64 * eps * rounding))


def _whole(tensor: Tensor) -> Tensor:
    """A tensor without gradient, gathered if it is sharded (on every rank alike)."""
    full = getattr(tensor, "full_tensor", None)
    return (tensor if full is None else full()).detach()


def _asked(classifier: nn.Module) -> tuple[Tensor, Tensor | None]:
    """W and b from the answers f(0) = b and f(e_i) = W e_i + b, in float64 where the layer can be copied."""
    try:
        return _answers(_in_float64(classifier), classifier)
    except RuntimeError:  # a patched forward that is the original's, in its own precision
        return _answers(classifier, classifier)


def _answers(layer: nn.Module, classifier: nn.Module) -> tuple[Tensor, Tensor | None]:
    feature_dim, num_classes = layer_shape(classifier)
    like = next((p for p in layer.parameters() if p.is_floating_point()), torch.zeros(1))
    plain = base_of(layer) or layer
    positions = (1,) * len(plain.kernel_size) if isinstance(plain, _ConvNd) else ()

    def answers(points: Tensor) -> Tensor:
        return layer(points.reshape(*points.shape, *positions)).reshape(len(points), num_classes)

    bias = answers(like.new_zeros(1, feature_dim))[0]
    eye = torch.eye(feature_dim, dtype=like.dtype, device=like.device)
    weight = torch.cat([(answers(rows) - bias).T for rows in eye.split(_ROWS)], 1)
    point = torch.linspace(-1, 2, feature_dim, dtype=like.dtype, device=like.device)[None]
    found, expected = answers(point)[0], weight @ point[0] + bias
    size = weight.norm() * point.norm() + bias.norm()
    if not bool((found - expected).norm() <= 1e3 * torch.finfo(like.dtype).eps * size):
        raise _not_affine(classifier)
    return weight, bias if bool((bias != 0).any()) else None


def _not_affine(classifier: nn.Module) -> ValueError:
    return ValueError(
        f"the classifier, a {type(classifier).__name__}, is not an affine map of its input, so it has no weight W "
        "to measure: name a linear layer with classifier=, or measure its features with features_only=True"
    )


def _in_float64(classifier: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(classifier).double().eval()
    except (RuntimeError, TypeError):  # sharded, quantised, or on a device without float64
        return classifier
