"""Labels of a batch: a class index, a set of labels or targets per sample; and which of them they look like."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from neuralcollapse.geometry.ways_out import holds_strings, not_numbers

Task = Literal["classification", "multilabel", "regression"]

TASKS: tuple[Task, ...] = get_args(Task)

ADVICE = "pass batch=, a function that takes a batch and returns (inputs, labels)"


def checked_task(task: Any) -> Task:
    """The task, if it is one.

    Raises:
        ValueError: if it is unknown.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: choose one of {', '.join(map(repr, TASKS))}")
    return task


def looks_like_labels(part: Any, task: Task) -> bool:
    """Whether a part of a batch has the shape and kind of a task's labels."""
    if isinstance(part, list | tuple):
        part = np.asarray(part) if len(part) > 0 and _is_rectangle(part) else None
    if not isinstance(part, Tensor | np.ndarray):
        return False
    real = part.is_floating_point() if isinstance(part, Tensor) else part.dtype.kind == "f"
    if task == "classification":
        return part.ndim == 1 and not real and (isinstance(part, Tensor) or part.dtype.kind in "iu")
    if task == "multilabel":
        return part.ndim == 2 and bool(((part == 0) | (part == 1)).all())
    return real and part.ndim in (1, 2)


def _is_rectangle(part: Any) -> bool:
    """Whether nested lists are numbers of one kind."""
    try:
        return np.asarray(part).dtype.kind in "iufb"
    except (ValueError, TypeError, RuntimeError):
        return False


def as_labels(labels: Any, device: torch.device, task: Task = "classification", *, advice: str = ADVICE) -> Tensor:
    """Labels on a device: int64 (B,) of a classification, booleans (B, K), or float64 targets (B, n).

    They are a copy: what the user does to the memory of the labels later, a loader that reuses it among others,
    changes no number.

    Args:
        labels: of a batch.
        device: where they go.
        task: what they are.
        advice: the way out that an error names where no better one is known.

    Raises:
        ValueError: if they are none, or not what the task has, with the task that they look like.
        TypeError: if they are not numbers of the kind that the task has.
    """
    if labels is None:
        raise ValueError(f"the labels of a batch are None: {advice}")
    return _KINDS[task](_tensor(labels, device, task, advice).detach(), device, advice)


def _tensor(labels: Any, device: torch.device, task: Task, advice: str) -> Tensor:
    """Labels as a tensor, which may share the user's memory."""
    if isinstance(labels, list | tuple) and labels and all(isinstance(item, Tensor) for item in labels):
        items = [item.reshape(()) if item.numel() == 1 else item for item in labels]
        if len({item.shape for item in items}) > 1:
            shapes = ", ".join(str(tuple(item.shape)) for item in items[:3])
            raise ValueError(
                f"the labels of a batch are a {type(labels).__name__} of tensors of shapes {shapes}, which looks like "
                f"samples that were not collated: leave out collate_fn=, or {advice}"
            )
        return torch.stack(items)
    try:
        return labels if isinstance(labels, Tensor) else torch.as_tensor(_plain(labels), device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        if holds_strings(labels) and task == "classification":
            raise TypeError(f"labels are {not_numbers(labels, 'labels')}") from error
        kind = "integers" if task == "classification" else "numbers"
        raise TypeError(f"labels are a {type(labels).__name__} that holds no {kind}: {advice}") from error


def _plain(labels: Any) -> Any:
    """Arrays in the order of bytes and of memory that torch takes; columns of tables as arrays."""
    if isinstance(labels, np.ma.MaskedArray) and np.ma.is_masked(labels):
        raise ValueError("some are masked")
    if isinstance(labels, list | tuple) or not hasattr(labels, "__array__"):
        return labels
    array = np.asarray(labels)
    if array.dtype.kind == "O":
        return array.tolist()
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _classes(labels: Tensor, device: torch.device, advice: str) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or (labels.dtype == torch.bool and labels.ndim == 1):
        whole = labels.is_floating_point() and labels.ndim == 1 and bool((labels == labels.round()).all())
        way = "pass labels.long()" if whole or labels.dtype == torch.bool else _other_task(labels, advice)
        raise TypeError(f"labels have dtype {labels.dtype}: expected integers, one class index per sample; {way}")
    if labels.ndim != 1:
        ways = {0: "wrap a data set in a DataLoader", 2: _other_task(labels, advice)}
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}: expected (B,), one integer per sample; "
            + ways.get(labels.ndim, advice)
        )
    return labels.to(device, torch.int64, copy=True)


def _other_task(labels: Tensor, advice: str) -> str:
    """What to do with labels that are no class indices."""
    if labels.ndim == 2 and _binary(labels):
        if labels.shape[1] == 1:
            return "a column is flattened by labels[:, 0]"
        if bool((labels.sum(1) == 1).all()):
            return 'one-hot rows become labels.argmax(1); several labels per sample are measured with task="multilabel"'
        return 'several labels per sample are measured with task="multilabel"'
    if labels.is_floating_point() and labels.ndim in (1, 2):
        return 'continuous targets are measured with task="regression"'
    return "a column is flattened by labels[:, 0], one-hot rows by labels.argmax(1)" if labels.ndim == 2 else advice


def _label_sets(labels: Tensor, device: torch.device, advice: str) -> Tensor:
    if labels.ndim != 2:
        way = (
            'continuous targets are measured with task="regression"'
            if labels.is_floating_point()
            else 'one class index per sample is task="classification", the default'
        )
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}: task='multilabel' expects (B, K) of zeros and ones; {way}"
        )
    if not _binary(labels):
        way = 'continuous targets are measured with task="regression"' if labels.is_floating_point() else advice
        raise ValueError(f"labels hold other numbers than 0 and 1, which task='multilabel' expects; {way}")
    return labels.to(device, torch.bool, copy=True)


def _targets(labels: Tensor, device: torch.device, advice: str) -> Tensor:
    if labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels have dtype {labels.dtype}: task='regression' expects real targets, (B,) or (B, n)")
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels have shape {tuple(labels.shape)}: task='regression' expects (B,) or (B, n); {advice}")
    rows = labels[:, None] if labels.ndim == 1 else labels
    if rows.shape[1] > 1 and len(rows) > 1 and _binary(rows):
        raise ValueError(
            "labels are zeros and ones: task='regression' expects continuous targets; several labels per sample are "
            'measured with task="multilabel", one-hot rows with labels.argmax(1) and the default task'
        )
    if not bool(rows.isfinite().all()):
        raise ValueError("labels hold NaN or infinity: task='regression' expects finite targets")
    return rows.to("cpu", torch.float64, copy=True)


def _binary(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


_KINDS = {"classification": _classes, "multilabel": _label_sets, "regression": _targets}
