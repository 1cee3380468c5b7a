"""How near a trained network is to a proven optimum of the unconstrained feature model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.measurement.run_folder import read_config
from neuralcollapse.train.checkpoint_record import FOLDER, LAST, config_beside, of_train, read_lazily
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.decays import Decays, choices_of, decays_of
from neuralcollapse.train.snapshot import Snapshot, last_snapshot
from neuralcollapse.ufm import UFM, Point


@dataclass(frozen=True)
class Norms:
    """Sizes at an epoch, or at the theory's optimum."""

    weight: float
    """||W||, Frobenius."""
    features: float
    """Norm of the K centred class means, Frobenius."""
    loss: float
    """Cross-entropy without penalties."""


@dataclass(frozen=True)
class Optimality:
    """A network put into the unconstrained feature model, beside what nothing can beat there."""

    features: str
    """What stands for H: the features of all samples, or the class means."""
    decays: Decays
    value: float
    """f of the network: its cross-entropy and the penalties on W, H and b."""
    lower_bound: float
    """No point of the model has a smaller f; proved by a dual certificate."""
    measured: Norms
    predicted: Norms
    """At the global optimum."""
    distances: dict[str, float | None]
    """||A/||A|| - A*/||A*|||| of the Gram matrices WW', H̄'H̄ and of the logits WH̄; None where one is zero."""

    @property
    def gap(self) -> float:
        """``value`` exceeds the smallest possible value by no more than this."""
        return self.value - self.lower_bound

    def to_dict(self) -> dict[str, Any]:
        """Every number by name."""
        flat: dict[str, Any] = {"features": self.features}
        flat |= {f"lambda_{name}": value for name, value in dataclasses.asdict(self.decays).items()}
        flat |= {name: getattr(self, name) for name in ("value", "lower_bound", "gap")}
        for kind in ("measured", "predicted"):
            flat |= {f"{name}_{kind}": value for name, value in dataclasses.asdict(getattr(self, kind)).items()}
        return flat | {f"distance_{name}": value for name, value in self.distances.items()}


def certify_run(folder: str | Path, *, data_root: str | None = None, class_means: bool = False) -> Optimality:
    """Certify the network of a run: with all its features where there is a checkpoint, or else with its class means.

    Features are centred on the global mean, and the bias takes over what W makes of it, so that the logits stay.

    Args:
        folder: of a run, which may be committed and hold only snapshots. Those of a callback or a tracker need
            ``optimizer`` and ``weight_decay`` in their config.yaml.
        data_root: folder of torchvision's data sets, if it is no longer where the run found it.
        class_means: use the class means of the last snapshot even if there is a checkpoint.

    Raises:
        FileNotFoundError: if the folder holds no run, or the data is not there.
        ValueError: if a file is damaged, config.yaml is not that of the checkpoint, or the run has no λ's (see
            :func:`neuralcollapse.train.decays.decays_of`).
    """
    folder = Path(folder)
    if not of_train(folder):
        return certify_snapshot(choices_of(read_config(folder)), last_snapshot(folder))
    checkpoint = folder / FOLDER / LAST
    if class_means or not checkpoint.is_file():
        return certify_snapshot(config_beside(folder, read_lazily(checkpoint)), last_snapshot(folder))
    return _certify_checkpoint(folder, data_root)


def certify_snapshot(config: TrainConfig, last: Snapshot) -> Optimality:
    """Certify W, b and the class means of an epoch; classes count as equal.

    Raises:
        ValueError: if the run has no λ's, or a class no samples.
    """
    if last.absent:
        raise ValueError(
            f"class {last.absent[0]} had no samples when the run was measured ({len(last.absent)} of "
            f"{len(last.weight)} had none), and the theory needs samples of every class"
        )
    decays = decays_of(config, last)
    point = Point(last.weight, last.means.T, last.bias)
    said = f"class means, epoch {last.epoch}, classes counted as equal"
    return _judged(decays.problem(*last.weight.shape), point, last, decays, said)


def _certify_checkpoint(folder: Path, data_root: str | None) -> Optimality:
    from neuralcollapse.measurement import measure
    from neuralcollapse.train import load_run
    from neuralcollapse.train.datasets import eval_loader

    run = load_run(folder, data_root=data_root)
    report = measure(run.network, eval_loader(run.data.train), progress=False)
    if report.features is None or report.labels is None or report.weight is None:
        raise ValueError(f"{folder}: its features do not fit in memory; certify its class means instead")
    weight = report.weight.numpy()
    bias = np.zeros(len(weight)) if report.bias is None else report.bias.numpy()
    labels = report.labels.cpu().numpy()
    order = np.argsort(labels, kind="stable")
    features = report.features.cpu().double().numpy()[order]
    counts = np.bincount(labels, minlength=len(weight))
    means = np.add.reduceat(features, np.cumsum(counts) - counts) / counts[:, None]
    last = Snapshot.of(0, weight, bias, means, means.mean(0))
    decays = decays_of(run.config, last)
    on_sample = decays.features * len(counts) / len(labels)
    problem = UFM(
        len(counts), counts.tolist(), weight.shape[1],
        lambda_w=decays.weight, lambda_h=on_sample, lambda_b=decays.bias,
    )  # fmt: skip
    point = Point(last.weight, (features - last.centre).T, last.bias)
    return _judged(problem, point, last, decays, f"the features of all {len(labels):,} samples, last checkpoint")


def _judged(problem: UFM, point: Point, last: Snapshot, decays: Decays, features: str) -> Optimality:
    """Both bounds hold everywhere: the one from the network's own residuals, and the one from the optimum's."""
    closed = problem.balanced and problem.feature_dim >= problem.num_classes - 1
    ideal = (problem.global_optimum() if closed else problem.solve()).class_point
    own, model = problem.certify(point), problem.by_class
    bound = max(float(own.lower_bound or 0), float(model.certify(ideal).lower_bound or 0))
    return Optimality(
        features,
        decays,
        own.value,
        bound,
        _norms(problem, point, last.means),
        _norms(model, ideal, ideal.H.T),
        {
            "weight_gram": _distance(last.weight @ last.weight.T, ideal.W @ ideal.W.T),
            "feature_gram": _distance(last.means @ last.means.T, ideal.H.T @ ideal.H),
            "logits": _distance(last.weight @ last.means.T, ideal.W @ ideal.H),
        },
    )


def _norms(problem: UFM, point: Point, means: np.ndarray) -> Norms:
    penalties = problem.lambda_w * (point.W**2).sum() + problem.lambda_h * (problem.weights * point.H**2).sum()
    penalties += problem.lambda_b * (point.b**2).sum()
    loss = problem.objective(point) - float(penalties) / 2
    return Norms(float(np.linalg.norm(point.W)), float(np.linalg.norm(means - means.mean(0))), loss)


def _distance(measured: np.ndarray, ideal: np.ndarray) -> float | None:
    sizes = np.linalg.norm(measured), np.linalg.norm(ideal)
    if min(sizes) == 0:
        return None
    return float(np.linalg.norm(measured / sizes[0] - ideal / sizes[1]))
