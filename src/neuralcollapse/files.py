"""Files that are whole at every moment: written beside their target, synced to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path


class WriteError(OSError):
    """A file could not be written; what was there before is still there, whole. ``errno`` says why."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; when the block succeeds, that file replaces ``path`` in one step.

    A reader, a full disk or a kill at any moment meets the previous file or the new one, never a part of either.
    The new file keeps the permissions of the old one. A device or a pipe, such as /dev/stdout, is written directly.

    Raises:
        WriteError: if the file cannot be written.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "numbers.csv"
    >>> with replacing(target) as partial:
    ...     _ = partial.write_text("epoch")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('epoch', 1)
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with explained(Path(path)):
            yield Path(path)
        return
    target = Path(os.path.realpath(path))  # a link stays a link
    partial = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with explained(Path(path)):
            yield partial
            _sync(partial)
            if target.is_file():
                partial.chmod(target.stat().st_mode & 0o7777)
            os.replace(partial, target)
            sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Replace a file in one step; returns its path.

    Raises:
        WriteError: if it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Replace a file by UTF-8 text in one step; returns its path.

    Raises:
        WriteError: if it cannot be written.
    """
    return write_bytes(path, text.encode())


def make_folder(path: str | Path) -> Path:
    """Make a folder and those above it, where they are absent; returns its path.

    Raises:
        WriteError: if it cannot be made.
    """
    with explained(Path(path), "could not make the folder"):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def absent_folders(path: str | Path) -> list[Path]:
    """The folders that :func:`make_folder` would have to make, the innermost first."""
    return [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of these folders that are there and empty, in this order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def dated_name(path: Path) -> Path:
    """A free name beside a file or folder: its own, with the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{path.name}.{stamp}" + (f"-{count}" if count else "") for count in itertools.count())
    return next(free for name in names if not (free := path.with_name(name)).exists())


def set_aside(path: Path) -> Path:
    """Give a file or folder a dated name, which it returns.

    Raises:
        WriteError: if it cannot be moved.
    """
    free = dated_name(path)
    with explained(path, "could not move"):
        path.rename(free)
    return free


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a file, on disk before this returns; after an error the file is as it was.

    Raises:
        WriteError: if it cannot be written.
    """
    path = Path(path)
    with explained(path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            content = memoryview(line.encode())
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def explained(path: Path, failed: str = "could not write") -> Iterator[None]:
    """Turn an error of the system in the block into a sentence that names the path.

    Raises:
        WriteError: in the place of any other OSError.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        kept = "the previous file is unchanged" if path.is_file() else "nothing was written"
        reason = error.strerror or str(error)
        raise WriteError(error.errno, f"{failed} {path}: {reason}; {kept}") from error
