"""How near a trained network comes to the unconstrained model's optimum: norms and loss, predicted and measured.

The unconstrained model penalises the features; a network with decay on its parameters does not. What stands in for
λH differs with the run, and is said beside the prediction:

* decay on features (Figure 6): λH = feature_decay/N. Nothing is fitted: three predictions.
* decay on all parameters, learned classifier: at every critical point λW ||W||² = λH ||H||², which the measured norms
  fulfil with one λH. Their ratio is thus fitted; their size and the loss are predicted.
* fixed classifier: ||W|| is given. A critical point in the features has λH ||H||² = <(Y - P)/N, WH>, which gives λH;
  the features' norm and the loss are those of an aligned simplex with it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load_file
from scipy.optimize import brentq
from scipy.special import softmax

from neuralcollapse.paper.experiments import CLASSES
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.record import snapshots
from neuralcollapse.ufm import UFM


@dataclass(frozen=True)
class Norms:
    """Sizes at an epoch, or at the theory's optimum."""

    weight: float
    """||W||, Frobenius."""
    features: float
    """Norm of the K centred class means, Frobenius."""
    loss: float | None
    """Cross-entropy without penalties."""


@dataclass(frozen=True)
class Comparison:
    """A run beside the theory."""

    epochs: list[int]
    measured: list[Norms]
    predicted: Norms | None
    """None where no critical point has the measured norms: a fixed classifier hardly trained."""
    fitted: str
    """Where the prediction's λH comes from."""


def compare(run: Outcome) -> Comparison:
    """Norms of a run by epoch, and those of the optimum of the unconstrained model with its K, n and λ.

    Raises:
        FileNotFoundError: if the run has no snapshot.
    """
    losses = {int(row["epoch"]): row.get("train_loss") for row in run.rows}
    files = [(epoch, path) for epoch, path in snapshots(run.folder) if epoch in losses]
    if not files:
        raise FileNotFoundError(f"{run.folder} has no snapshot: its norms are unknown")
    loaded = [load_file(path) for _, path in files]
    measured = [_measured(one, losses[epoch]) for one, (epoch, _) in zip(loaded, files, strict=True)]
    predicted, fitted = _predict(run.config, loaded[-1], measured[-1])
    return Comparison([epoch for epoch, _ in files], measured, predicted, fitted)


def _measured(snapshot: Mapping[str, np.ndarray], loss: float | None) -> Norms:
    means = snapshot["class_means"].astype(float) - snapshot["global_mean"].astype(float)
    return Norms(float(np.linalg.norm(snapshot["weight"].astype(float))), float(np.linalg.norm(means)), loss)


def _predict(config: TrainConfig, snapshot: Mapping[str, np.ndarray], last: Norms) -> tuple[Norms | None, str]:
    if config.head == "etf":
        return _fixed(snapshot, last), "λH, from the features' balance; ||W|| is given"
    samples = config.samples_per_class or _samples_per_class(config.dataset, config.data_root)
    decay = float(config.weight_decay or 0)
    if config.feature_decay is not None:
        on_features = config.feature_decay / (samples * CLASSES)
        fitted = "nothing"
    else:
        on_features = decay * last.weight**2 / (samples * last.features**2)
        fitted = "λH, from the ratio of the norms"
    dimension = max(snapshot["weight"].shape[1], CLASSES)
    problem = UFM(CLASSES, samples, dimension, lambda_w=decay, lambda_h=on_features, lambda_b=decay)
    best = problem.global_optimum()
    weight = float(np.linalg.norm(best.point.W))
    features = float(np.linalg.norm(best.point.H[:, :CLASSES]))
    return Norms(weight, features, best.value - decay * weight**2), fitted


def _fixed(snapshot: Mapping[str, np.ndarray], last: Norms) -> Norms | None:
    """h_k = a w_k with a at its minimum, for the λH under which the measured features would be critical."""
    weight = snapshot["weight"].astype(float)
    means = snapshot["class_means"].astype(float)
    logits = weight @ means.T + snapshot["bias"].astype(float)[:, None]
    pull = (np.eye(CLASSES) - softmax(logits, axis=0)) / CLASSES
    centred = weight @ (means - means.mean(0)).T
    strength = float((pull * centred).sum()) / last.features**2  # n λH, as each mean stands for n samples
    if strength <= 0:
        return None
    squared = last.weight**2 / CLASSES  # of one row
    margin = squared * CLASSES / (CLASSES - 1)  # between logits, for a = 1

    def slope(a: float) -> float:
        wrong = (CLASSES - 1) * math.exp(-margin * a)
        return strength * CLASSES * squared * a - margin * wrong / (1 + wrong)

    scale = float(brentq(slope, 0.0, 700 / margin))
    return Norms(last.weight, scale * last.weight, math.log1p((CLASSES - 1) * math.exp(-margin * scale)))


@functools.cache
def _samples_per_class(dataset: str, data_root: str) -> int:
    """Of all the data, on average: the closed form wants equal classes, and MNIST's differ a little."""
    from neuralcollapse.train.datasets import load_images

    return len(load_images(dataset, data_root).train) // CLASSES
