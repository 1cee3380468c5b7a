from __future__ import annotations

import numpy as np
import pytest

from neuralcollapse.report.solids import turning_svg
from neuralcollapse.ufm import UFM
from neuralcollapse.ufm.explore import explore
from neuralcollapse.ufm.minima import polish
from neuralcollapse.ufm.phases import Branch, at, crossing, follow


@pytest.fixture(scope="module")
def branches() -> tuple[UFM, Branch, Branch]:
    problem = UFM(5, 10, 3, lambda_w=1e-3, lambda_h=1e-4, lambda_b=1e-2)
    lambdas = np.geomspace(2e-4, 4e-3, 25)
    first, second = (follow(problem, minimum, lambdas) for minimum in explore(problem, starts=12).minima)
    return problem, first, second


def test_each_branch_ends_where_it_stops_being_a_minimum(branches) -> None:
    problem, pyramid, bipyramid = branches
    assert pyramid.lambdas[0] == pytest.approx(2e-4)
    assert 1.6e-3 < pyramid.lambdas[-1] < 1.8e-3
    assert 3e-4 < bipyramid.lambdas[0] < 4e-4
    assert bipyramid.lambdas[-1] == pytest.approx(4e-3)
    for branch in (pyramid, bipyramid):
        assert all(minimum.strict and minimum.shape == branch.shape for minimum in branch.minima)
        values = [minimum.value for minimum in branch.minima]
        assert values == sorted(values)  # more decay, a larger optimum
    assert at(problem, 2e-3).lambda_h == pytest.approx(2e-4)


def test_the_best_shape_changes_at_the_crossing(branches) -> None:
    problem, pyramid, bipyramid = branches
    tie = crossing(problem, pyramid, bipyramid)
    assert tie == pytest.approx(0.0012547127, rel=1e-6)
    for factor, better in ((0.97, pyramid), (1.03, bipyramid)):
        model = at(problem, factor * tie).by_class
        values = {
            branch.shape: polish(model, branch.minima[len(branch.minima) // 2].point) for branch in (pyramid, bipyramid)
        }
        assert min(values.values(), key=lambda found: found.value).shape == better.shape


def test_branches_that_do_not_cross(branches) -> None:
    problem, pyramid, bipyramid = branches
    below = Branch(pyramid.shape, pyramid.lambdas[5:9], pyramid.minima[5:9])
    assert crossing(problem, below, bipyramid) is None
    with pytest.raises(ValueError, match="no lambda in common"):
        crossing(problem, Branch("", (1.0,), pyramid.minima[:1]), bipyramid)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_picture_needs_solids() -> None:
    with pytest.raises(ValueError, match="solids is empty"):
        turning_svg([])
    with pytest.raises(ValueError, match="expected"):
        turning_svg([("flat", "", np.eye(2))])
