"""A classifier whose weight is a simplex ETF and is not learned (Zhu et al., Section 5 and footnotes 14, 16)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from neuralcollapse.geometry import simplex_etf
from neuralcollapse.geometry.inputs import Rows, as_real


class ETFClassifier(nn.Module):
    r"""Drop-in for ``nn.Linear(in_features, num_classes)`` whose weight is a fixed simplex ETF.

    The canonical frame (footnote 14) is never stored: with the first K features x of h,
    :math:`s \sqrt{K/(K-1)}\,(x - \bar x) + b` costs O(BK) where a matrix product costs O(BKd). For
    d = K - 1 the frame is in Helmert coordinates, and one running sum replaces the product. A random
    rotation is one buffer.

    Args:
        in_features: d, at least K - 1.
        num_classes: K, at least 2.
        bias: learn a bias (footnote 16), starting from zero.
        rotation: ``"canonical"``, or ``"random"`` for a Haar-distributed rotation of it.
        scale: s, the norm of the weight's rows.
        learn_scale: make s a parameter.
        generator: randomness of ``rotation="random"``.
        device: of the parameters and buffers.
        dtype: of the parameters and buffers.

    Raises:
        ValueError: if the features are too few for a simplex ETF, K < 2, the rotation is unknown, or the
            scale is not positive.

    >>> head = ETFClassifier(512, 10)
    >>> head(torch.randn(4, 512)).shape, sum(p.numel() for p in head.parameters())
    (torch.Size([4, 10]), 10)
    """

    scale: Tensor
    frame: Tensor | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = True,
        rotation: Literal["canonical", "random"] = "canonical",
        scale: float = 1.0,
        learn_scale: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: a simplex ETF needs at least 2 classes")
        if in_features < num_classes - 1:
            raise ValueError(
                f"in_features={in_features} cannot hold a simplex ETF of {num_classes} classes: {num_classes} vectors "
                f"at equal angles span {num_classes - 1} dimensions. Widen the features with "
                f"set_feature_dim(model, {num_classes}), or keep a learned nn.Linear"
            )
        if rotation not in ("canonical", "random"):
            raise ValueError(f"rotation={rotation!r} is unknown: choose 'canonical' or 'random'")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale={scale} must be positive and finite")
        self.in_features = in_features
        self.out_features = num_classes
        self.rotation = rotation
        value = torch.tensor(scale, device=device, dtype=dtype or torch.get_default_dtype())
        if learn_scale:
            self.scale = nn.Parameter(value)
        else:
            self.register_buffer("scale", value)
        self.register_parameter("bias", nn.Parameter(value.new_zeros(num_classes)) if bias else None)
        frame = None
        if rotation == "random":
            frame = simplex_etf(num_classes, in_features, rotation="random", generator=generator, dtype=value.dtype)
            frame = frame.to(value.device)
        self.register_buffer("frame", frame)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.out_features

    @property
    def weight(self) -> Float[Tensor, "K d"]:
        """The weight as a matrix, made when asked for: for tools that read ``.weight``."""
        frame = self.frame
        if frame is None:
            frame = simplex_etf(self.out_features, self.in_features, dtype=self.scale.dtype).to(self.scale.device)
        return self.scale * frame

    def forward(self, features: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch K"]:
        """Logits.

        Raises:
            ValueError: if the last axis is not ``in_features`` long.
        """
        if features.shape[-1] != self.in_features:
            raise ValueError(
                f"features have shape {tuple(features.shape)}: the last axis must be in_features={self.in_features}"
            )
        if self.frame is not None:
            logits = nn.functional.linear(features, self.frame * self.scale)
            return logits if self.bias is None else logits + self.bias
        centred = self._canonical(features)
        factor = self.scale * math.sqrt(self.out_features / (self.out_features - 1))
        # One pass over the logits in place of two.
        return centred * factor if self.bias is None else torch.addcmul(self.bias, centred, factor)

    def _canonical(self, features: Tensor) -> Tensor:
        if self.in_features >= self.out_features:
            # A slice that keeps everything would still be copied by its backward pass.
            whole = self.in_features == self.out_features
            used = features if whole else features[..., : self.out_features]
            return used - used.mean(-1, keepdim=True)
        # Column j of Helmert's basis is (1, ..., 1, -j, 0, ..., 0) / sqrt(j (j + 1)), so that logit r is the sum of
        # the later coordinates less r times its own. Half precision would lose the long sums.
        exact = torch.promote_types(features.dtype, torch.float32)
        j = torch.arange(1, self.out_features, device=features.device, dtype=exact)
        scaled = features.to(exact) * torch.rsqrt(j * (j + 1))
        later = nn.functional.pad(scaled.flip(-1).cumsum(-1).flip(-1), (0, 1))
        return (later - nn.functional.pad(scaled * j, (1, 0))).to(features.dtype)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        learned = isinstance(self.scale, nn.Parameter)
        scale = "learned" if learned else "unknown" if self.scale.is_meta else float(self.scale)
        return (
            f"in_features={self.in_features}, num_classes={self.out_features}, bias={self.bias is not None}, "
            f"rotation={self.rotation!r}, scale={scale}"
        )


class ETFConvolution(ETFClassifier):
    """The same for heads that are 1x1 convolutions (SqueezeNet): classifies every position of a map."""

    map_dims = 2
    """Axes of positions: 1 for a signal, 2 for an image, 3 for a volume."""

    def forward(self, features: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Logits at each position, (B, K, *positions), of features (B, d, *positions); also without B."""
        axis = -1 - self.map_dims  # also of a map without a batch
        return super().forward(features.movedim(axis, -1)).movedim(-1, axis)


class PrototypeClassifier(nn.Module):
    r"""No head at all: the nearest class mean decides (NC4, Papyan et al. 2020; prototypes, Snell et al. 2017).

    The logits are :math:`-\frac12 \|h - \mu_k\|^2`.

    Args:
        class_means: (K, d), such as ``measure(model, loader).statistics.means``; copied.
        dtype: in which the means are kept: that of the features, torch's default if not given. Distances are taken
            in float32 at least, and the logits have that precision: half precision holds no squares above 65504.

    Raises:
        ValueError: if the means are not a finite K x d matrix with K >= 2, also in that dtype, or a row is zero, as it
            is for a class without samples.
        TypeError: if they are not floating point.

    >>> head = PrototypeClassifier(torch.eye(3))
    >>> int(head(torch.tensor([[0.1, 0.9, 0.2]])).argmax())
    1
    """

    class_means: Tensor

    def __init__(self, class_means: Float[Tensor, "K d"] | Rows, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        class_means = as_real(class_means, "class_means")
        if class_means.ndim != 2 or len(class_means) < 2 or not bool(torch.isfinite(class_means).all()):
            raise ValueError(
                f"class_means of shape {tuple(class_means.shape)} must be a finite K x d matrix with K >= 2"
            )
        if not bool((present := class_means.any(1)).all()):
            absent = int((~present).nonzero()[0])
            raise ValueError(
                f"class_means[{absent}] is zero, as the mean of a class without samples is: features near zero would "
                f"be decided as class {absent}; measure data that has every class"
            )
        self.out_features, self.in_features = class_means.shape
        # Float64 statistics are kept in the features' own precision. A copy: the caller's may change.
        kept = class_means.to(dtype or torch.get_default_dtype(), copy=True)
        if not bool(torch.isfinite(kept).all()):
            raise ValueError(
                f"class_means reach {float(class_means.abs().max()):.3g}, which {kept.dtype} does not hold: give the "
                "features a smaller scale, or pass dtype=torch.float64"
            )
        self.register_buffer("class_means", kept)

    def forward(self, features: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch K"]:
        """Half the negative squared distance to each class mean."""
        wide = torch.promote_types(torch.promote_types(self.class_means.dtype, features.dtype), torch.float32)
        means, points = self.class_means.to(wide), features.to(wide)
        kind = features.device.type
        with torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext():
            # Differences around the centre of the means: the direct |h|^2 - 2 h mu + |mu|^2 cancels digits.
            centre = means.mean(0)
            means, points = means - centre, points - centre
            cross = nn.functional.linear(points, means, -means.square().sum(-1) / 2)
            return cross - points.square().sum(-1, keepdim=True) / 2

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"in_features={self.in_features}, num_classes={self.out_features}"
