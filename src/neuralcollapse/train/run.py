"""One run: from a configuration to a folder that holds everything about it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import pickle
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger

from neuralcollapse.extras import missing
from neuralcollapse.measurement.ranks import first_process
from neuralcollapse.train.config import TrainConfig
from neuralcollapse.train.datasets import ImageData, eval_loader, load_images, train_loader
from neuralcollapse.train.module import ClassifierModule, ImageNetwork, build_network
from neuralcollapse.train.record import RunRecorder

_MAY_CHANGE = {"epochs", "output", "resume", "loggers", "devices", "nodes", "accelerator", "data_root"}
"""What a resumed run may change without becoming another run."""


def train(config: TrainConfig, *, progress: bool | None = None) -> Path:
    """Train and measure; returns the run folder.

    The folder holds config.yaml (all choices made), metrics.csv (a row an epoch), checkpoints/last.ckpt
    and snapshots/ (classifier and class means of each measured epoch).

    Args:
        config: the run; what is open in it is resolved.
        progress: show a progress bar; by default on a terminal.

    Raises:
        ValueError: if a choice is invalid, or the folder holds another run.
        FileExistsError: if the folder holds a run and ``resume`` is off, or another process trains in it.
        FileNotFoundError: if the data is not there and cannot be downloaded.
        KeyboardInterrupt: on Ctrl-C; finished epochs are kept.
    """
    config = config.resolved()
    folder = Path(str(config.output))
    child = not first_process()
    if not child:
        check_folder(folder, config)
    data = _load_data(config)
    network = build_network(config, data)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if child else _alone_in(folder):
        if not child:
            _forget_unsaved(folder)
            dataclasses.replace(config, resume=False).save(folder / "config.yaml")
        _fit(config, data, network, progress)
    return folder


def _fit(config: TrainConfig, data: ImageData, network: ImageNetwork, progress: bool | None) -> None:
    folder = Path(str(config.output))
    terminal = sys.stderr.isatty() if progress is None else progress
    with _quiet_lightning():
        trainer = _trainer(config, folder, terminal)
        rank, world = trainer.global_rank, trainer.world_size
        recorder = RunRecorder(
            folder,
            eval_loader(data.train, rank=rank, world=world),
            eval_loader(data.test, rank=rank, world=world),
            every=config.measure_every,
            quiet=progress is False or terminal,
        )
        trainer.callbacks.insert(0, recorder)  # type: ignore[attr-defined]
        batches = train_loader(data.train, int(config.batch_size or 1), config.seed, rank, world)
        last = folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            read_checkpoint(last)
        try:
            trainer.fit(
                ClassifierModule(network, config),
                batches,
                ckpt_path=str(last) if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop


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
        ValueError: if its configuration or checkpoint is damaged.
    """
    folder = Path(folder)
    config = TrainConfig.load(folder / "config.yaml").resolved()
    data = _load_data(dataclasses.replace(config, data_root=data_root or config.data_root))
    network = build_network(config, data)
    load_weights(network, folder / "checkpoints" / "last.ckpt")
    return Run(config, data, network)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint (.ckpt, .pt, .pth or .safetensors) without executing code.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a readable checkpoint of plain tensors: it holds Python objects, and to load these could "
            "execute code. Save model.state_dict() in their place"
        ) from error
    except Exception as error:  # torch raises a dozen kinds for a damaged archive
        first_line = str(error).partition("\n")[0]
        reason = first_line if " " in first_line else "it is no torch archive"  # a KeyError's text is one word
        raise ValueError(f"{path} is not a readable checkpoint of plain tensors: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def load_weights(network: ImageNetwork, path: str | Path) -> None:
    """Load a run's checkpoint, or a state dictionary of the backbone alone.

    Wrappers such as ``state_dict``, ``model.`` and ``module.`` are seen through.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or belongs to another network.
    """
    content = read_checkpoint(path)
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    prefixes = ("", "network.", "network.backbone.", "module.", "model.", "_orig_mod.", "backbone.", "net.")
    for owner, prefix in itertools.product((network, network.backbone), prefixes):
        wanted = owner.state_dict().keys()
        inner = {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}
        if wanted <= inner.keys():
            break
    else:
        wanted = network.backbone.state_dict().keys()
        missing = sorted(wanted - content.keys())
        raise ValueError(
            f"{path} belongs to another network: it lacks {len(missing)} of {len(wanted)} tensors, among "
            f"them {', '.join(missing[:3])}"
        )
    try:
        owner.load_state_dict({key: inner[key] for key in wanted})
    except RuntimeError as error:
        mismatches = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ValueError(f"{path} belongs to another network: {mismatches[0] if mismatches else error}") from error


def _load_data(config: TrainConfig) -> ImageData:
    names = ("dataset", "data_root", "samples_per_class", "test_samples_per_class", "image_size", "random_labels")
    return load_images(**{name: getattr(config, name) for name in names})


def check_folder(folder: Path, config: TrainConfig) -> None:
    """Refuse to write one run over another.

    Raises:
        FileExistsError: if the folder holds a run and ``resume`` is off.
        ValueError: if it holds a run that differs in more than where and for how long it trains.
    """
    if not (folder / "config.yaml").is_file():
        return
    if not config.resume:
        raise FileExistsError(f"{folder} holds a run already: continue it with --resume, or choose another --output")
    before, now = TrainConfig.load(folder / "config.yaml").to_dict(), config.to_dict()
    changed = [name for name in now if name not in _MAY_CHANGE and now[name] != before[name]]
    if changed:
        listed = ", ".join(f"{name} was {before[name]!r} and is now {now[name]!r}" for name in changed)
        raise ValueError(f"{folder} holds another run: {listed}. Choose another --output")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep two processes from writing one run; the lock goes with the process, however it ends."""
    try:
        with FileLock(folder / ".lock", timeout=10):
            yield
    except Timeout as error:
        raise FileExistsError(f"another process is training in {folder}: let it finish, or stop it") from error


def _forget_unsaved(folder: Path) -> None:
    """A run that has no checkpoint to continue from starts again."""
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        (folder / "metrics.csv").unlink(missing_ok=True)
        shutil.rmtree(folder / "snapshots", ignore_errors=True)


def _trainer(config: TrainConfig, folder: Path, terminal: bool) -> L.Trainer:
    checkpoint = ModelCheckpoint(
        folder / "checkpoints", "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [checkpoint]
    if terminal:
        callbacks.append(RichProgressBar())
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
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
