"""What the command line says when something is wrong: one sentence, with options as the user typed them."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
)
from cyclopts.exceptions import UnusedCliTokensError

from neuralcollapse.names import did_you_mean

if TYPE_CHECKING:
    from cyclopts import App

_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def show_warning(message: Warning | str, category: type[Warning], *rest: Any, **keywords: Any) -> None:
    """Print a warning as one line, without the file that raised it."""
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"neuralcollapse: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def log_as_typed(command: App) -> Iterator[None]:
    """Around a command: what the library logs is a line on stderr, with options as the user types them."""
    printed, library = logging.StreamHandler(), logging.getLogger("neuralcollapse")
    printed.setFormatter(_Typed(command))
    library.addHandler(printed)
    try:
        yield
    finally:
        library.removeHandler(printed)


class _Typed(logging.Formatter):
    def __init__(self, command: App) -> None:
        super().__init__()
        self._command = command

    def formatMessage(self, record: logging.LogRecord) -> str:
        return as_typed(record.message, self._command)


def one_sentence(error: CycloptsError, command: App) -> str:
    """What the parser refuses, without its own wording of types."""
    error.verbose = False
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _unknown_command(error)
    if isinstance(error, UnknownOptionError):
        name = (error.token.keyword or error.token.value or "").strip("[]")
        known = [name for argument in error.argument_collection for name in argument.names]
        if error.token.source == "cli":
            return f"unknown option {name} {_guess(name, known)}".rstrip()
        fields = [known.removeprefix("--").replace("-", "_") for known in known]
        return f"{error.token.source} has an unknown field {name!r} {_guess(name, fields)}".rstrip()
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected word {error.unused_tokens[0]!r}"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given twice"
    if isinstance(error, CoercionError) and error.token is not None:
        return _wrong_value(error)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _missing(error, command)
    return " ".join(str(error).split()).rstrip(".")


def _unknown_command(error: UnknownCommandError) -> str:
    word = error.unused_tokens[0]  # type: ignore[index]
    known = [*(error.app or ())]
    if word.startswith("-"):
        return f"unknown option {word} {_guess(word, known)}".rstrip()
    names = [name for name in known if not name.startswith("-")]
    return f"unknown command {word!r} " + (_guess(word, names) or f"(choose {', '.join(names)})")


def _guess(name: str, known: list[str]) -> str:
    guess = did_you_mean(name, known)
    return f"({guess})" if guess else ""


def _wrong_value(error: CoercionError) -> str:
    token, wanted = error.token, error.target_type
    assert token is not None
    given = f"{_typed(error)} {token.value}".strip()
    where = "" if token.source in ("", "cli") else f"{token.source}: "
    choices = error.argument.get_choices() if error.argument is not None else None
    if choices:
        guess = did_you_mean(token.value, choices)
        return f"{where}{given}: {guess + ' Choose' if guess else 'choose'} {', '.join(dict.fromkeys(choices))}"
    kinds = [kind for kind in (wanted, *get_args(wanted)) if kind in _KINDS]
    return f"{where}{given}: give {_KINDS[kinds[0]] if kinds else 'another value'}"


def _typed(error: CycloptsError) -> str:
    """The option of an error, as typed."""
    token = getattr(error, "token", None)
    if token is not None and token.keyword:
        return str(token.keyword).strip("[]")
    return error.argument.name.lstrip("-").upper() if error.argument is not None else ""


def _missing(error: MissingArgumentError, command: App) -> str:
    argument = error.argument
    assert argument is not None
    if argument.tokens:
        return f"{argument.tokens[-1].keyword} needs a value"
    if getattr(error, "keyword", None):
        return f"{error.keyword} needs a value"
    name = argument.name if argument.index is None else argument.name.lstrip("-").upper()
    documented = command.assemble_argument_collection(parse_docstring=True)
    field = argument.field_info.name
    said = next((one.parameter.help for one in documented if one.field_info.name == field), "") or ""
    said = " ".join(said.split()).rstrip(".") or "see --help for examples"
    return f"{name} is required: {said[:1].lower()}{said[1:]}"


def failure(error: Exception, command: App) -> str:
    """What went wrong in a command; the type is named only where nobody expected the error."""
    expected = isinstance(error, ValueError | TypeError | OSError | ImportError | ArithmeticError)
    if expected or type(error).__name__ == "MisconfigurationException":  # Lightning's word for a wrong option
        return as_typed(str(error), command)
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes} (NEURALCOLLAPSE_DEBUG=1 shows where)"


def as_typed(message: str, command: App) -> str:
    """The message, with ``feature_dim=5`` as ``--feature-dim=5`` and ``allow_missing=True`` as ``--allow-missing``."""
    if command.default_command is None:
        return message
    for argument in command.assemble_argument_collection():
        field, option = argument.field_info.name, argument.name
        if not option.startswith("--") or argument.index is not None:
            continue
        message = re.sub(rf"(?<![\w.-]){field}=True\b", option, message)
        message = re.sub(rf"(?<![\w.-]){field}=False\b", f"--no-{option[2:]}", message)
        message = re.sub(rf"(?<![\w.-]){field}=(?=\S)", f"{option}=", message)
        message = re.sub(rf"^{field}(?=: )", option, message)
        if "_" in field:  # a word of the library, not of the language
            message = re.sub(rf"(?<![\w./'\"-]){field}(?![\w./'\"-]|=)", option, message)
    return message
