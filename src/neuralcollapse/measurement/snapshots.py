"""Snapshots of a run: the geometry of its measured epochs, one small safetensors file each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from neuralcollapse import files
from neuralcollapse.run_files import SNAPSHOTS

if TYPE_CHECKING:
    from neuralcollapse.measurement import CollapseReport

_GEOMETRY = ("weight", "bias", "class_means", "global_mean")
_SHOWN_CLASSES = 10
_SHOWN_SAMPLES = 20


def snapshot_of(report: CollapseReport) -> dict[str, Tensor]:
    """Classifier and class means of a measured model, and where a few samples lie among the means (kilobytes).

    Args:
        report: what :func:`neuralcollapse.measure` returned, of a model with a classifier.

    Raises:
        ValueError: if the report has no classifier.
    """
    if report.weight is None:
        raise ValueError("the report has no classifier, whose geometry a snapshot keeps")
    moments = report.moments
    means, present = moments.means.cpu() * moments.scale, moments.counts.cpu() > 0
    centre = means[present].mean(0)
    means[~present] = centre  # a class without samples is in no direction
    bias = torch.zeros(len(means)) if report.bias is None else report.bias
    tensors = {"weight": report.weight, "bias": bias, "class_means": means, "global_mean": centre}
    if not bool(present.all()):
        tensors["present"] = present
    if report.features is not None and report.labels is not None:
        shown = min(_SHOWN_CLASSES, moments.num_classes)
        rows = torch.cat([(report.labels == label).nonzero().flatten()[:_SHOWN_SAMPLES] for label in range(shown)])
        tensors["sample_products"] = (report.features[rows].double() - centre) @ (means[:shown] - centre).T
        tensors["sample_labels"] = report.labels[rows]
    return tensors


def write_snapshot(folder: str | Path, epoch: int, tensors: Mapping[str, Tensor]) -> None:
    """Keep the geometry of an epoch in snapshots/epoch-NNNN.safetensors: float32 and int32, on the host.

    What float32 cannot hold, because it is too large or vanishes, is kept in float64.

    Args:
        folder: of the run.
        epoch: counted from 1; 0 is before training.
        tensors: ``weight`` (K, d), ``bias`` (K,), ``class_means`` (K, d), ``global_mean`` (d,); ``present`` (K,) where
            a class has no samples; and, for the view of samples, ``sample_products`` (S, M) with ``sample_labels``
            (S,): inner products of centred features with the centred means of the first M <= 10 classes, from which
            any projection onto their span follows.

    Raises:
        WriteError: if it cannot be written.
    """
    single = {
        name: (_narrow(tensor.detach()) if tensor.is_floating_point() else tensor.to(torch.int32)).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    place = files.make_folder(Path(folder) / SNAPSHOTS)
    files.write_bytes(place / f"epoch-{epoch:04d}.safetensors", save(single))


def _narrow(tensor: Tensor) -> Tensor:
    single, largest = tensor.float(), float(tensor.abs().max()) if tensor.numel() else 0.0
    limits = torch.finfo(torch.float32)
    return single if largest == 0 or limits.tiny <= largest <= limits.max else tensor.double()


def snapshots(folder: str | Path) -> Iterator[tuple[int, Path]]:
    """(epoch, file) of each snapshot of a run, in order."""
    found = [
        (int(match[1]), path)
        for path in (Path(folder) / SNAPSHOTS).glob("epoch-*.safetensors")
        if (match := re.fullmatch(r"epoch-(\d+)", path.stem, re.ASCII))
    ]
    yield from sorted(found)


def read_snapshot(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a snapshot, checked.

    Raises:
        ValueError: if the file is damaged, a tensor is missing, shapes disagree or a number is not finite.
    """
    path = Path(path)
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    missing = [name for name in _GEOMETRY if name not in tensors]
    if missing:
        raise ValueError(f"{path} is damaged: it lacks {', '.join(missing)}")
    weight = tensors["weight"]
    classes, dim = weight.shape if weight.ndim == 2 else (0, 0)
    expected = {"bias": (classes,), "class_means": (classes, dim), "global_mean": (dim,)}
    if "present" in tensors:
        expected["present"] = (classes,)
    if "sample_products" in tensors:
        expected["sample_labels"] = tuple(tensors["sample_products"].shape[:1])
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape or not classes:
            raise ValueError(f"{path} is damaged: the shapes of weight and {name} disagree")
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} is damaged: {name} holds NaN or infinity")
    return tensors
