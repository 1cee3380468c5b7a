"""The command line: parses, calls, prints. One module per command; the table is in :mod:`.commands`."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``neuralcollapse``.

    Args:
        arguments: the words after ``neuralcollapse``; by default those of this process.

    Raises:
        SystemExit: with 1 after an error, 2 after bad usage, 130 after Ctrl-C, 141 after a closed pipe.
    """
    from neuralcollapse.cli.errors import show_warning

    # Before torch is loaded: threads that spin while they wait make a small network ten times slower as soon
    # as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
        except BrokenPipeError:
            code = _nobody_reads_on()
        except SystemExit as stopped:  # rich ends the program so where a pipe is closed
            if not isinstance(stopped.__context__, BrokenPipeError):
                raise
            code = _nobody_reads_on()
        except KeyboardInterrupt:
            code = _fail("stopped", 130)
    if code:
        sys.exit(code)


def _run(words: list[str]) -> int:
    """Parse and do; the exit code."""
    from cyclopts import CycloptsError

    from neuralcollapse.cli.app import at_home, build_app, chosen, joined
    from neuralcollapse.cli.errors import failure, log_as_typed, one_sentence
    from neuralcollapse.cli.options import UsageError, without_empty_folders

    app, words = build_app(), at_home(words)
    leaf = app
    try:
        leaf, row = chosen(app, words)
        function, bound, _ = app.parse_args(joined(words, leaf), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(f"error: {one_sentence(error, leaf)}", 2)
    if row is None and not {"-h", "--help", "--version"} & set(words):
        app.help_print(words)
        return _fail("error: give a command", 2)
    try:
        with without_empty_folders(), log_as_typed(leaf):
            function(*bound.args, **bound.kwargs)
    except KeyboardInterrupt:
        return _fail("stopped" + (f". {row.if_stopped}" if row and row.if_stopped else ""), 130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("NEURALCOLLAPSE_DEBUG"):
            raise
        return _fail(f"error: {failure(error, leaf)}", 2 if isinstance(error, UsageError) else 1)
    return 0


def _nobody_reads_on() -> int:
    """What is still buffered must not be written when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        os.dup2(nowhere, stream.fileno())
    return 141


def _fail(message: str, code: int) -> int:
    print(f"neuralcollapse: {message}", file=sys.stderr)
    return code
