"""How collapse deepens from layer to layer: what ``measure(..., layers="all")`` adds to a report."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralcollapse.geometry import ClassStatistics, CollapseMetrics, Moments, ncc_mismatch
from neuralcollapse.geometry.arithmetic import times_power_of_two
from neuralcollapse.geometry.spectra import (
    SeparationLaw,
    effective_rank_of,
    numerical_rank_of,
    separation_law,
    stable_rank_of,
)
from neuralcollapse.geometry.statistics import total_covariance
from neuralcollapse.measurement.options import Captured, Options
from neuralcollapse.measurement.passes import entered, read_alike, taken
from neuralcollapse.measurement.ranks import Ranks

TOLERANCE = 0.01
"""Share of samples on which the nearest class centre may disagree with the network, from the effective depth on."""

_RANK_TOLERANCE = 0.01

NO_DEPTH = "layers='all' leaves out the nearest class centres and the effective depth"


@dataclass(frozen=True)
class LayerDepth:
    """What one layer adds to the picture; ranks are those of its features, centred on their mean."""

    nc1: float | None
    """NC1 of the layer: 0 at collapse. None where its d x d scatter was too large to keep."""
    ncc_mismatch: float | None
    """Share of samples whose nearest class centre in this layer is not the network's decision: 0 at collapse."""
    effective_rank: float | None
    """Exp of the entropy of the singular values, in [1, d] (Roy and Vetterli 2007): K-1 at collapse."""
    stable_rank: float | None
    """Squared Frobenius norm over squared spectral norm, in [1, d]: K-1 at collapse."""
    numerical_rank: int | None
    """Singular values above 1% of the largest, in [1, d]: K-1 at collapse."""

    def to_dict(self) -> dict[str, float | int | None]:
        """All of them by name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class NetworkDepth:
    """Collapse against depth.

    Cost: a second pass over the data for the nearest class centres, O(Nd) per class and layer, and one eigenvalue
    problem of d x d per layer. Features are streamed; a layer keeps O(d² + Kd) numbers.
    """

    layers: dict[str, LayerDepth]
    """By name, in the order in which they run."""
    law: SeparationLaw | None
    """The law of data separation (He and Su, PNAS 2023) fitted to NC1: ``rate`` below 1 where each layer separates
    further, ``correlation`` -1 where the law holds exactly. None with fewer than two layers of positive, finite NC1."""
    effective_depth: int | None
    """The first layer, counted from 1, from which on the nearest class centre decides as the network does but for a
    share ``tolerance`` of the samples (Galanti, Galanti and Ben-Shaul 2022). None where no layer reaches that, or the
    data could be read only once."""
    tolerance: float = TOLERANCE
    """Share of samples that may be decided otherwise."""

    def explain(self) -> str:
        """What was found, in words."""
        lines = []
        if self.law is not None:
            lines.append(
                f"NC1 is multiplied by {self.law.rate:.3g} per layer by the fitted law; the correlation of its "
                f"logarithm with depth is {self.law.correlation:.3g} (-1 is an exact law of separation)."
            )
        if self.effective_depth is not None:
            name = list(self.layers)[self.effective_depth - 1]
            lines.append(
                f"From layer {self.effective_depth} of {len(self.layers)} ({name}) on, the nearest class centre "
                f"decides as the network does on all but {self.tolerance:.0%} of the samples."
            )
        elif any(layer.ncc_mismatch is not None for layer in self.layers.values()):
            lines.append(
                f"In the last layer the nearest class centre still disagrees with the network on more than "
                f"{self.tolerance:.0%} of the samples: there is no effective depth."
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return dataclasses.asdict(self)


def effective_depth(mismatches: Iterable[float], tolerance: float = TOLERANCE) -> int | None:
    """The first layer, counted from 1, from which on no mismatch exceeds the tolerance; None where the last one does.

    In 1 to L for L layers; the earlier, the more of the network is collapsed. Source: Galanti, Galanti and Ben-Shaul
    2022, "On the implicit bias towards minimal depth of deep neural networks". Cost: O(L).

    Args:
        mismatches: share of samples, layer by layer, whose nearest class centre is not the network's decision.
        tolerance: largest share that counts as agreement, in [0, 1].

    Raises:
        ValueError: if the tolerance or a mismatch is no share.

    >>> effective_depth([0.4, 0.0, 0.2, 0.01, 0.0])
    4
    """
    shares = list(mismatches)
    for name, value in (("tolerance", tolerance), *((f"mismatches[{i}]", share) for i, share in enumerate(shares))):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must be a share of the samples, in [0, 1]")
    first = len(shares)
    while first and shares[first - 1] <= tolerance:
        first -= 1
    return first + 1 if first < len(shares) else None


def network_depth(
    metrics: Mapping[str, CollapseMetrics],
    statistics: Mapping[str, ClassStatistics],
    mismatches: Mapping[str, float] | None,
) -> NetworkDepth:
    """Put together what was measured of each layer."""
    wrong = mismatches or {}
    layers = {
        name: LayerDepth(found.nc1, wrong.get(name), *_ranks(total_singular_values(statistics[name])))
        for name, found in metrics.items()
    }
    values = [layer.nc1 for layer in layers.values()]
    usable = [value for value in values if value is not None and 0 < value < torch.inf]
    law = separation_law(usable) if len(usable) == len(values) >= 2 else None
    depth = None if mismatches is None else effective_depth(mismatches[name] for name in layers)
    return NetworkDepth(layers, law, depth)


def total_singular_values(statistics: ClassStatistics) -> Float[Tensor, " d"] | None:
    """Singular values of the centred features over sqrt(N), largest first; None where no scatter was kept."""
    if statistics.within != "full":
        return None
    total, exponent = total_covariance(statistics)
    return times_power_of_two(torch.linalg.eigvalsh(total).clamp(min=0).sqrt().flip(0), exponent)


def _ranks(singular: Tensor | None) -> tuple[float | None, float | None, int | None]:
    if singular is None or not float(singular[0]) > 0:
        return None, None, None
    return effective_rank_of(singular), stable_rank_of(singular), numerical_rank_of(singular, _RANK_TOLERANCE)


def centre_mismatches(
    model: nn.Module, loader: Iterable[Any], options: Options, ranks: Ranks, centres: Mapping[str, Moments]
) -> dict[str, float] | None:
    """Share of samples, over all ranks, that each layer's nearest class centre decides unlike the network.

    One more pass over the data; nothing is held. The options name the layers. None, with a warning, where the loader
    gives other data than for the centres.
    """
    wrong, samples = dict.fromkeys(centres, 0.0), 0

    def take(batch: Captured) -> None:
        nonlocal samples
        assert batch.logits is not None
        decisions = batch.logits.argmax(1)
        samples += len(decisions)
        for name, moments in centres.items():
            wrong[name] += ncc_mismatch(batch.layers[name], decisions, moments) * len(decisions)

    with contextlib.ExitStack() as leaving:
        capture = entered(model, loader, options, ranks, leaving)
        records = ranks.agree(taken(capture, ranks, take), wrong=wrong, samples=samples)
    total = sum(record["samples"] for record in records)
    if not read_alike(next(iter(centres.values())).total, total, NO_DEPTH):
        return None
    return {name: min(sum(record["wrong"][name] for record in records) / total, 1.0) for name in centres}
