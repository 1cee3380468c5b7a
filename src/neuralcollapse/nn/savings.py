"""What a fixed classifier and smaller features save: counted, and measured over a real training step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuralcollapse.nn.conversion import check_feature_dim, fix_classifier, set_feature_dim
from neuralcollapse.nn.memory import measure_memory
from neuralcollapse.nn.surgery import find_classifier, layer_shape


@dataclass(frozen=True)
class Variant:
    """A model before or after conversion. Memory is in bytes; what was not measured is None.

    Nothing can be measured of a variant in which no parameter is left to train.
    """

    name: str
    feature_dim: int
    parameters: int
    """that an optimizer updates"""
    saved: float
    """share of the parameters of the model as it was"""
    gradients: int
    sgd_state: int
    """of SGD with momentum: one number a parameter"""
    adam_state: int
    """of Adam: two numbers a parameter"""
    activations: int | None = None
    """kept by the forward pass for the backward pass, for the given inputs"""
    sgd_peak: int | None = None
    """highest memory of tensors over a step: weights, gradients, state, activations and temporaries"""
    adam_peak: int | None = None


@dataclass(frozen=True)
class Savings:
    """What :func:`parameter_savings` found: the model as it is, then each conversion."""

    num_classes: int
    variants: tuple[Variant, ...]

    def __getitem__(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(f"no variant {name!r}: there are {', '.join(variant.name for variant in self.variants)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def table(self) -> Any:
        """What was counted, and under it what was measured, as rich tables."""
        from rich.console import Group

        counted = self._rows(
            f"{self.num_classes:,} classes",
            {
                "d": lambda v: f"{v.feature_dim:,}",
                "parameters": lambda v: f"{v.parameters:,}",
                "saved": lambda v: "" if v is self.variants[0] else f"{v.saved:.2%}",
                "gradients": lambda v: _mebibytes(v.gradients),
                "SGD state": lambda v: _mebibytes(v.sgd_state),
                "Adam state": lambda v: _mebibytes(v.adam_state),
            },
        )
        if self.variants[0].activations is None:
            return counted
        measured = self._rows(
            "Measured over a training step",
            {
                "activations": lambda v: _mebibytes(v.activations),
                "peak with SGD": lambda v: _mebibytes(v.sgd_peak),
                "peak with Adam": lambda v: _mebibytes(v.adam_peak),
            },
        )
        return Group(counted, measured)

    def _rows(self, title: str, columns: dict[str, Callable[[Any], str]]) -> Any:
        from rich.table import Table

        table = Table(title=title)
        table.add_column("", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
        for variant in self.variants:
            table.add_row(variant.name, *(cell(variant) for cell in columns.values()))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=100)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get()


def parameter_savings(
    model: nn.Module,
    *,
    inputs: Tensor | None = None,
    feature_dim: int | None = None,
    classifier: str | None = None,
    watch: Callable[[int, int, str], None] | None = None,
) -> Savings:
    """Count what a fixed ETF classifier, features of dimension d = K, and both would save.

    The model itself is left as it is. Frozen parameters have no gradients and are not counted.

    Args:
        model: any torch classifier.
        inputs: a batch; with it, a training step of SGD and one of Adam are run on copies of the model, and the
            memory of all their tensors is followed (Torch's MemTracker: the same on every device).
        feature_dim: d of the smaller features; the number of classes if not given.
        classifier: dotted name of the classifier layer, where it cannot be found.
        watch: called before the memory of each variant is measured, with its place, their number and its name.

    Returns:
        Variants ``as it is``, ``fixed head``, ``d = K`` and ``both``; those that the model's features are too few
        for are left out.

    Raises:
        ImportError: if memory is asked for and this torch has no MemTracker as it was known.
        ValueError: if no parameter is trainable, or as :func:`fix_classifier` and :func:`set_feature_dim`.

    >>> import torchvision
    >>> savings = parameter_savings(torchvision.models.resnet18(num_classes=10))
    >>> savings["d = K"].parameters, f"{savings['d = K'].saved:.2%}"
    (8867542, '20.70%')
    """
    name, head = find_classifier(model, classifier)
    features, classes = layer_shape(head)
    width = classes if feature_dim is None else feature_dim
    check_feature_dim(width, classes)

    def fixed(net: nn.Module) -> nn.Module:
        projected = isinstance(net.get_submodule(name), nn.Sequential)
        return fix_classifier(net, classifier=f"{name}.1" if projected else name)

    def small(net: nn.Module) -> nn.Module:
        return set_feature_dim(net, width, classifier=name)

    smaller = "d = K" if width == classes else f"d = {width}"
    steps: list[tuple[str, int, Callable[[nn.Module], nn.Module]]] = [
        ("as it is", features, lambda net: net),
        ("fixed head", features, fixed),
        (smaller, width, small),
        ("both", width, lambda net: fixed(small(net))),
    ]
    before = _parameters(model)
    if not before:
        raise ValueError(
            "every parameter of the model is frozen (requires_grad=False), so there is nothing to save: "
            "count the savings before freezing it"
        )
    variants = []
    steps = [step for step in steps if step[0] != "fixed head" or features >= classes - 1]
    for place, (title, dim, convert) in enumerate(steps, 1):
        if watch is not None and inputs is not None:
            watch(place, len(steps), title)
        converted = convert(copy.deepcopy(model))
        parameters, size = _parameters(converted), _bytes(converted)
        measured = {} if inputs is None or not parameters else measure_memory(converted, inputs)
        variants.append(Variant(title, dim, parameters, 1 - parameters / before, size, size, 2 * size, **measured))
    return Savings(classes, tuple(variants))


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:,.2f} MiB"
