from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
import torch

from neuralcollapse import CollapseMetrics, measure_features, simplex_etf
from neuralcollapse.geometry.measures import GROUPS, HEADLINE, MEASURES, measure_named
from neuralcollapse.geometry.multilabel import MultilabelMetrics
from neuralcollapse.geometry.regression import RegressionMetrics
from neuralcollapse.measurement.depth import LayerDepth
from neuralcollapse.measurement.language_report import LanguageReport
from tests.cases import CASES

RECORDS = (MultilabelMetrics, RegressionMetrics, LayerDepth)


def test_every_measure_is_registered_and_nothing_else() -> None:
    fields = {field.name for field in dataclasses.fields(CollapseMetrics)}
    of_classes = {name for name, measure in MEASURES.items() if measure.family == "classification"}
    assert fields | {"ncc_mismatch", "accuracy"} == of_classes
    assert set(HEADLINE) <= fields
    reports = {record: {field.name for field in dataclasses.fields(record)} for record in RECORDS}
    assert set().union(*reports.values()) - {"angles", "scales"} <= MEASURES.keys()
    assert set(LanguageReport.headline) | {"gnc1", "gnc2", "gnc3"} <= MEASURES.keys()


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_records_are_complete(measure) -> None:
    assert measure.group in GROUPS
    assert measure.title
    assert measure.source
    assert measure.meaning.endswith(".")
    assert measure.formula.count("{") == measure.formula.count("}")
    low, high = measure.range
    assert measure.direction != "near" or isinstance(measure.ideal, str)
    if not isinstance(measure.ideal, str):
        assert measure.ideal == (low if measure.direction == "lower" else high)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_values_lie_in_the_range_that_is_named(case) -> None:
    found = measure_features(case.features, case.labels, case.weight, case.bias).to_dict()
    for name, value in found.items():
        low, high = MEASURES[name].range
        assert low <= value <= high, name


def test_the_ideal_value_is_that_of_a_simplex_etf() -> None:
    etf = simplex_etf(4, 7, rotation="random", dtype=torch.float64)
    labels = torch.arange(8) % 4
    found = measure_features(etf[labels], labels, 3 * etf, torch.zeros(4, dtype=torch.float64))
    for name, value in found.to_dict().items():
        assert value == pytest.approx(MEASURES[name].ideal, abs=1e-13), name


def test_names_cost_no_torch() -> None:
    code = "import sys, neuralcollapse.geometry.measures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrong_name_lists_the_right_ones() -> None:
    assert math.isinf(measure_named("nc4").range[1])
    with pytest.raises(ValueError, match="measure 'nc5' is unknown: choose one of nc1, "):
        measure_named("nc5")
