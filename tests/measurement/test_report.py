"""What a report says, in each of its forms."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from neuralcollapse import NECO, CollapseReport, measure
from neuralcollapse.geometry.measures import MEASURES
from neuralcollapse.measurement.presentation import rich_table

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]


@pytest.fixture(scope="module")
def report() -> CollapseReport:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    return measure(model, [(INPUTS, LABELS)], layers=["0"])


def test_every_measure_of_the_registry_has_a_row_with_its_ideal(report: CollapseReport) -> None:
    found = {name for name, value in report.to_dict().items() if value is not None}
    assert found <= MEASURES.keys()
    lines = str(report).splitlines()
    for name in found:
        measure_ = MEASURES[name]
        (line,) = (line for line in lines if f" {name} " in line)
        assert f"{'↓' if measure_.direction == 'lower' else '↑'} {measure_.ideal:g}" in line
    assert "at collapse" in str(report)


def test_names_in_brackets_are_printed_as_they_are() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(rich_table({"[/blocks.0]": {"nc1": 0.5}}, "runs/[old]/f.npz: 60 samples", {}))
    assert "[/blocks.0]" in captured.get()
    assert "runs/[old]/f.npz: 60 samples" in captured.get()


def test_json_is_valid_where_numbers_are_not(report: CollapseReport) -> None:
    same = torch.ones(60, 8)
    with pytest.warns(UserWarning, match="coincide|directions|undefined|equal"):
        flat = measure(nn.Sequential(nn.Identity(), nn.Linear(8, 3)), [(same, LABELS)])
    assert not math.isfinite(flat.metrics.nc1)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(flat.to_json(), parse_constant=refuse)
    assert found["nc1"] is None
    found = json.loads(report.to_json(), parse_constant=refuse)
    assert found["nc1"] == report.metrics.nc1
    assert found["layers"]["0"]["nc1"] == report.layers["0"].nc1
    assert (found["samples"], found["classes"], found["feature_dim"]) == (60, 3, 6)


def test_frame_and_page_hold_the_same_numbers(report: CollapseReport) -> None:
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert list(frame.columns) == ["2", "0"]
    assert frame.loc["nc1", "0"] == report.layers["0"].nc1
    page = report._repr_html_()
    assert page.endswith("</table>")
    assert f"{report.metrics.nc1:.4g}" in page
    assert all(MEASURES[name].title in page for name in ("nc1", "nc4", "accuracy"))


def test_it_explains_itself_in_words(report: CollapseReport) -> None:
    words = report.explain()
    assert f"NC1: within-class variability is {report.metrics.nc1:.3g}, far from collapse." in words
    assert f"decides {report.accuracy:.2%} of the samples correctly" in words
    assert "NC1 by layer: 0 " in words


@pytest.mark.parametrize(("classes", "dim", "said"), [(9, 5, True), (6, 5, False), (3, 5, False)])
def test_it_says_what_nc2_cannot_reach(classes: int, dim: int, said: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    data = [(torch.randn(5 * classes, dim, generator=generator), torch.arange(classes).repeat(5))]
    words = measure(nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, classes)), data).explain()
    assert ("cannot be below" in words) is said
    if said:
        assert f"cannot be below {math.sqrt(2 - 2 * math.sqrt(5 / 8)):.3g} here: 9 classes" in words


@pytest.mark.parametrize(("classes", "dim", "said"), [(6, 2, True), (3, 2, False)])
def test_so_does_a_report_of_several_labels(classes: int, dim: int, said: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    tags = torch.eye(classes)[torch.arange(4 * classes) % classes]
    tags[::4, 0] = tags[::4, 1] = 1  # some have two labels; one label each has every class
    data = [(torch.randn(len(tags), dim, generator=generator), tags)]
    report = measure(nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, classes)), data, task="multilabel")
    lowest = math.sqrt(2 - 2 * math.sqrt(dim / (classes - 1)))
    assert ("cannot be below" in report.explain()) is said
    for name in ("nc2", "nc3"):
        [line] = [line for line in str(report).splitlines() if f" {name} " in line]
        assert (f"↓ ≥ {lowest:.3g}" in line) is said


def test_statistics_are_those_of_the_features(report: CollapseReport) -> None:
    assert report.statistics.total == 60
    torch.testing.assert_close(report.statistics.means, report.moments.means)
    assert NECO(report.statistics).score(report.features).shape == (60,)


def test_metrics_alone_show_the_same_numbers_as_frame_page_and_words(report: CollapseReport) -> None:
    pytest.importorskip("pandas")
    metrics = report.metrics
    frame = metrics.to_frame()
    assert list(frame.columns) == ["value"]
    assert frame["value"].dropna().to_dict() == {n: v for n, v in metrics.to_dict().items() if v is not None}
    page = metrics._repr_html_()
    assert page.endswith("</table>")  # nothing is said below where there is nothing to say
    assert page.count("<tr>") - page.count("colspan") - 1 == len(frame["value"].dropna())
    assert all(f"<td>{value:.4g}</td>" in page for value in frame["value"].dropna())
    assert metrics.explain().splitlines() == report.explain().splitlines()[1:5]


def test_figures_of_metrics_and_report_draw_what_was_measured(report: CollapseReport) -> None:
    found = report.to_dict()
    for figure in (report.plot(), report.metrics.plot()):
        assert list(figure.data[0].x) == [found[name] for name in ("nc1", "nc2", "nc3", "nc4")]
    assert list(report.plot(["cdnv", "accuracy"]).data[0].x) == [found["cdnv"], found["accuracy"]]
    assert list(report.metrics.plot(["cdnv"]).data[0].x) == [found["cdnv"]]
    depth = report.plot(by_layer="nc1").data[0]
    assert list(depth.x) == [*report.layers, report.classifier]
    assert list(depth.y) == [*(metrics.nc1 for metrics in report.layers.values()), report.metrics.nc1]


def test_figures_are_matplotlib_only_where_asked_for(report: CollapseReport) -> None:
    matplotlib = pytest.importorskip("matplotlib.figure")
    figures = [
        report.plot(backend="matplotlib"),
        report.plot(by_layer="nc1", backend="matplotlib"),
        report.metrics.plot(backend="matplotlib"),
    ]
    assert all(isinstance(figure, matplotlib.Figure) for figure in figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["nc9"]}, "no 'nc9'"),
        ({"by_layer": "nc9"}, "by_layer='nc9'"),
        ({"by_layer": "nc1", "names": ["nc1"]}, "give one of them"),
        ({"backend": "bokeh"}, "backend='bokeh'"),
    ],
)
def test_figures_refuse_what_they_do_not_know(report: CollapseReport, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report.plot(**arguments)


def test_depth_needs_layers(report: CollapseReport) -> None:
    with pytest.raises(ValueError, match=r"layers=\[\.\.\.\]"):
        dataclasses.replace(report, layers={}).plot(by_layer="nc1")
