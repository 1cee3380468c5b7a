"""Sessions in the documents (lines that begin with >>>) run, and give what they say."""

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "docs"
PAGES = [page for page in sorted(ROOT.rglob("*.md")) if ">>> " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run_and_give_what_they_say(page: Path) -> None:
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_theory_is_a_session() -> None:
    assert ROOT / "theory.md" in PAGES
