"""Models that the command line is given: by name, or as FILE.py:FUNCTION."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn


def file_and_function(model: str) -> tuple[Path, str] | None:
    """The parts of ``FILE.py:FUNCTION``, or None where the model is a name."""
    file, separator, function = model.rpartition(":")
    return (Path(file), function) if separator and file.endswith(".py") else None


def check_file(file: Path) -> None:
    """Accept a file that exists.

    Raises:
        FileNotFoundError: otherwise.
    """
    if not file.is_file():
        raise FileNotFoundError(f"--model: no file {file}")


def user_model(file: Path, function: str) -> nn.Module:
    """The module that the user's function returns.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be imported, or has no such function.
        TypeError: if the function returns something else.
    """
    from torch import nn

    check_file(file)
    with _beside(file):
        build = getattr(_imported(file), function, None)
        if not callable(build):
            raise ValueError(f"--model: {file} has no function {function!r}")
        model = build()
    if not isinstance(model, nn.Module):
        raise TypeError(f"--model: {function}() gave a {type(model).__name__}, not a torch.nn.Module")
    return model


@contextlib.contextmanager
def _beside(file: Path) -> Iterator[None]:
    """The file's folder first on the path, as python itself has it, so that the file may import its neighbours."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have taken it off
            sys.path.remove(folder)


def _imported(file: Path) -> ModuleType:
    """The module of a file; it is known by its name, as dataclasses and pickles ask for it."""
    import importlib.util

    name = file.stem if file.stem not in sys.modules else f"model_of_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        del sys.modules[name]
        raise ValueError(f"--model: {file} failed when imported: {type(error).__name__}: {error}") from error
    return module
