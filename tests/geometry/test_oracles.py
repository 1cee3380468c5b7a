"""Every registered measure has an oracle in float64 NumPy, and every function says what its measure is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import neuralcollapse
from neuralcollapse import (
    Moments,
    cdnv,
    effective_rank,
    gnc1,
    gnc3,
    hyperspherical_uniformity,
    measure_features,
    numerical_rank,
    stable_rank,
    unc3,
)
from neuralcollapse.geometry import ncc_mismatch
from neuralcollapse.geometry.angles import class_mean_angles
from neuralcollapse.geometry.measures import MEASURES
from tests.cases import CASES, Case, oracle

TESTS = Path(__file__).parents[1]

ELSEWHERE = {
    "geometry_weights": "ufm/test_target_measures.py",
    "geometry_means": "ufm/test_target_measures.py",
    "geometry_duality": "ufm/test_target_measures.py",
    "gnc2": "geometry/test_many_classes.py",
    "accuracy": "measurement/test_model.py",
    "ncc_mismatch": "measurement/test_model.py",
    "ncc_agreement": "measurement/test_language.py",
    "tag_angle": "geometry/test_multilabel.py",
    "set_accuracy": "measurement/test_tasks.py",
    "r_squared": "measurement/test_tasks.py",
    "nrc1": "geometry/test_regression.py",
    "nrc2": "geometry/test_regression.py",
    "nrc3": "geometry/test_regression.py",
    "gamma": "geometry/test_regression.py",
    "alignment": "geometry/test_regression.py",
    "attack_angle": "measurement/test_attack.py",
}
"""Where measures that need more than features and a classifier meet their oracle."""


def further(case: Case) -> dict[str, float]:
    """The measures that ``tests.cases.oracle`` leaves out, from their formulas."""
    x, y, w = case.features.double().numpy(), case.labels.numpy(), case.weight.double().numpy()
    k = len(w)
    means = np.stack([x[y == c].mean(0) for c in range(k)])
    centred = means - means.mean(0)
    covariances = [np.cov(x[y == c].T, bias=True).reshape(x.shape[1], -1) for c in range(k)]
    between = centred.T @ centred / k
    values, vectors = np.linalg.eigh(between)
    kept = min(k - 1, x.shape[1])
    inverse = (vectors[:, -kept:] / values[-kept:]) @ vectors[:, -kept:].T
    unit, rows = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (centred, w))
    i, j = np.triu_indices(k, 1)
    kernel = -np.log(np.linalg.norm(unit[i] - unit[j], axis=1))
    traces = np.array([np.trace(covariance) for covariance in covariances])
    apart = np.linalg.norm(means[i] - means[j], axis=1)
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
    shares = singular[singular > 0] / singular.sum()
    directions = means / np.linalg.norm(means, axis=1, keepdims=True)
    return {
        "nc1_balanced": float(np.trace(np.mean(covariances, 0) @ inverse)) / k,
        "uniformity": kernel.mean(), "uniformity_variation": kernel.std() / abs(kernel.mean()),
        "cdnv_squared": float(np.mean((traces[i] + traces[j]) / (2 * apart**4))),
        "gnc3": 1 - (directions * rows).sum(1).mean(), "duality": 1 - (unit * rows).sum(1).mean(),
        "unc3": (w * means).sum(1).var(),
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "stable_rank": (singular**2).sum() / singular[0] ** 2,
        "numerical_rank": int((singular > 0.01 * singular[0]).sum()),
    }  # fmt: skip


def found(case: Case) -> dict[str, float]:
    x, w = case.features.double(), case.weight.double()
    moments = Moments.from_features(case.features, case.labels)
    means, centred = moments.means * moments.scale, moments.centred_means
    spread = hyperspherical_uniformity(centred)
    return {
        "nc1_balanced": measure_features(case.features, case.labels).nc1_balanced,
        "uniformity": spread.energy, "uniformity_variation": spread.variation,
        "cdnv_squared": cdnv(moments, exponent=2), "gnc3": gnc3(w, means), "duality": gnc3(w, centred),
        "unc3": unc3(w, means), "effective_rank": effective_rank(x - x.mean(0)),
        "stable_rank": stable_rank(x - x.mean(0)), "numerical_rank": numerical_rank(x - x.mean(0), 0.01),
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_further_measures_are_those_of_their_formulas(case: Case) -> None:
    if case.features.shape[1] == 1 and len(case.weight) > 2:  # directions on a line coincide
        pytest.skip("some of three directions on a line are equal: their uniformity is infinite")
    values = found(case)
    for name, value in further(case).items():
        assert values[name] == pytest.approx(value, rel=1e-5, abs=1e-9), name


@pytest.mark.parametrize("case", [case for case in CASES if case.features.shape[1] > 1], ids=repr)
def test_gnc1_is_nc1_of_unit_features(case: Case) -> None:
    exact = case.features.double()
    wanted = oracle(exact / exact.norm(dim=1, keepdim=True), case.labels)["nc1"]
    assert gnc1(exact, case.labels) == pytest.approx(wanted, rel=1e-5)


def test_every_measure_has_an_oracle() -> None:
    case = CASES[0]
    known = {*oracle(case.features, case.labels, case.weight, case.bias), *further(case), "gnc1", *ELSEWHERE}
    assert known == MEASURES.keys()
    for name, path in ELSEWHERE.items():
        assert name in (TESTS / path).read_text(encoding="utf-8"), name


FUNCTIONS = [
    *(getattr(neuralcollapse, name) for name in (
        "NCI", "NECO", "cdnv", "effective_depth", "effective_rank", "etf_distance", "gnc1", "gnc2", "gnc3",
        "hyperspherical_uniformity", "multilabel_metrics", "numerical_rank", "one_vs_rest_margin", "regression_metrics",
        "separation_law", "stable_rank", "unc3",
    )),
    class_mean_angles,
    ncc_mismatch,
]  # fmt: skip

PARTS = {
    "source": r"[Ss]ource|\b(19|20)\d\d\b",
    "range": r"\[-?[\d½][^\]\n]*[\])]|[Nn]ot bounded|[Bb]etween|\(0, ∞\)|1 to L",
    "ideal": r"collaps|ideal|[Hh]igh",
    "cost": r"[Cc]ost|O\(",
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_docstrings_say_source_range_ideal_and_cost(function: object, part: str) -> None:
    text = inspect.getdoc(function) or ""
    if function.__name__ in ("regression_metrics", "multilabel_metrics"):  # ranges are those of the record's fields
        text += inspect.getsource(inspect.getmodule(function))
    assert re.search(PARTS[part], text), text
