from __future__ import annotations

import numpy as np
import pytest

from neuralcollapse.cli import main
from neuralcollapse.ufm import UFM
from neuralcollapse.ufm.explore import catalogue, explore
from neuralcollapse.ufm.minima import descend, judge, shape_of, symmetry_directions
from tests.ufm.cases import make

PYRAMID, BIPYRAMID = 0.0358507634, 0.0358734204


def five_in_space(w: float = 1e-3) -> UFM:
    return UFM(5, 10, 3, lambda_w=w, lambda_h=w / 10, lambda_b=1e-2)


def test_both_minima_of_five_classes_in_space() -> None:
    found = explore(five_in_space(), starts=12)
    assert [minimum.value for minimum in found.minima] == pytest.approx([PYRAMID, BIPYRAMID], abs=1e-8)
    assert [minimum.shape for minimum in found.minima] == ["5 corners, faces 4x3 + 1x4", "5 corners, faces 6x3"]
    assert sum(minimum.hits for minimum in found.minima) + found.unsettled == found.starts == 12
    for minimum in found.minima:
        assert minimum.strict
        assert minimum.gradient_norm <= 1e-12
        assert minimum.zero_eigenvalues == minimum.symmetries == 3
        assert minimum.least_positive > 7e-5 > 1e6 * minimum.margin
    assert found.lower_bound <= found.best == found.minima[0].value
    assert found.lower_bound == pytest.approx(five_in_space().replace(feature_dim=4).global_optimum().value)
    assert "5 corners, faces 6x3" in str(found)


@pytest.mark.parametrize(("w", "shape"), [(5e-3, "5 corners, faces 6x3"), (1e-4, "5 corners, faces 4x3 + 1x4")])
def test_the_optimum_changes_shape_with_the_decay(w: float, shape: str) -> None:
    assert [minimum.shape for minimum in explore(five_in_space(w), starts=6).minima] == [shape]


def test_no_direction_leads_down_from_a_strict_minimum() -> None:
    model = five_in_space()
    rng = np.random.default_rng(0)
    for minimum in explore(model, starts=6).minima:
        full = model.expand(minimum.point)
        value = model.objective(full)
        assert value == pytest.approx(minimum.value, abs=1e-14)
        for _ in range(200):
            step = model.point(1e-3 * rng.standard_normal(len(full.to_vector())))
            assert model.objective(full + step) > value


@pytest.mark.parametrize(
    ("k", "n", "d", "b"), [(3, 4, 2, 1e-2), (4, 3, 3, 1e-2), (3, 4, 5, 1e-2), (3, [6, 3, 1], 3, 0.1)]
)
def test_only_the_global_minimum_where_the_landscape_is_benign(k: int, n: int | list[int], d: int, b: float) -> None:
    found = explore(make(k, n, d, b=b), starts=5)
    assert len(found.minima) == 1
    assert found.best == pytest.approx(found.lower_bound, rel=1e-7)


def test_symmetries_cost_nothing() -> None:
    for b, count in ((1e-2, 3), (0.0, 4)):
        model = make(5, 3, 3, b=b).by_class
        point = descend(model, model.random_point(1)).point
        tangents = symmetry_directions(model, point)
        assert len(tangents) == count
        hessian = model.dense_hessian(point)
        assert np.abs(hessian @ tangents.T).max() < 1e-9


def test_a_saddle_is_not_strict() -> None:
    model = make(4, 5, 2, b=1e-2).by_class
    saddle = next(point for point in model.saddles() if point.rank == 1)
    assert not judge(model, saddle.point).strict


def test_a_row_of_the_catalogue_says_how_much_was_searched() -> None:
    rows = list(catalogue([4, 5], [2], [1e-3], starts=3))
    assert {(row["num_classes"], row["feature_dim"], row["starts"]) for row in rows} == {(4, 2, 3), (5, 2, 3)}
    assert all(row["strict"] and row["value"] >= row["lower_bound"] for row in rows)


def test_names_of_shapes() -> None:
    eye = np.eye(3)
    assert shape_of(np.concatenate([eye, -eye])) == "6 corners, faces 8x3"
    assert shape_of(np.concatenate([eye, -eye, 0 * eye[:1]])) == "6 corners, 1 inside, faces 8x3"
    assert shape_of(np.zeros((3, 2))) == "one point"
    assert shape_of(np.array([[1.0, 0], [-1, 0], [0, 0]])) == "3 points on a line"
    assert shape_of(eye) == "3 corners"


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused() -> None:
    for starts in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="starts="):
            explore(five_in_space(), starts=starts)
    with pytest.raises(ValueError, match="free features"):
        explore(UFM(4, 3, 2, lambda_w=1e-3, lambda_h=1e-3, nonnegative=True, bias=False))


def test_one_option_of_the_command_leaves_the_others_as_help_shows_them(capsys) -> None:
    main(["ufm", "explore", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for default in ("K. [default: 5]", "9,1,4,2. [default: 10]", "classifier. [default: 0.001]", "0.0001]"):
        assert default in said
    main(["ufm", "explore", "--lambda-w", "5e-3", "--starts", "2"])
    assert "UFM(5, 10, 3, lambda_w=0.005, lambda_h=0.0001, lambda_b=0.01)" in capsys.readouterr().out
