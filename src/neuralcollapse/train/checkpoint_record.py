"""What a checkpoint says of its run: how far it came, and with which configuration. Its tensors are not read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from neuralcollapse.measurement.run_folder import CONFIG, read_config
from neuralcollapse.train.config import PLACE_OF_A_RUN, TrainConfig, made_by_train, of_this_version

FOLDER = "checkpoints"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"

RECORD = "neuralcollapse"
"""Key of our own part of a checkpoint: config, history and provenance."""

_MAY_CHANGE = PLACE_OF_A_RUN | {"epochs"}
"""What a resumed run may change without becoming another run."""


def digest_file(path: Path) -> Path:
    """Where the digest of a checkpoint lies."""
    return path.with_name(path.name + ".sha256")


def of_train(folder: Path) -> bool:
    """Whether ``neuralcollapse train`` made a run, and not a callback or a tracker in another loop.

    Its config.yaml tells. Where that was edited, the digest of a checkpoint does: no other loop writes one.

    Raises:
        FileNotFoundError: if the folder holds no config.yaml.
        ValueError: if that is damaged.
    """
    values = read_config(folder)
    if not values:
        raise FileNotFoundError(f"no configuration at {folder / CONFIG}: is its folder a run?")
    return made_by_train(values) or digest_file(folder / FOLDER / LAST).is_file()


def trained_epochs(folder: str | Path) -> int | None:
    """Epochs after which a run would continue: those of its newest whole checkpoint; None where there is none.

    It takes milliseconds: tensors are not read, and no digest is verified.

    >>> trained_epochs("nowhere") is None
    True
    """
    for name in (LAST, PREVIOUS):
        content = read_lazily(Path(folder) / FOLDER / name)
        record = content.get(RECORD)
        done = record.get("epoch") if isinstance(record, Mapping) else content.get("epoch")
        if isinstance(done, int):
            return done if isinstance(record, Mapping) else done + 1  # an older version wrote no record
    return None


def read_lazily(path: Path) -> dict[str, Any]:
    """A checkpoint whose tensors stay on disk; nothing where it is absent, cut or no checkpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises a dozen kinds for a damaged archive
        return {}
    return content if isinstance(content, dict) else {}


def config_of(record: Mapping[str, Any]) -> TrainConfig:
    """The configuration in a checkpoint's record."""
    return TrainConfig(**of_this_version(record["config"])).resolved()


def changes(before: TrainConfig, now: TrainConfig) -> str:
    """What makes another run of a configuration, in words; empty where nothing does."""
    old, new = before.to_dict(), now.to_dict()
    changed = [name for name in new if name not in _MAY_CHANGE and new[name] != old[name]]
    return ", ".join(f"{name} was {old[name]!r} and is now {new[name]!r}" for name in changed)


def config_beside(folder: Path, content: Mapping[str, Any]) -> TrainConfig:
    """A run's config.yaml, which must be that of its checkpoint.

    Args:
        folder: of the run.
        content: of its checkpoint; one of an older version does not say its configuration.

    Raises:
        FileNotFoundError: if there is no config.yaml.
        ValueError: if it is damaged, or was edited so that it describes another run.
    """
    config = TrainConfig.load(folder / CONFIG).resolved()
    record = content.get(RECORD)
    if isinstance(record, Mapping) and (changed := changes(config_of(record), config)):
        raise ValueError(f"{folder / CONFIG} is not the configuration of its checkpoint: {changed}. Restore that file")
    return config
