from __future__ import annotations

import numpy as np
import pytest

from neuralcollapse.ufm import UFM
from neuralcollapse.ufm.conjecture import _findings, search


def test_the_search_meets_minima_and_saddles_and_judges_them_rightly() -> None:
    findings = list(_findings(40, 4, np.random.default_rng(0)))
    kinds = {found.kind for found in findings}
    assert {"global", "strict saddle"} <= kinds
    assert "counterexample" not in kinds
    for found in findings:
        assert found.problem.feature_dim == found.problem.num_classes
        assert found.gradient_norm <= 1e-9
        # Independently of the search: a global minimum is as low as the solver gets, a saddle is not.
        best = found.problem.solve(tol=1e-9)
        assert best.certificate.gap < 1e-7
        assert (found.gap < 1e-6) == (found.kind == "global") or found.kind == "undecided"


def test_a_search_reports_what_it_counted() -> None:
    found = search(20, seed=3)
    assert sum(found.counts.values()) == found.critical <= found.trials == 20
    assert "evidence, not proof" in str(found)
    assert search(20, seed=3) == found
    with pytest.raises(ValueError, match="trials=0 must be at least 1"):
        search(0)


def test_one_dimension_too_few_has_minima_that_are_not_tight() -> None:
    """The search's judgement can fail: in one dimension it would call local minima counterexamples."""
    problem = UFM(4, 3, 1, lambda_w=1e-3, lambda_h=1e-3, lambda_b=1e-2)
    solution = problem.solve()
    assert solution.certificate.gap > 0.1
    assert solution.certificate.gradient_norm < 1e-7
