"""How help looks: groups of options, each with its name on the left and a sentence on the right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args, get_origin

from cyclopts.help.formatters import PlainFormatter

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_WIDEST_NAME = 30
_WIDEST_PAGE = 110
_PLACES = {"STR": "TEXT", "INT": "N", "FLOAT": "X"}
_TELLS_NOTHING = (None, "None", "False", "True", "[]", "()", "", '""')


class HelpPage(PlainFormatter):
    """Two columns without boxes; a default only where it says something."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a group of options or commands."""
        from rich.text import Text

        if not panel.entries:
            return
        lines = [Text(f"{panel.title}:")]
        names = [_name(entry) for entry in panel.entries]
        left = max((len(name) for name in names if len(name) <= _WIDEST_NAME), default=0) + 4
        width = max(min(console.width, _WIDEST_PAGE) - left, 20)
        for name, entry in zip(names, panel.entries, strict=True):
            said = textwrap.wrap(_sentence(entry), width, break_long_words=False, break_on_hyphens=False) or [""]
            if len(name) + 4 > left:
                said.insert(0, "")
            for place, line in enumerate(said):
                lines.append(Text.assemble("  ", (name if place == 0 else "", "cyan")))
                if line:
                    lines[-1].append(" " * (left - len(lines[-1])) + line)
        console.print(Text("\n").join(lines), soft_wrap=True)
        console.print()

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print what the command does and its examples, line by line as written."""
        text = getattr(description, "primary_renderable", description)
        if text:
            console.print(f"{text}".rstrip(), highlight=False, markup=False, soft_wrap=True)
            console.print()


def _name(entry: HelpEntry) -> str:
    if entry.positional_label:
        return entry.positional_label
    names = ", ".join((*entry.positive_shorts, *entry.positive_names))
    return f"{names} {_PLACES.get(entry.metavar, entry.metavar)}" if entry.metavar and not entry.choices else names


def _choices(kind: Any, choices: Sequence[str]) -> str:
    """What may be given: one of some words, several of them, or a number as well."""
    kinds, listed = get_args(kind), ", ".join(dict.fromkeys(choices))
    if int in kinds:
        return f"a whole number, {' or '.join(dict.fromkeys(choices))}"
    return f"{'one or more' if any(get_origin(part) is list for part in kinds) else 'one'} of {listed}"


def _sentence(entry: HelpEntry) -> str:
    """What an option is; then its choices, its default and whether it must be given."""
    said = f"{getattr(entry.description, 'primary_renderable', entry.description) or ''}"
    facts = []
    if entry.choices:
        facts.append(_choices(entry.type, entry.choices))
    if entry.default not in _TELLS_NOTHING:
        facts.append(f"default: {entry.default}")
    if entry.default == "True" and entry.negative_names:
        facts.append(f"on by default; {entry.negative_names[0]} turns it off")
    if entry.required:
        facts.append("required")
    return " ".join([*said.split(), f"[{'; '.join(facts)}]" if facts else ""])
