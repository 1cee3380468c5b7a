"""Figures in one call: what is drawn is what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralcollapse.figures import plot_cosines, plot_layers, plot_measures, plot_simplex, plot_values
from neuralcollapse.figures.look import log_axis
from neuralcollapse.figures.simplex import frame_of, points_of, simplex

HISTORY = {"epoch": [0, 1, 2], "nc1": [3.0, None, 0.01], "nc2": [0.5, 0.4, 0.0], "test_accuracy": [0.1, 0.5, 0.9]}


class Table:
    """What this package needs of a pandas DataFrame."""

    columns = tuple(HISTORY)

    def reset_index(self, drop: bool) -> Table:
        return self

    def to_dict(self, kind: str) -> dict[str, Any]:
        return HISTORY | {"nc1": [3.0, float("nan"), 0.01]}


@pytest.mark.parametrize("history", [HISTORY, Table(), {"run": HISTORY}, {"run": Table()}])
def test_curves_of_whatever_holds_columns(history: Any) -> None:
    figure = plot_measures(history)
    nc1, nc2 = figure.data
    assert (nc1.x, nc1.y) == ((0, 2), (3.0, 0.01))  # no row where nothing was measured
    assert (nc2.x, nc2.y) == ((0, 1, 2), (0.5, 0.4, None))  # a logarithm has no zero
    assert figure.layout.yaxis.title.text == "NC1"
    assert figure.layout.yaxis2.type == "log"


def test_seeds_become_a_band() -> None:
    group = [{"epoch": [0, 1], "nc1": [value, value / 10]} for value in (1.0, 2.0, 6.0)]
    figure = plot_measures({"sgd": group, "adam": [HISTORY]}, ["nc1"])
    high, low, middle = figure.data[:3]
    assert (high.y, low.y, middle.y) == ((6.0, 0.6), (1.0, 0.1), (2.0, 0.2))
    assert low.fill == "tonexty"
    assert [trace.name for trace in figure.data if trace.showlegend] == ["sgd", "adam"]


@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=5))
def test_log_axes_hold_their_values_and_have_few_ticks(values: list[float]) -> None:
    axis = log_axis(values)
    assert axis["range"][0] < np.log10(min(values))
    assert np.log10(max(values)) < axis["range"][1]
    assert 1 <= len(axis["tickvals"]) <= 7
    assert len(set(axis["ticktext"])) == len(axis["ticktext"])


def test_cosines_are_centred_on_the_simplex() -> None:
    rng = np.random.default_rng(0)
    weight, means = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    figure = plot_cosines(torch.from_numpy(weight), torch.from_numpy(means))
    centred = means - means.mean(0)
    for trace, (left, right) in zip(
        figure.data, [(weight, weight), (centred, centred), (weight, centred)], strict=True
    ):
        expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in right] for a in left]
        np.testing.assert_allclose(trace.z, expected, atol=1e-4)
        assert (trace.zmin + trace.zmax) / 2 == pytest.approx(-1 / 3)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e160, 1e300])
def test_cosines_do_not_depend_on_the_scale(scale: float) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 3))
    for name, matrix in (("weight", rows), ("means", rows - rows.mean(0))):
        exact, found = (plot_cosines(**{name: matrix * size}).data[0].z for size in (1, scale))
        np.testing.assert_allclose(found, exact, atol=1e-4)


def test_a_class_without_samples_has_no_cosines() -> None:
    means = np.array([[4.0, 1, 0, 0], [1, 3, 0, 2], [0, 0, 0, 0], [2, 0, 5, 1]])
    figure = plot_cosines(np.eye(4), means)
    kept = [0, 1, 3]
    centred = means[kept] - means[kept].mean(0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    for trace, expected in zip(figure.data, (np.eye(3), units @ units.T, units.T[kept]), strict=True):
        values = np.array(trace.z, dtype=float)
        np.testing.assert_allclose(values[np.ix_(kept, kept)], expected, atol=1e-4)
        assert np.isnan(values[2]).all()
        assert np.isnan(values[:, 2]).all()
        assert (trace.zmin + trace.zmax) / 2 == pytest.approx(-1 / 2)
    with pytest.raises(ValueError, match="two classes need samples"):
        plot_cosines(means=np.array([[1.0, 2.0], [0.0, 0.0]]))


@pytest.mark.parametrize("chosen", [(0, 1), (4, 2, 1), (3, 0, 4, 1)])
def test_points_are_the_projection_nearest_to_the_simplex(chosen: tuple[int, ...]) -> None:
    """Against a basis by QR and a rotation by SVD: distances in the span, and the best alignment."""
    rng = np.random.default_rng(1)
    means, weight, features = rng.standard_normal((5, 7)), rng.standard_normal((5, 7)), rng.standard_normal((9, 7))
    labels = rng.integers(0, 5, 9)
    centre = means.mean(0)
    frame = frame_of(0, weight, means, centre, (features - centre) @ (means - centre).T, labels)
    points = points_of(frame, chosen)
    rows = list(chosen)
    own = means[rows] - means[rows].mean(0)
    basis = np.linalg.qr(own.T)[0][:, : len(rows) - 1]
    ideal = simplex(len(rows))
    u, _, v = np.linalg.svd((own @ basis).T @ ideal, full_matrices=False)
    turned = basis @ u @ v
    size = np.linalg.norm(own, axis=1).mean()
    np.testing.assert_allclose(points.means, own @ turned / size, atol=1e-9)
    kept = np.isin(labels, rows)
    np.testing.assert_allclose(points.samples, (features[kept] - means[rows].mean(0)) @ turned / size, atol=1e-9)
    projected = (weight[rows] - weight[rows].mean(0)) @ turned
    np.testing.assert_allclose(points.weights, projected / np.linalg.norm(projected, axis=1).mean(), atol=1e-9)


def test_coinciding_means_are_drawn_without_noise() -> None:
    means = np.array([[1.0, 0], [1, 0], [-1, 0], [0, 1]])
    points = points_of(frame_of(0, means, means, means.mean(0)), (0, 1, 2))
    np.testing.assert_allclose(points.means[0], points.means[1], atol=1e-9)
    assert np.isfinite(points.weights).all()


def test_layers_and_values() -> None:
    figure = plot_layers({"<b>": {"nc1": 3.0}, "fc": {"nc1": 0.1}})
    assert figure.data[0].x == ("&lt;b&gt;", "fc")
    assert plot_values({"nc1": 0.5, "nc2": None, "nc4": 2.0}).data[0].y == ("NC1", "NC4")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_measures({}), "without columns"),
        (lambda: plot_measures({"epoch": [], "nc1": []}), "no rows yet"),
        (lambda: plot_measures({"epoch": [0], "loss": [1.0]}), "has none of nc1"),
        (lambda: plot_measures(HISTORY, ["nc9"]), "there is no 'nc9'; choose among nc1"),
        (lambda: plot_measures(HISTORY, backend="bokeh"), "choose plotly or matplotlib"),
        (lambda: plot_cosines(), "weight and means are both missing"),
        (lambda: plot_cosines(np.eye(3), np.eye(4)), "both must be"),
        (lambda: plot_cosines(np.full((2, 2), np.nan)), "non-finite"),
        (lambda: plot_layers({"fc": {"nc1": None}}), "none of the 1 layers"),
        (lambda: plot_values({"nc1": None}), "has a positive value"),
        (lambda: plot_simplex(np.eye(4), np.eye(4), classes=[1, 1]), "two to four different ones"),
        (lambda: plot_simplex(np.eye(4), np.eye(4)[:, :3]), r"weight has shape \(4, 3\) and means \(4, 4\)"),
        (lambda: plot_simplex(np.eye(4), np.eye(4), np.eye(4)), "features without labels: give both"),
        (lambda: plot_simplex(np.eye(4), np.eye(4), labels=[0]), "labels without features: give both"),
        (lambda: plot_simplex(np.eye(4), np.eye(4), np.eye(4), [0, 1]), r"labels \(2,\): expected \(N, 4\) and \(N,\)"),
        (lambda: plot_simplex(np.eye(4), np.full((4, 4), np.inf)), "weight has non-finite entries"),
    ],
)
def test_bad_input_is_named(draw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


def test_matplotlib_is_asked_for() -> None:
    pytest.importorskip("matplotlib", reason="figures on matplotlib need it: pip install matplotlib")
    axes = plot_measures(HISTORY, ["nc1"], backend="matplotlib").axes[0]
    assert axes.get_yscale() == "log"
    assert axes.lines[0].get_ydata().tolist() == [3.0, 0.01]
    assert len(plot_cosines(np.eye(3), np.eye(3), backend="matplotlib").axes) >= 3
    assert plot_layers({"a": {"nc1": 1.0}, "b": {"nc1": 0.1}}, backend="matplotlib").axes[0].get_ylabel() == "NC1"


def test_any_class_can_be_shown_without_samples() -> None:
    figure = plot_simplex(np.eye(40), np.eye(40), classes=(30, 31))
    assert {"class 30", "class 31"} <= {trace.name for trace in figure.data}
    assert len(plot_simplex(np.zeros((4, 4)), np.eye(4)).data) == 13  # nothing to see, and no warning


def test_a_simplex_takes_tensors_in_half_precision_as_they_are() -> None:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(4)
    found = plot_simplex(rows, rows, rows, labels).data
    exact = plot_simplex(rows.double().numpy(), rows.double().numpy(), rows.double().numpy(), labels.numpy()).data
    assert [list(part.x) for part in found] == [list(part.x) for part in exact]
