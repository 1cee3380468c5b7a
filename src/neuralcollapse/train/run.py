"""One run: from a configuration to a folder that holds everything about it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger

from neuralcollapse import files
from neuralcollapse.extras import missing
from neuralcollapse.measurement.run_folder import CONFIG
from neuralcollapse.train.checkpoint import CheckpointFiles, put_weights, read_checkpoint
from neuralcollapse.train.checkpoint_record import FOLDER, LAST, config_beside, of_train
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import ImageData, eval_loader, load_images, most_tested, train_loader
from neuralcollapse.train.folder import (
    Start,
    alone_in,
    check_epochs,
    check_folder,
    find_start,
    restore_history,
    set_aside,
)
from neuralcollapse.train.module import ClassifierModule, ImageNetwork, build_network
from neuralcollapse.train.precision import check_precision, emulated
from neuralcollapse.train.provenance import provenance_of, write_provenance
from neuralcollapse.train.record import RunRecorder

_log = logging.getLogger(__name__)


def train(config: TrainConfig, *, progress: bool | None = None) -> Path:
    """Train and measure; returns the run folder.

    The folder holds config.yaml (all choices made), metrics.csv (one row per epoch), snapshots/ (classifier and class
    means of each measured epoch), provenance.json (code, data, hardware) and checkpoints/: last.ckpt, previous.ckpt
    and their digests. Each file is whole at every moment.

    Args:
        config: the run; what is open in it is resolved.
        progress: show a progress bar; by default on a terminal.

    Raises:
        ValueError: if a choice is invalid, or the folder holds another run or more epochs than are asked for.
        FileExistsError: if the folder holds a run and ``resume`` is off, or another process trains in it.
        FileNotFoundError: if the data is not there and cannot be downloaded.
        OSError: if the folder cannot be written; finished epochs are kept.
        KeyboardInterrupt: on Ctrl-C; finished epochs are kept.
    """
    config = config.resolved()
    _check_batches(config)
    folder = Path(str(config.output))
    terminal = sys.stderr.isatty() if progress is None else progress
    with _quiet_lightning(), _without_subnormals():
        writer = CheckpointFiles()
        trainer = _trainer(config, folder, terminal, writer)
        check_precision(config.precision, str(trainer.precision))
        with alone_in(folder) if trainer.is_global_zero else contextlib.nullcontext():
            if trainer.is_global_zero:
                check_folder(folder, config)
            start = find_start(folder, config)
            check_epochs(folder, config, start)
            writer.last_is_good = start.checkpoint is None or start.checkpoint.name == LAST
            if trainer.is_global_zero and (said := emulated(config.precision, trainer.strategy.root_device)):
                _log.warning("%s", said)
            data = _load_data(config)
            network = build_network(config, data)
            provenance = provenance_of(
                config, data, trainer.strategy.root_device, epoch=start.epoch, before=start.provenance
            )
            if trainer.is_global_zero:
                _begin(folder, config, start, provenance)
            if config.test_samples_per_class == "auto" and trainer.is_global_zero and progress is not False:
                _log.warning(
                    "test accuracy over %s images, at most %s per class (test_samples_per_class='all' tests on every "
                    "image)",
                    f"{len(data.test):,}", most_tested(config.samples_per_class),
                )  # fmt: skip
            _fit(trainer, config, data, network, start, provenance, quiet=progress is False or terminal)
    return folder


def _check_batches(config: TrainConfig) -> None:
    """Refuse a batch that the processes cannot share equally: each would take a smaller one than is recorded.

    Raises:
        ValueError: naming the sizes that they can.
    """
    size, world = int(config.batch_size or 1), config.devices * config.nodes
    if size % world:
        near = [str(shared) for shared in (size - size % world, size - size % world + world) if shared]
        raise ValueError(
            f"batch_size={size} cannot be shared equally by {world} processes (devices={config.devices}, "
            f"nodes={config.nodes}): give {' or '.join(near)}"
        )


def _begin(folder: Path, config: TrainConfig, start: Start, provenance: dict[str, Any]) -> None:
    """Make the folder say what is about to happen in it."""
    if start.checkpoint is None:
        set_aside(folder)
    else:
        restore_history(folder, start)
    if start.epoch < int(config.epochs or 0):  # a finished run keeps what its checkpoint says
        dataclasses.replace(config, resume=False).save(folder / CONFIG)
        write_provenance(folder, provenance)


def _fit(
    trainer: L.Trainer,
    config: TrainConfig,
    data: ImageData,
    network: ImageNetwork,
    start: Start,
    provenance: dict[str, Any],
    quiet: bool,
) -> None:
    rank, world = trainer.global_rank, trainer.world_size
    train, test = (split.on(trainer.strategy.root_device) for split in (data.train, data.test))
    recorder = RunRecorder(
        Path(str(config.output)),
        eval_loader(train, rank=rank, world=world),
        eval_loader(test, rank=rank, world=world),
        num_classes=len(data.classes),
        config=config,
        start=start,
        provenance=provenance,
        quiet=quiet,
    )
    trainer.callbacks.insert(0, recorder)  # type: ignore[attr-defined]
    batches = train_loader(train, int(config.batch_size or 1), config.seed, rank, world)
    try:
        trainer.fit(
            ClassifierModule(network, config),
            batches,
            ckpt_path=None if start.checkpoint is None else str(start.checkpoint),
        )
    except SystemExit as stop:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stop
    except files.WriteError as error:
        raise files.WriteError(
            error.errno, f"{error}. Finished epochs are kept: resume=True continues after the last checkpoint"
        ) from error


@dataclass(frozen=True)
class Run:
    """A finished or interrupted run, read back from its folder."""

    config: TrainConfig
    data: ImageData
    network: ImageNetwork


def load_run(folder: str | Path, *, data_root: str | None = None) -> Run:
    """Rebuild the network and data of a run, with the weights of its last checkpoint.

    Raises:
        FileNotFoundError: if the folder holds no run, or the data is gone.
        ValueError: if its configuration or checkpoint is damaged, or they are not of the same run.
    """
    folder = Path(folder)
    if not of_train(folder):
        raise ValueError(
            f"{folder} was recorded in a training loop of your own, not by neuralcollapse train, and holds no network: "
            "measure yours with neuralcollapse.measure(model, loader)"
        )
    path = folder / FOLDER / LAST
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}: an archived run has none, and neuralcollapse report and certify read it without"
        )
    content = read_checkpoint(path)
    config = config_beside(folder, content)
    data = _load_data(dataclasses.replace(config, data_root=data_root or config.data_root))
    network = build_network(config, data)
    put_weights(network, content, path)
    return Run(config, data, network)


def _load_data(config: TrainConfig) -> ImageData:
    test = config.test_samples_per_class
    return load_images(
        config.dataset,
        config.data_root,
        samples_per_class=config.samples_per_class,
        test_samples_per_class=None if test == "all" else test,
        image_size=config.image_size,
        random_labels=config.random_labels,
    )


def _trainer(config: TrainConfig, folder: Path, terminal: bool, writer: CheckpointFiles) -> L.Trainer:
    checkpoint = ModelCheckpoint(
        folder / FOLDER, Path(LAST).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [checkpoint]
    if terminal:
        callbacks.append(RichProgressBar())
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        precision=config.precision,
        plugins=[writer],
        strategy="ddp" if config.devices * config.nodes > 1 else "auto",
        max_epochs=config.epochs,
        logger=_loggers(config, folder) or False,
        callbacks=callbacks,
        enable_progress_bar=terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    found: list[Logger] = []
    for name in config.loggers:
        try:
            if name == "tensorboard":
                from lightning.pytorch.loggers import TensorBoardLogger

                found.append(TensorBoardLogger(folder, name="tensorboard", version=""))
            else:
                from lightning.pytorch.loggers import WandbLogger

                found.append(WandbLogger(name=folder.name, save_dir=folder))
        except ModuleNotFoundError as error:
            raise missing(f"logs for {name}", name) from error
    return found


@contextlib.contextmanager
def _without_subnormals() -> Iterator[None]:
    """Numbers below 1e-38 count as zero on the host, so that no step waits for them.

    Weight decay shrinks the weights of unused channels below 1e-38, with Adam first, and a processor computes with such
    numbers many times more slowly: ResNet18 of width 16 on MNIST with Adam took 15 s for its first epoch and 74 s for
    its 38th. The setting belongs to a thread. That of this thread is set back at the end. Threads of torch that were
    there before keep theirs, and those that start meanwhile keep this one.
    """
    smallest = torch.full((1,), torch.finfo(torch.float32).tiny, device=torch.default_generator.device)
    before = bool((smallest / 2).eq(0))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No banners, tips or advice that the run has taken already (loader workers, its own folder)."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
