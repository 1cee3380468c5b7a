"""The decays λW, λH and λb under which a trained network is a point of the unconstrained feature model.

That model penalises the features; a network with decay on its parameters does not. What stands in for λH differs with
the run, and is said beside every number that rests on it:

* decay on features (Figure 6): n λH = feature_decay/K. Nothing is fitted where the classifier is learned.
* decay on all parameters, learned classifier: at every critical point λW ||W||² = λH ||H||², which the measured norms
  fulfil with one λH. The ratio of the norms is thus fitted; their size and the loss are predicted.
* fixed classifier: without decay on the features a critical point in them has n λH ||H̄||² = <(I - P)/K, W H̄>, which
  gives λH. The classifier is never decayed: λW is the one with which the model's optimum has the classifier's norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.snapshot import Snapshot
from neuralcollapse.ufm import UFM

_DECAY_IN_THE_LOSS = ("sgd", "adam", "lbfgs", "rmsprop", "adagrad", "adadelta")
"""Optimizers whose weight decay is a penalty in the loss, as the model has it. AdamW's is not."""


@dataclass(frozen=True)
class Decays:
    """λW, λb, and λH times the samples per class: that of a class mean, which stands for all samples of its class."""

    weight: float
    features: float
    bias: float
    fitted: str
    """What of them the measured norms gave."""

    def problem(self, num_classes: int, feature_dim: int) -> UFM:
        """The unconstrained model with one feature per class: classes count as equal, so that n cancels."""
        return UFM(
            num_classes, 1, feature_dim, lambda_w=self.weight, lambda_h=self.features, lambda_b=self.bias
        )  # fmt: skip


def choices_of(values: Mapping[str, Any]) -> TrainConfig:
    """What the decays of a run follow from, whatever recorded it: its optimizer, decays and head.

    Args:
        values: of the run's config.yaml: that of ``neuralcollapse train``, of a callback, or of a tracker.

    Raises:
        ValueError: if the optimizer's weight decay is no penalty in the loss, or a decay is missing or no number.
    """
    optimizer = values.get("optimizer")
    if optimizer is None or str(optimizer).lower() not in _DECAY_IN_THE_LOSS:
        raise ValueError(
            f"optimizer: {optimizer!r} in config.yaml, where the theory needs one whose weight decay is a penalty in "
            f"the loss: {', '.join(_DECAY_IN_THE_LOSS)}"
        )
    decay, on_features = _number(values, "weight_decay"), _number(values, "feature_decay")
    if decay is None:
        raise ValueError(
            "config.yaml has no weight_decay, from which the theory follows: give it to CollapseTracker.describe"
        )
    fixed = values.get("head") == "etf"
    return TrainConfig(weight_decay=decay, feature_decay=on_features, head="etf" if fixed else "learned")


def _number(values: Mapping[str, Any], name: str) -> float | None:
    try:
        return None if values.get(name) is None else float(values[name])
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {values[name]!r} in config.yaml is no number") from None


def decays_of(config: TrainConfig, last: Snapshot) -> Decays:
    """The decays of a run, where its last epoch left W and the class means.

    Raises:
        ValueError: if the run has no weight decay, or no critical point has the measured norms.
    """
    decay = float(config.weight_decay or 0)
    if decay <= 0:
        raise ValueError("weight_decay=0: without decay the unconstrained feature model has no minimiser")
    squared = float((last.means**2).sum())
    if not squared > 0:
        raise ValueError("the class means coincide: nothing can be said about their decay")
    if config.feature_decay is not None:
        if not config.feature_decay > 0:
            raise ValueError("feature_decay=0: without decay the unconstrained feature model has no minimiser")
        strength = config.feature_decay / len(last.weight)
        if config.head == "etf":
            return Decays(_fixed_decay(strength, last), strength, decay, "λW, from the given ||W||")
        return Decays(decay, strength, decay, "nothing")
    if config.head == "etf":
        strength = _strength(last) / squared
        if strength <= 0:
            raise ValueError("no critical point has these norms: the fixed classifier is hardly trained")
        fitted = "λH, from the features' balance; λW, from the given ||W||"
        return Decays(_fixed_decay(strength, last), strength, decay, fitted)
    share = float((last.weight**2).sum()) / squared
    return Decays(decay, decay * share, decay, "λH, from the ratio of the norms")


def _strength(last: Snapshot) -> float:
    """<(I - P)/K, W H̄>: the pull of the loss on the features."""
    logits = last.weight @ last.means.T
    pull = (np.eye(len(logits)) - softmax(logits + last.bias[:, None], axis=0)) / len(logits)
    return float((pull * logits).sum())


def _fixed_decay(strength: float, last: Snapshot) -> float:
    """The λW with which the model's optimum has the norm of a fixed W: there λW ||W||² = n λH ||H̄||²."""
    return strength * _best_scale(strength, float((last.weight**2).sum()), len(last.weight)) ** 2


def _best_scale(strength: float, squared: float, k: int) -> float:
    """The a at which class means h_k = a w_k minimise cross-entropy + strength/2 ||H̄||², W a simplex of this ||W||²."""
    row = squared / k
    margin = row * k / (k - 1)  # between logits, for a = 1

    def slope(a: float) -> float:
        wrong = (k - 1) * math.exp(-margin * a)
        return strength * k * row * a - margin * wrong / (1 + wrong)

    return float(brentq(slope, 0.0, 700 / margin))
