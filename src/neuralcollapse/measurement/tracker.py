"""The recorder of anyone's training loop: a history in memory and, if wanted, a run folder on disk."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from neuralcollapse.extras import missing
from neuralcollapse.measurement.given import described, numbers
from neuralcollapse.measurement.heads import head_pooling
from neuralcollapse.measurement.model import measure
from neuralcollapse.measurement.pooling import Pooling
from neuralcollapse.measurement.report import CollapseReport
from neuralcollapse.measurement.rows import Rows, Whole, columns_of

if TYPE_CHECKING:
    import pandas


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
        config: plain values that describe the run, kept as config.yaml: see :meth:`describe`. In a folder that
            holds rows already they replace the values there; another ``model`` or ``dataset`` is refused.

    Attributes:
        report: the last :class:`neuralcollapse.CollapseReport`, None before the first.

    Raises:
        ValueError: if the folder's metrics.csv or config.yaml is damaged, if it holds rows of another ``model`` or
            ``dataset`` than ``config`` names, or as :meth:`describe`.
        TypeError: as :meth:`describe`.
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
        self._layers, self._pooling = layers, pooling
        self._options: dict[str, Any] = {
            "classifier": classifier, "forward": forward, "batch": batch, "allow_missing": allow_missing,
        }  # fmt: skip
        self._rows = Rows(self.folder, None if config is None else described(config))
        self._before, self._start = self._rows.seconds, time.monotonic()

    @property
    def history(self) -> list[dict[str, float | int | None]]:
        """One row per measurement, oldest first; what was not measured is None."""
        return [dict(row) for row in self._rows.values]

    def measure(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        epoch: Whole | None = None,
        test_loader: Iterable[Any] | None = None,
        **columns: float | int | None,
    ) -> CollapseReport:
        """Measure the model now, and record it.

        Args:
            model: any torch classifier.
            loader: the training data, as for :func:`neuralcollapse.measure`.
            epoch: number of finished epochs, of any kind of integer; by default the last one plus one. 0 is the
                untrained network.
            test_loader: test data; its measures become the columns ``test_nc1``, ``test_accuracy`` and so on.
            **columns: further numbers of this epoch, such as ``train_loss=0.3`` or ``learning_rate=0.1``; their names
                must not be those of measures, which the tracker fills itself.

        Returns:
            The report of the training data.

        Raises:
            ValueError: if the epoch does not come after the last one, or as :func:`neuralcollapse.measure`.
            WriteError: if the folder cannot be written; the rows before are then unchanged.
        """
        with self._rows.tidied():
            epoch = self._rows.next_epoch(epoch)
            columns = numbers(columns, tested=test_loader is not None)
            report = self.look(model, loader)
            test = None if test_loader is None else self.look(model, test_loader, layers=False)
            self.record(report, test=test, epoch=epoch, **columns)
        return report

    def look(self, model: nn.Module, loader: Iterable[Any], *, layers: bool = True) -> CollapseReport:
        """Measure the model with the tracker's options, without recording it.

        Args:
            model: as in :meth:`measure`.
            loader: as in :meth:`measure`.
            layers: whether to measure the inner layers as well.

        Raises:
            ValueError: as :func:`neuralcollapse.measure`.
        """
        with self._rows.tidied():
            return measure(
                model,
                loader,
                layers=self._layers if layers else None,
                pooling=self._pooling if layers else head_pooling(model, self._options["classifier"], self._pooling),
                progress=False,
                **self._options,
            )

    def record(
        self,
        report: CollapseReport,
        *,
        test: CollapseReport | None = None,
        epoch: Whole | None = None,
        **columns: float | int | None,
    ) -> None:
        """Record what was measured before.

        Args:
            report: what :func:`neuralcollapse.measure` or :meth:`look` returned for the training data.
            test: what it returned for the test data, as the columns ``test_nc1``, ``test_accuracy`` and so on.
            epoch: as in :meth:`measure`.
            **columns: as in :meth:`measure`.

        Raises:
            ValueError: if the epoch does not come after the last one.
            WriteError: if the folder cannot be written.
        """
        epoch = self._rows.next_epoch(epoch)
        columns = numbers(columns, tested=test is not None)
        seconds = round(self._before + time.monotonic() - self._start, 3)
        self._rows.add({"epoch": epoch, "seconds": seconds, **columns, **columns_of(report, test)}, report)
        self.report = report

    def describe(self, **config: Any) -> None:
        """Say how the run is made: plain values for config.yaml, which the page lists.

        They are written with the next row. Values that were given before, or that the folder has, stay. With the
        ``weight_decay`` and the ``optimizer`` the page also compares the run with the theory. It lists names of your
        own as well.

        Args:
            **config: such as ``model="mlp"``, ``optimizer="sgd"``, ``weight_decay=5e-4``.

        Raises:
            ValueError: if a name is nearly, and not quite, that of a value which the page reads.
            TypeError: if a value is of the wrong kind, such as a word for ``weight_decay``, or not plain.
        """
        self._rows.describe(described(config))

    def begin(self, epoch: int = 0, config: Mapping[str, Any] | None = None, *, resumed: bool = False) -> None:
        """Say from which epoch a training continues; later rows are dropped as by :meth:`rewind`.

        Args:
            epoch: of the checkpoint; 0 for a training that starts anew, whose epoch 0 is then measured again.
            config: how the run is made, as for :meth:`describe`; of an earlier session only ``epochs`` may differ.
            resumed: whether epoch 0 is that of a checkpoint within the first epoch.

        Raises:
            ValueError: if a training starts anew over rows of an earlier one, or config.yaml describes another run.
        """
        if anew := epoch == 0 and not resumed:
            self._rows.check_unbegun()
        self._rows.go_on_as(described(config or {}))
        self.rewind(-1 if anew else epoch)

    def tidied(self) -> contextlib.AbstractContextManager[None]:
        """Around a block: where it fails, a folder that was made for this run and is still empty is removed again."""
        return self._rows.tidied()

    def rewind(self, epoch: int) -> None:
        """Drop every row after an epoch, for a training that continues from an earlier checkpoint.

        Where this is more than one row, a copy of metrics.csv and the snapshots get dated names in the folder.

        Raises:
            WriteError: if the folder cannot be written.
        """
        self._rows.rewind(epoch)
        self._before, self._start = self._rows.seconds, time.monotonic()

    def to_frame(self) -> pandas.DataFrame:
        """The history as a DataFrame, one row per measurement.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise missing("data frames", "frames") from error
        return pandas.DataFrame(self._rows.values)

    def plot(self, *, backend: str = "plotly") -> Any:
        """The measures over the epochs.

        Args:
            backend: ``"plotly"`` or ``"matplotlib"``.

        Raises:
            ValueError: if nothing was recorded.
        """
        from neuralcollapse.figures import plot_measures

        rows = self._rows.values
        if not rows:
            raise ValueError("nothing to plot: call measure() first")
        return plot_measures({name: [row.get(name) for row in rows] for name in rows[-1]}, backend=backend)

    def __repr__(self) -> str:
        folder = None if self.folder is None else str(self.folder)
        return f"CollapseTracker({folder=}, rows={len(self._rows.values)})"
