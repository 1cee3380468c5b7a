"""The parser, built from the table of commands."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence

from cyclopts import App, Group, Parameter

from neuralcollapse import __version__
from neuralcollapse.cli.commands import COMMANDS, GROUPS, Command
from neuralcollapse.cli.config_file import read_config
from neuralcollapse.cli.help_page import HelpPage
from neuralcollapse.train.config import whole_numbers

DESCRIPTION = """Measure, induce, predict and explain neural collapse in deep networks.

For example:
  neuralcollapse train                        train on handwritten digits until the network collapses
  neuralcollapse report runs/RUN              draw one page that shows it
  neuralcollapse measure --run runs/RUN       measure its last checkpoint
  neuralcollapse measure --features F.npz     measure features you have stored
  neuralcollapse savings resnet50             see what a fixed head and smaller features save
  neuralcollapse ufm solve                    find the theory's global minimum, certified
  neuralcollapse reproduce all --scale smoke  repeat every figure of the paper in miniature
  neuralcollapse COMMAND --help               read everything about a command"""

EXIT_CODES = """Exit codes:
  0    success
  1    the command failed, or refused a value or a choice of options: the last line says why
  2    the command line cannot be read (an unknown word, a word in place of a number, a required value that is missing)
  130  stopped by Ctrl-C
  141  the reader of a pipe closed it, as in neuralcollapse ... | head"""


def build_app() -> App:
    """The parser of the whole command line. No command's module is imported yet."""
    app = App(
        name="neuralcollapse",
        help=DESCRIPTION,
        version=__version__,
        help_format="plaintext",
        help_formatter=HelpPage(),
        help_epilogue=EXIT_CODES,
        group_parameters=Group("Options", sort_key=8),
        config=(read_config, whole_numbers),
        default_parameter=Parameter(negative_iterable=(), json_list=False, json_dict=False),
    )
    parents = {"": app}
    for place, command in enumerate(COMMANDS):
        group, _, name = command.name.rpartition(" ")
        if group not in parents:
            parents[group] = App(name=group, help=GROUPS[group], sort_key=place, help_epilogue="")
            app.command(parents[group])
        home = f"neuralcollapse.cli.{command.home}"
        parents[group].command(home, name=name, help=command.summary, sort_key=place)
    return app


def chosen(app: App, tokens: Sequence[str]) -> tuple[App, Command | None]:
    """The parser of the command that these words name, its whole docstring as help; and its row of the table."""
    path, _, _ = app.parse_commands(tokens)
    names = [name for name in path if not name.startswith("-")]
    leaf = app
    for name in names:
        leaf = leaf[name]
    row = next((command for command in COMMANDS if command.name == " ".join(names)), None)
    if row is not None and leaf.default_command is not None:
        leaf.help = (inspect.getdoc(leaf.default_command) or "").partition("\nArgs:")[0]
        flags = [argument for argument in leaf.assemble_argument_collection() if argument.hint is bool]
        opposed = any(flag.negatives and not flag.field_info.default for flag in flags)
        leaf.help_epilogue = "Each flag --x has an opposite, --no-x." if opposed else ""
    return leaf, row


_TILDE = re.compile(r"(--[\w-]+=)?(~(?:/.*)?)", re.DOTALL)


def at_home(words: Sequence[str]) -> list[str]:
    """The home folder in place of a tilde, which shells leave in ``--output=~/x`` and put in ``--output ~/x``."""
    found = [_TILDE.fullmatch(word) for word in words]
    return [
        word if tilde is None else (tilde[1] or "") + os.path.expanduser(tilde[2])
        for word, tilde in zip(words, found, strict=True)
    ]


def joined(words: Sequence[str], command: App) -> list[str]:
    """``--resume true`` as ``--resume=true``: a flag may be given its value in the next word too."""
    flags: set[str] = set()
    if command.default_command is not None:
        for argument in command.assemble_argument_collection():
            if argument.hint is bool:
                flags.update(argument.names)
    found: list[str] = []
    for word in words:
        flag = found[-1].replace("_", "-") if found else ""
        if flag in flags and not flag.startswith("--no-") and word.lower() in ("true", "false"):
            found[-1] = f"{found[-1]}={word.lower()}"
        else:
            found.append(word)
    return found
