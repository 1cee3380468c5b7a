"""Checkpoints that no kill, full disk or flipped bit can lose: digested, verified on load, the previous one kept."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from neuralcollapse import files
from neuralcollapse.train.checkpoint_record import FOLDER, LAST, PREVIOUS, digest_file
from neuralcollapse.train.module import ImageNetwork
from neuralcollapse.train.weights import Weights, found_in, mappings_in

_KEPT = 8
"""A checkpoint may match any of its last 8 digests. Each kill between digest and file adds one."""

_log = logging.getLogger(__name__)


class CheckpointFiles(CheckpointIO):
    """Lightning's way to the disk: beside the target, synced and renamed, never through the temporary folder.

    Args:
        last_is_good: whether last.ckpt is one to keep as the previous; not after a fall back to previous.ckpt.
    """

    def __init__(self, last_is_good: bool = True) -> None:
        self.last_is_good = last_is_good

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint and its digest; the one that was there becomes previous.ckpt."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_checkpoint(Path(path), content.getvalue(), keep=self.last_is_good)
        self.last_is_good = True

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, verified; no code is executed."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        with files.explained(Path(path), "could not remove"):
            Path(path).unlink(missing_ok=True)


def write_checkpoint(path: Path, content: bytes, *, keep: bool) -> None:
    """Replace a checkpoint; a kill or Ctrl-C at any moment leaves a verified one under its own name.

    The one that was there becomes previous.ckpt.

    Raises:
        WriteError: if it cannot be written.
    """
    files.make_folder(path.parent)
    previous = path.with_name(PREVIOUS)
    with files.replacing(path) as partial:
        partial.write_bytes(content)  # a disk that is full is full before anything moves
        # The digest of what a file is about to be stands beside those of what it may still be.
        held = _digests(path)
        if keep and path.is_file():
            _write_digests(previous, [*held, *_digests(previous)[:_KEPT]])
            _name_too(path, previous)
        _write_digests(path, [hashlib.sha256(content).hexdigest(), *held[: _KEPT - 1]])


def _name_too(path: Path, other: Path) -> None:
    """Let a second name stand for a file in one step; it moves there where the file system has no links."""
    try:
        with files.replacing(other) as partial:
            os.link(path, partial)
    except OSError:
        os.replace(path, other)


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The last checkpoint of a run that is whole, read; None where there never was one.

    Raises:
        ValueError: if there are checkpoints and none is whole.
    """
    damage: list[ValueError] = []
    for name in (LAST, PREVIOUS):
        path = folder / FOLDER / name
        if not path.is_file():
            continue
        try:
            content = read_checkpoint(path)
        except ValueError as error:
            damage.append(error)
            continue
        if damage:
            _log.warning("%s. The run continues from the checkpoint before it, %s", damage[0], path)
        return path, content
    if damage:
        raise damage[0]
    return None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint (.ckpt, .pt, .pth or .safetensors) without executing code.

    Where a digest lies beside it (NAME.sha256), it is verified.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    unreadable = f"{path} is not a readable checkpoint of plain tensors"
    known = _digests(path)
    if known and digest_of(path) not in known:
        raise ValueError(
            f"{unreadable}: it differs from its digest in {digest_file(path).name}, so it was cut, damaged or changed "
            "after it was written"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{unreadable}: it holds Python objects, and to load these could execute code. Save model.state_dict() "
            "in their place"
        ) from error
    except Exception as error:  # torch raises a dozen kinds for a damaged archive
        first_line = str(error).partition("\n")[0]
        reason = first_line if " " in first_line else "it is no torch archive"  # a KeyError's text is one word
        raise ValueError(f"{unreadable}: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(path: Path) -> list[str]:
    """Digests that a checkpoint may have, as sha256sum writes them; none where none was written."""
    try:
        lines = digest_file(path).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines if line.strip()] or ["an empty file"]


def _write_digests(path: Path, digests: list[str]) -> None:
    if digests:
        lines = dict.fromkeys(f"{digest}  {path.name}\n" for digest in digests)
        files.write_text(digest_file(path), "".join(lines))


def has_digest(path: Path) -> bool:
    """Whether a digest lies beside a checkpoint."""
    return bool(_digests(path))


def _places(found: Iterable[Weights]) -> str:
    return ", ".join(repr(weights.key) for weights in found)


def load_weights(network: ImageNetwork, path: str | Path, checkpoint_key: str | None = None) -> None:
    """Load a run's checkpoint, or a state dictionary of the backbone alone: see :func:`put_weights`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or as :func:`put_weights`.
    """
    put_weights(network, read_checkpoint(path), path, checkpoint_key)


def put_weights(
    network: ImageNetwork, content: dict[str, Any], path: str | Path, checkpoint_key: str | None = None
) -> None:
    """Put what :func:`read_checkpoint` gave into a network.

    Wrappers are seen through, however nested: mappings such as ``state_dict``, and prefixes such as ``model.``,
    ``module.`` and ``_orig_mod.`` of trainers, of several devices and of torch.compile.

    Args:
        network: to fill.
        content: of the checkpoint.
        path: of the checkpoint, for errors.
        checkpoint_key: which network of a file that holds several: a key of its mappings or a prefix of its names,
            such as ``model_ema`` or ``state_dict.teacher``; ``.`` for names without a prefix.

    Raises:
        ValueError: if it belongs to another network, has nothing under ``checkpoint_key``, or holds the weights of more
            than one network that fit.
    """
    backbone = network.backbone.state_dict()
    named = found_in(content, backbone.keys())
    if checkpoint_key is not None and named:
        there = [weights for weights in named if weights.under(checkpoint_key)]
        if not there:
            raise ValueError(
                f"checkpoint_key={checkpoint_key!r}: {path} has weights of this network under {_places(named)} and "
                "nowhere else"
            )
        named = there
    fitting = [weights for weights in named if weights.fits(backbone)]
    others = [weights for weights in fitting[1:] if not weights.equals(fitting[0])]
    if others:
        several = (fitting[0], *others)
        raise ValueError(
            f"{path} holds the weights of {len(several)} networks that fit, under {_places(several)}: choose one with "
            "checkpoint_key"
        )
    if not named:
        largest = max(mappings_in(content), key=lambda found: len(found[1].keys() & backbone.keys()))[1]
        missing = sorted(backbone.keys() - largest.keys())
        raise ValueError(
            f"{path} belongs to another network: it lacks {len(missing)} of {len(backbone)} tensors, among "
            f"them {', '.join(missing[:3])}"
        )
    chosen = (fitting or named)[0]
    whole = [weights for weights in found_in(chosen.source, network.state_dict().keys()) if weights.holds(chosen)]
    owner, state = (network, whole[0].state) if whole else (network.backbone, chosen.state)
    try:
        owner.load_state_dict(state)
    except RuntimeError as error:
        mismatches = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ValueError(f"{path} belongs to another network: {mismatches[0] if mismatches else error}") from error
