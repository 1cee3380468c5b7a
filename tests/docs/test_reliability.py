"""The counted results that the reliability page shows."""

from __future__ import annotations

import json

from tests.conftest import ROOT


def test_no_result_is_lost_and_no_number_is_wrong_in_three_hundred_faults() -> None:
    rows = json.loads((ROOT / "results" / "reliability" / "faults.json").read_text())["rows"]
    assert sum(row["injected"] for row in rows) >= 300
    for row in rows:
        assert row["survived"] == row["injected"], row
        assert row["lost"] == row["wrong"] == row["unclear"] == 0, row


def test_every_surviving_mutant_was_looked_at() -> None:
    record = json.loads((ROOT / "results" / "reliability" / "mutants.json").read_text())
    survivors = sum(count["mutants"] - count["killed"] for count in record["rooms"].values())
    assert len(record["looked_at"]) == survivors
    assert all(record["looked_at"].values())
