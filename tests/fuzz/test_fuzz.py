"""Differential fuzzing: some hundreds of random inputs here, ten thousand with ``make fuzz``."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.bad import refusals_of
from tests.fuzz.check import faults_of

CASES = int(os.environ.get("NEURALCOLLAPSE_FUZZ", "300"))


@pytest.mark.usefixtures("unchecked_shapes")
def test_no_wrong_number_and_no_changed_input() -> None:
    faults = [fault for seed in range(CASES) for fault in faults_of(seed)]
    assert not faults, "\n".join(faults[:20]) + f"\n{len(faults)} faults"


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused_by_our_own_checks() -> None:
    faults = [fault for seed in range(CASES) for fault in refusals_of(seed)]
    assert not faults, "\n".join(faults[:20]) + f"\n{len(faults)} faults"
