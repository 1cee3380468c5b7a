"""Every command in a document of this project is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralcollapse.cli.app import build_app, chosen

ROOT = Path(__file__).parents[2]
PAGES = sorted({
    path for pattern in ("*.md", "docs/**/*.md", "results/**/*.md", "examples/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
})  # fmt: skip


def commands(page: Path) -> Iterator[list[str]]:
    for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\||;", line.partition("#")[0]):
                found = re.search(r"\bneuralcollapse (?!\()(.*)", part)
                if found and "pip install" not in part and "git clone" not in part:
                    yield shlex.split(re.sub(r"\[(--[^]]*)\]", r"\1", found[1]))  # [--option]: optional


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page: Path) -> None:
    app = build_app()
    for words in commands(page):
        words = words[: words.index(">")] if ">" in words else words
        words = [
            "/dev/null" if before == "--config" else word for before, word in zip(["", *words], words, strict=False)
        ]
        if words[0].isupper():  # COMMAND stands for any
            continue
        _, row = chosen(app, words)
        assert row is not None or {"--help", "--version"} & set(words), words
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_there_are_commands() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20
