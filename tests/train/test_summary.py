"""The table at the end of a run says for each value what it was, what it is and what it should be."""

from __future__ import annotations

import math

import pytest
from rich.console import Console

from neuralcollapse.geometry.change import change
from neuralcollapse.train.record import shown_epochs
from neuralcollapse.train.summary import summary_table


def row(epoch: int, nc1: float | None, nc4: float, tested: str = "0.5") -> dict[str, str]:
    value = "" if nc1 is None else str(nc1)
    return {"epoch": str(epoch), "nc1": value, "nc4": "" if nc1 is None else str(nc4), "test_accuracy": tested}


def text(rows: list[dict[str, str]], title: str = "run") -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(summary_table(title, rows))
    return captured.get()


def test_values_of_the_untrained_network_and_of_the_first_tenth() -> None:
    rows = [
        row(0, 8.0, 0.01),
        row(1, 4.0, 1.0),
        row(2, 6.0, 2.0),
        row(3, 9.0, 9.0),
        row(15, None, 0),
        row(20, 0.5, 0.5),
    ]
    lines = {line.split("│")[1].strip(): line for line in text(rows).splitlines() if "│" in line}
    cells = [cell.strip() for cell in lines["NC1"].split("│")[1:-1]]
    assert cells == ["NC1", "8", "6", "0.5", "fell 12-fold", "↓ 0"]
    assert [cell.strip() for cell in lines["NC4"].split("│")[1:-1]][2:5] == ["2", "0.5", "fell 4-fold"]


def test_a_folder_in_brackets_is_named_as_it_is() -> None:
    assert "mlp[old]" in text([row(0, 0.5, 1.0)], "mlp[old]")


def test_a_short_run_is_compared_with_the_untrained_network() -> None:
    shown = text([row(0, 0.027, 1.0), row(3, 1.0, 1.0)])
    assert "rose 37-fold" in shown
    assert "early" not in shown
    with pytest.raises(ValueError, match="no epoch is measured"):
        summary_table("run", [row(0, None, 0)])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (1.0, 0.95, "fell by 5.0%"),
        (0.0, 2.0, "rose to 2"),
        (3.0, 0.0, "fell to 0"),
        (1.0, math.nan, "undefined"),
        (1.0, 3e7, "rose 3·10^7-fold"),
    ],
)
def test_changes_in_words(before: float, after: float, words: str) -> None:
    assert change(before, after) == words


@pytest.mark.parametrize(("start", "epochs", "every"), [(0, 120, 1), (0, 200, 7), (31, 500, 3), (0, 19, 1), (0, 1, 5)])
def test_at_most_twenty_epochs_are_printed(start: int, epochs: int, every: int) -> None:
    shown = shown_epochs(start, epochs, every)
    measured = [epoch for epoch in range(start, epochs + 1) if epoch % every == 0 or epoch == epochs]
    assert set(shown) <= set(measured)
    assert len(set(shown)) == len(shown) == min(20, len(measured))
    assert shown[-1] == epochs


def test_the_ideal_where_no_simplex_has_room_is_a_bound() -> None:
    rows = [row(0, 8.0, 1.0) | {"nc2": "0.9"}, row(20, 0.5, 0.5) | {"nc2": "0.8"}]
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(summary_table("run", rows, lowest=0.5))
    lines = {line.split("│")[1].strip(): line for line in captured.get().splitlines() if "│" in line}
    assert "↓ ≥ 0.5" in lines["NC2"]
    assert "≥" not in lines["NC1"]
