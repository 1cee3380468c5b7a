"""The recorder of anyone's training loop: a history in memory and, if wanted, a run folder on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from neuralcollapse.extras import missing
from neuralcollapse.measurement.model import measure
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.ranks import first_process
from neuralcollapse.measurement.report import CollapseReport
from neuralcollapse.measurement.run_folder import (
    CONFIG,
    append_metrics,
    check_names,
    read_metrics,
    snapshot_of,
    snapshots,
    write_config,
    write_metrics,
    write_snapshot,
)

if TYPE_CHECKING:
    import pandas

_INTEGERS = ("epoch", "step")
_RESERVED = ("epoch", "seconds")


class CollapseTracker:
    """Records the collapse of a model over the epochs of any training loop.

    Each call of :meth:`measure` adds one row to the history. With a folder, the row and a snapshot of the geometry are
    on disk before the call returns, and ``neuralcollapse report FOLDER`` draws them. Measuring changes neither the
    model nor the random numbers of the training. Under torch.distributed every process calls it, and the first writes.

    Args:
        folder: of the run; a folder that already holds rows is continued. None keeps the history in memory alone.
        classifier: dotted name of the classifier layer, where it cannot be found.
        layers: names of inner layers to measure as well; their NC1 becomes the columns ``nc1/LAYER``; ``"all"``
            as in :func:`neuralcollapse.measure`.
        pooling: as in :func:`neuralcollapse.measure`.
        forward: as in :func:`neuralcollapse.measure`.
        batch: as in :func:`neuralcollapse.measure`.
        allow_missing: as in :func:`neuralcollapse.measure`.
        config: plain values that describe the run, such as ``{"model": "mlp", "lr": 0.1}``, kept as config.yaml.

    Attributes:
        report: the last :class:`neuralcollapse.CollapseReport`, None before the first.

    Raises:
        ValueError: if the folder's metrics.csv is damaged.
        WriteError: if the folder cannot be written.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> data = [(torch.randn(64, 2), torch.arange(64) % 2)]
    >>> tracker = CollapseTracker()
    >>> for epoch in (1, 2):
    ...     report = tracker.measure(model, data, train_loss=0.5)
    >>> [row["epoch"] for row in tracker.history]
    [1, 2]
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        classifier: str | None = None,
        layers: Sequence[str] | Literal["all"] | None = None,
        pooling: Pooling | Mapping[str, Pooling] | None = None,
        forward: Callable[..., Any] | None = None,
        batch: Callable[[Any], tuple[Any, Any]] | None = None,
        allow_missing: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if folder is not None and not str(folder):
            raise ValueError("folder='' is no folder: give a path such as 'runs/mine', or None to write nothing")
        self.folder = None if folder is None else Path(folder)
        self.report: CollapseReport | None = None
        self._classifier = classifier
        self._layers = layers
        self._pooling = pooling
        self._forward = forward
        self._batch = batch
        self._allow_missing = allow_missing
        self._writes = self.folder is not None and first_process()
        self._rows = [] if self.folder is None else [_numbers(row) for row in read_metrics(self.folder)]
        self._before = float(self._rows[-1].get("seconds") or 0) if self._rows else 0.0
        self._start = time.monotonic()
        if self._writes:
            assert self.folder is not None
            _make(self.folder)
            if config is not None:
                write_config(self.folder, config)
            elif not self._rows and (self.folder / CONFIG).is_file():
                raise ValueError(
                    f"folder={str(self.folder)!r} holds another run's configuration and no rows: choose another one"
                )

    @property
    def history(self) -> list[dict[str, float | int | None]]:
        """One row per measurement, oldest first; what was not measured is None."""
        return [dict(row) for row in self._rows]

    def measure(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        epoch: int | None = None,
        test_loader: Iterable[Any] | None = None,
        **columns: float | int | None,
    ) -> CollapseReport:
        """Measure the model now, and record it.

        Args:
            model: any torch classifier.
            loader: the training data, as for :func:`neuralcollapse.measure`.
            epoch: number of finished epochs; by default the last one plus one. 0 is the untrained network.
            test_loader: test data; its measures become the columns ``test_nc1``, ``test_accuracy`` and so on.
            **columns: further numbers of this epoch, such as ``train_loss=0.3`` or ``learning_rate=0.1``.

        Returns:
            The report of the training data.

        Raises:
            ValueError: if the epoch does not come after the last one, or as :func:`neuralcollapse.measure`.
            WriteError: if the folder cannot be written; the rows before are then unchanged.
        """
        epoch = self._next(epoch)
        _check_columns(columns)
        report = self._measured(model, loader)
        tested: dict[str, float | None] = {}
        if test_loader is not None:
            found = self._measured(model, test_loader, layers=False)
            tested = {f"test_{name}": value for name, value in found.to_dict().items()}
        self.record(report, epoch=epoch, **{**tested, **columns})
        return report

    def record(self, report: CollapseReport, *, epoch: int | None = None, **columns: float | int | None) -> None:
        """Record what was measured elsewhere.

        Args:
            report: what :func:`neuralcollapse.measure` returned.
            epoch: as in :meth:`measure`.
            **columns: as in :meth:`measure`.

        Raises:
            ValueError: if the epoch does not come after the last one.
            WriteError: if the folder cannot be written.
        """
        epoch = self._next(epoch)
        _check_columns(columns)
        seconds = round(self._before + time.monotonic() - self._start, 3)
        measured = {"train_accuracy" if name == "accuracy" else name: v for name, v in report.to_dict().items()}
        layers = {f"nc1/{name}": metrics.nc1 for name, metrics in report.layers.items()}
        row = {"epoch": epoch, "seconds": seconds, **columns, **measured, **layers}
        if self._writes:
            assert self.folder is not None
            if report.weight is not None:
                write_snapshot(self.folder, epoch, snapshot_of(report))
            append_metrics(self.folder, row)
        self._rows.append(row)
        self.report = report

    def begin(self, epoch: int = 0) -> None:
        """Say from which epoch a training goes on; rows after it are forgotten.

        Args:
            epoch: of the checkpoint; 0 for a training that starts anew.

        Raises:
            ValueError: if a training starts anew in a folder that holds rows of an earlier one.
        """
        if epoch == 0 and self.folder is not None and any(row["epoch"] for row in self._rows):
            raise ValueError(
                f"folder={str(self.folder)!r} holds a run already, up to epoch {self._rows[-1]['epoch']}: choose "
                "another folder, or resume the training from its checkpoint"
            )
        self.rewind(epoch)

    def rewind(self, epoch: int) -> None:
        """Forget every row after an epoch, for a training that goes on from an earlier checkpoint.

        Raises:
            WriteError: if the folder cannot be written.
        """
        kept = [row for row in self._rows if (row["epoch"] or 0) <= epoch]
        if len(kept) < len(self._rows) and self._writes:
            assert self.folder is not None
            write_metrics(self.folder, kept)
            for late, path in list(snapshots(self.folder)):
                if late > epoch:
                    path.unlink()
        self._rows = kept

    def to_frame(self) -> pandas.DataFrame:
        """The history as a DataFrame, one row per measurement.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise missing("data frames", "frames") from error
        return pandas.DataFrame(self._rows)

    def plot(self, *, backend: str = "plotly") -> Any:
        """The measures over the epochs.

        Args:
            backend: ``"plotly"`` or ``"matplotlib"``.

        Raises:
            ValueError: if nothing was recorded.
        """
        from neuralcollapse.figures import plot_measures

        if not self._rows:
            raise ValueError("nothing to plot: call measure() first")
        columns = {name: [row.get(name) for row in self._rows] for name in self._rows[-1]}
        return plot_measures(columns, backend=backend)

    def _measured(self, model: nn.Module, loader: Iterable[Any], *, layers: bool = True) -> CollapseReport:
        return measure(
            model,
            loader,
            classifier=self._classifier,
            layers=self._layers if layers else None,
            pooling=self._pooling,
            forward=self._forward,
            batch=self._batch,
            allow_missing=self._allow_missing,
            progress=False,
        )

    def _next(self, epoch: int | None) -> int:
        last = int(self._rows[-1]["epoch"] or 0) if self._rows else None
        if epoch is None:
            return 1 if last is None else last + 1
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch={epoch!r} must be a whole number, 0 or more")
        if last is not None and epoch <= last:
            where = "this tracker" if self.folder is None else str(self.folder)
            raise ValueError(
                f"epoch={epoch} was recorded already: {where} holds epochs up to {last}. Choose another folder, go on "
                f"with epoch={last + 1}, or call rewind({max(epoch - 1, 0)}) first"
            )
        return epoch

    def __repr__(self) -> str:
        return f"CollapseTracker(folder={None if self.folder is None else str(self.folder)!r}, rows={len(self._rows)})"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder={str(folder)!r} cannot be created: {error.strerror}") from error


def _check_columns(columns: Mapping[str, float | int | None]) -> None:
    check_names(columns)
    for name, value in columns.items():
        if name in _RESERVED:
            raise ValueError(f"{name}= is a column that the tracker fills itself: choose another name")
        if value is not None:
            try:
                float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}={value!r} must be a number, or None") from error


def _numbers(row: Mapping[str, str]) -> dict[str, float | int | None]:
    return {name: None if not cell else int(cell) if name in _INTEGERS else float(cell) for name, cell in row.items()}
