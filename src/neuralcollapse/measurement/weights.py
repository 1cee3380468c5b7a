"""The weight and bias of a classifier layer, whatever computes them."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuralcollapse.nn import ETFClassifier, PrototypeClassifier
from neuralcollapse.nn.adapters import base_of
from neuralcollapse.nn.surgery import layer_shape

_ROWS = 256
"""Unit vectors put through a head at a time, where its weight has to be found by asking it."""


@torch.no_grad()
def affine(classifier: nn.Module) -> tuple[Float[Tensor, "K d"], Float[Tensor, " K"] | None]:
    """W and b of a classifier layer, without gradient; b is None where it has none.

    Read after a forward pass: weight normalisation, spectral normalisation and pruning compute the weight there. A
    layer that is more than its weight (LoRA, a scaled or quantised Linear) is asked for its answers to unit vectors.

    Raises:
        ValueError: if the layer is not affine, so that it has no weight.
    """
    if isinstance(classifier, PrototypeClassifier):
        return _whole(classifier.class_means), None
    if not (isinstance(classifier, ETFClassifier) or _is_its_weight(classifier)):
        return _asked(classifier)
    weight, bias = classifier.weight, getattr(classifier, "bias", None)
    assert isinstance(weight, Tensor)
    return _whole(weight).flatten(1), None if bias is None else _whole(bias)


def _is_its_weight(classifier: nn.Module) -> bool:
    """Whether a layer does what torch's own linear layers and convolutions do, whatever computes its weight."""
    of_torch = isinstance(classifier, _ConvNd) and type(classifier).__module__.startswith("torch.nn.")
    return of_torch or type(classifier).forward is nn.Linear.forward


def _whole(tensor: Tensor) -> Tensor:
    """A tensor without gradient, gathered if it is sharded (on every rank alike)."""
    full = getattr(tensor, "full_tensor", None)
    return (tensor if full is None else full()).detach()


def _asked(classifier: nn.Module) -> tuple[Tensor, Tensor | None]:
    """W and b from the answers f(0) = b and f(e_i) = W e_i + b, in float64 where the layer can be copied."""
    feature_dim, num_classes = layer_shape(classifier)
    layer = _in_float64(classifier)
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
        raise ValueError(
            f"the classifier, a {type(classifier).__name__}, is not an affine map of its input, so it has no weight W "
            "to measure: name a linear layer with classifier=, or measure its features with features_only=True"
        )
    return weight, bias if bool((bias != 0).any()) else None


def _in_float64(classifier: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(classifier).double().eval()
    except (RuntimeError, TypeError):  # sharded, quantised, or on a device without float64
        return classifier
