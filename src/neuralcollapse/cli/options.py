"""What the options of several commands share."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from neuralcollapse.files import absent_folders, remove_empty, write_text
from neuralcollapse.valid_json import dumps

Number = TypeVar("Number", int, float)


class UsageError(ValueError):
    """A word of the command line cannot be read, or one is left out: exit code 2, as where the parser says so."""


_made: ContextVar[list[Path] | None] = ContextVar("made", default=None)
"""Folders that the running command had :func:`writable` make, the innermost first; None outside of a command."""


@contextlib.contextmanager
def without_empty_folders() -> Iterator[None]:
    """Around a command: what it made for its results and left empty, because it failed, is removed again."""
    made: list[Path] = []
    before = _made.set(made)
    try:
        yield
    finally:
        _made.reset(before)
        remove_empty(made)


def words(text: str) -> list[str]:
    """The words of an option that takes several, between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, option: str, example: str, kind: type[Number]) -> list[Number]:
    """The numbers of an option that takes several, between commas.

    Raises:
        UsageError: if one is not a number of this kind, or there is none.
    """
    wanted = "whole numbers" if kind is int else "numbers"
    try:
        found = [kind(word) for word in words(text)]
    except ValueError as error:
        raise UsageError(f"{option} {text}: give {wanted} such as {example}") from error
    if not found:
        raise UsageError(f"{option} is required: give {wanted} such as {example}")
    return found


def writable(path: str | Path | None, option: str, *, folder: bool = False) -> Path | None:
    """The path, once it is sure that a file (or a folder) can be written there; missing parents are made.

    Called before the work, so that hours of it are not lost because the result cannot be written.

    Raises:
        OSError: naming the option, the path and the reason.
    """
    if path is None:
        return None
    place = Path(path)
    if place.exists() and not place.is_file() and not place.is_dir():  # /dev/stdout, a pipe
        return place
    parent = place if folder else place.parent
    try:
        if not folder and place.is_dir():
            raise IsADirectoryError("it is a folder, give a file")
        if folder and place.is_file():
            raise NotADirectoryError("it is a file, give a folder")
        if place.is_file() and not folder:
            place.open("ab").close()
        if (made := _made.get()) is not None:
            made[:0] = absent_folders(parent)
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise OSError(f"{option} {path} cannot be written: {error.strerror or error}") from error
    return place


def write_json(path: Path | None, numbers: Any) -> None:
    """Write numbers as JSON that every reader accepts; nothing where no path is given."""
    if path is not None:
        write_text(path, dumps(numbers) + "\n")
