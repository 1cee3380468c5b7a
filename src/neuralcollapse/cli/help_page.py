"""How help looks: groups of options, each with its name on the left and a sentence on the right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cyclopts.help.formatters import PlainFormatter

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_WIDEST_NAME = 30
_PLACES = {"STR": "TEXT", "INT": "N", "FLOAT": "X"}
_TELLS_NOTHING = (None, "None", "False", "True", "[]", "()", "", '""')


class HelpPage(PlainFormatter):
    """Two columns without boxes; a default only where it says something."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a group of options or commands."""
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        if not panel.entries:
            return
        console.print(f"{panel.title}:", highlight=False, markup=False)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        names = [_name(entry) for entry in panel.entries]
        for name, entry in zip(names, panel.entries, strict=True):
            said = Text(
                " ".join(f"{getattr(entry.description, 'primary_renderable', entry.description) or ''}".split())
            )
            said.append(_facts(entry), "dim")
            if len(name) > _WIDEST_NAME:
                table.add_row(Text(name, overflow="fold"), "")
                name = ""
            table.add_row(Text(name, "cyan"), said)
        console.print(Padding(table, (0, 0, 1, 2)))

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


def _facts(entry: HelpEntry) -> str:
    """Choices, default and whether it must be given."""
    facts = []
    if entry.choices:
        facts.append("one of " + ", ".join(dict.fromkeys(entry.choices)))
    if entry.default not in _TELLS_NOTHING:
        facts.append(f"default: {entry.default}")
    if entry.required:
        facts.append("required")
    return f" [{'; '.join(facts)}]" if facts else ""
