"""Measure a model over a loader, in one pass, and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import nn

from neuralcollapse.geometry.target import Target
from neuralcollapse.measurement.attack import Attack, Bounds, chosen_attack
from neuralcollapse.measurement.classification import measure_classes
from neuralcollapse.measurement.labels import Task, checked_task
from neuralcollapse.measurement.multilabel import MultilabelReport, measure_label_sets
from neuralcollapse.measurement.options import Options
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.ranks import Ranks
from neuralcollapse.measurement.regression import measure_regression
from neuralcollapse.measurement.regression_report import RegressionReport
from neuralcollapse.measurement.report import CollapseReport

_RETAINED_BYTES = 2 << 30
"""Features held for exact moments and the nearest-class-centre mismatch; as many again for all inner layers."""


class _Choices(TypedDict, total=False):
    """The options of :func:`measure` that all tasks share, for type checkers."""

    classifier: str | None
    layers: Sequence[str] | Literal["all"] | None
    pooling: Pooling | Mapping[str, Pooling] | None
    forward: Callable[..., Any] | None
    batch: Callable[[Any], tuple[Any, Any]] | None
    device: torch.device | str | None
    allow_missing: bool
    ncc: bool
    sync: bool
    features_only: bool
    target: Target | None
    progress: bool | None
    attack: Literal["fgsm", "pgd"] | Attack | None
    epsilon: float | int | None
    bounds: Bounds | None


@overload
def measure(
    model: nn.Module, loader: Iterable[Any], *, task: Literal["classification"] = ..., **choices: Unpack[_Choices]
) -> CollapseReport: ...


@overload
def measure(
    model: nn.Module, loader: Iterable[Any], *, task: Literal["multilabel"], **choices: Unpack[_Choices]
) -> MultilabelReport: ...


@overload
def measure(
    model: nn.Module, loader: Iterable[Any], *, task: Literal["regression"], **choices: Unpack[_Choices]
) -> RegressionReport: ...


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    classifier: str | None = None,
    layers: Sequence[str] | Literal["all"] | None = None,
    pooling: Pooling | Mapping[str, Pooling] | None = None,
    forward: Callable[..., Any] | None = None,
    batch: Callable[[Any], tuple[Any, Any]] | None = None,
    device: torch.device | str | None = None,
    allow_missing: bool = False,
    ncc: bool = True,
    sync: bool = True,
    features_only: bool = False,
    target: Target | None = None,
    progress: bool | None = None,
    task: Task = "classification",
    attack: Literal["fgsm", "pgd"] | Attack | None = None,
    epsilon: float | int | None = None,
    bounds: Bounds | None = None,
) -> CollapseReport | MultilabelReport | RegressionReport:
    """Measure the neural collapse of any torch classifier over a loader, in one pass without gradient.

    The features are the input of the classifier layer, and its output gives the logits (Zhu et al., equations (7) to
    (10)). The model runs in evaluation mode.

    Afterwards, also after an error, everything is as before: the training mode of each module, parameters, buffers,
    submodules, hooks, attributes, lists and mappings in them, device, gradients, and the random numbers of torch,
    NumPy and Python, of the model and of the loader. Parameters and tensors in attributes are copied up to 64 MiB, the
    smallest first, and embeddings with ``max_norm`` always. A larger tensor that the forward pass changes in place
    cannot be restored; a warning names it. Sharded models, and models with weights on the meta device, keep their
    own parameters.

    Under torch.distributed each rank passes its own share of the data. All ranks compute with the buffers of rank 0,
    and every rank gets the answer for all the data; an error on one is raised on all.

    Args:
        model: any torch classifier; the classifier layer is found by :func:`neuralcollapse.find_classifier`.
            Models that are compiled, or wrapped for several devices, are measured inside.
        loader: batches: tuples or lists that begin (inputs, labels), or mappings and named tuples with ``labels``.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well; maps and token sequences are averaged over positions, padding
            left out. ``"all"`` measures every block in the order in which they run, and adds ``report.depth``: ranks,
            nearest class centres, the law of separation and the effective depth. A block is a child of the network
            with parameters, with the norms and activations that follow it; containers are opened, and so is what holds
            the classifier or more than half of the parameters. Features are streamed, and the data read twice.
        pooling: how the outputs of ``layers`` become one vector per sample, where a layer's class does not say which
            axis holds its features: the number of that axis, ``"first"`` or ``"last"`` (one token), ``"flatten"``, a
            function of the output, or a dictionary of these by layer.
        forward: a function of (model, inputs), or of inputs alone, in place of ``model(inputs)``.
        batch: a function that takes a batch and returns (inputs, labels), for any other kind of batch.
        device: where to compute; by default where the model is.
        allow_missing: measure the classes that have samples, with a warning, instead of raising.
        ncc: hold the features (up to 2 GiB): for exact moments and for the nearest-class-centre mismatch.
        sync: measure together with the other processes of the default process group; False for this one alone.
        features_only: measure features without a classifier: what enters it or, where a model has none, its output.
        target: the geometry that the class sizes should lead to, as in
            :func:`neuralcollapse.collapse_metrics`.
        progress: show a progress bar; by default on a terminal.
        task: what the labels are. ``"multilabel"``: zeros and ones (B, K), one column per label; gives a
            :class:`MultilabelReport`. ``"regression"``: continuous targets (B,) or (B, n); gives a
            :class:`RegressionReport`, and reads the data twice where features are too many to hold. Labels that look
            like another task's are refused.
        attack: measure the features of attacked inputs as well, and by how much the attack turns the class means
            (``report.attack``): ``"fgsm"``, ``"pgd"``, or an :class:`Attack` with further choices. Each batch is run
            once more, and differentiated once for FGSM, ten times for PGD. The parameters keep the gradients that they
            have.
        epsilon: largest change of an entry of the inputs, as the network takes them.
        bounds: least and greatest entry that attacked inputs may have, such as ``(0, 1)``.

    Raises:
        ValueError: if the classifier is ambiguous, the loader empty, a batch or a layer's output not understood, or the
            features, labels or logits are such that no measure is defined, as in
            :func:`neuralcollapse.collapse_metrics`.
        TypeError: if labels are not integers, or the model is none whose layers can be watched.

    Warns:
        CollapseWarning: as :func:`neuralcollapse.collapse_metrics`, and where features were too many to hold, the layer
            measured as the classifier decides otherwise than the model, the forward pass changes a large parameter in
            place, or the loader gives other data when it is read again. With
            ``layers="all"`` also for blocks that are left out, as their features cannot be known, and for data that can
            be read only once.

    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> x, y = torch.randn(64, 2), torch.arange(64) % 2
    >>> measure(model, [(x, y)]).classifier
    '2'
    """
    chosen = chosen_attack(attack, epsilon, bounds)
    if chosen is not None and (task != "classification" or features_only):
        raise ValueError(
            f"attack= needs a classifier and class indices: leave out {'features_only' if features_only else 'task'}="
        )
    kind = checked_task(task)
    options = Options(classifier, layers, pooling, forward, batch, device, features_only, progress, kind, chosen)
    ranks, hold_bytes = Ranks(sync), _RETAINED_BYTES if ncc else 0
    if task == "classification":
        return measure_classes(
            model, loader, options, ranks, hold_bytes=hold_bytes, ncc=ncc, allow_missing=allow_missing, target=target
        )
    if target is not None:
        raise ValueError(f"target= is the geometry of classes: task={task!r} has none, leave it out")
    if isinstance(layers, str):
        raise ValueError(f"layers={layers!r} is for task='classification': with task={task!r} name them in a list")
    if task == "regression":
        return measure_regression(model, loader, options, ranks, hold_bytes=hold_bytes)
    return measure_label_sets(model, loader, options, ranks, hold_bytes=hold_bytes, allow_missing=allow_missing)
