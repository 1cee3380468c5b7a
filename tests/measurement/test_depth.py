"""Every layer: against float64 NumPy over features that no hook has touched."""

from __future__ import annotations

import copy
import html
import json
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import ClassStatistics, measure
from neuralcollapse.figures import plot_layers
from neuralcollapse.geometry.collapse import CollapseWarning
from neuralcollapse.measurement import passes
from neuralcollapse.measurement.blocks import trunk
from neuralcollapse.measurement.depth import effective_depth, total_singular_values
from tests.cases import oracle

LABELS = torch.arange(90) % 3


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(90, 6, generator=generator) + 4 * torch.eye(6)[LABELS], LABELS


def batches(x: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    return list(zip((data()[0] if x is None else x).split(40), LABELS.split(40), strict=True))


def mlp(widths: tuple[int, ...] = (12, 10, 8)) -> nn.Sequential:
    torch.manual_seed(1)
    parts: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((6, *widths), widths, strict=False):
        parts += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout()]
    model = nn.Sequential(*parts, nn.Linear(widths[-1], 3))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(data()[0]), LABELS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def by_hand(model: nn.Sequential) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Outputs of the activations, and the decisions."""
    x, found = data()[0], {}
    with torch.no_grad():
        for name, module in copy.deepcopy(model).eval().named_children():
            x = module(x)
            if isinstance(module, nn.ReLU):
                found[name] = x.double().numpy()
    return found, x.argmax(1).numpy()


def test_all_layers_are_those_of_the_oracle() -> None:
    model = mlp()
    features, decisions = by_hand(model)
    report = measure(model, batches(), layers="all")
    assert list(report.layers) == list(report.depth.layers) == ["3", "7", "11"]
    wrong, nc1 = [], []
    for name, rows in features.items():
        found = report.depth.layers[name]
        expected = oracle(torch.from_numpy(rows), LABELS)["nc1"]
        assert report.layers[name].nc1 == found.nc1 == pytest.approx(expected, rel=1e-4)
        centres = np.stack([rows[LABELS.numpy() == k].mean(0) for k in range(3)])
        nearest = np.linalg.norm(rows[:, None] - centres, axis=2).argmin(1)
        assert found.ncc_mismatch == pytest.approx(float((nearest != decisions).mean()), abs=1e-12)
        singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
        shares = singular[singular > 0] / singular.sum()
        assert found.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
        assert found.stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-5)
        assert found.numerical_rank == (singular > 0.01 * singular[0]).sum()
        wrong.append(found.ncc_mismatch)
        nc1.append(expected)
    slope, start = np.polyfit(range(3), np.log(nc1), 1)
    law = report.depth.law
    assert law.rate == pytest.approx(np.exp(slope), rel=1e-4)
    assert law.start == pytest.approx(np.exp(start), rel=1e-4)
    assert law.correlation == pytest.approx(np.corrcoef(range(3), np.log(nc1))[0, 1], abs=1e-4)
    good = [all(value <= 0.01 for value in wrong[i:]) for i in range(3)]
    assert report.depth.effective_depth == (good.index(True) + 1 if True in good else None)
    assert report.layers["11"].nc1 == pytest.approx(report.metrics.nc1, rel=1e-4)  # these are the classifier's features


def test_the_report_shows_the_depth() -> None:
    report = measure(mlp(), batches(), layers="all")
    text = str(report)
    assert all(name in text for name in ("effective_rank", "stable_rank", "numerical_rank"))
    assert "law of separation" in report.explain()
    assert f"NC1 is multiplied by {report.depth.law.rate:.3g} per layer by the fitted law" in report.explain()
    assert ("From layer" in report.depth.explain()) is (report.depth.effective_depth is not None)
    assert f"From layer {report.depth.effective_depth} of 3" in report.depth.explain()
    assert "effective_rank" not in str(measure(mlp(), batches(), layers=["3"]))
    page = report._repr_html_()
    assert "Stable rank" in page
    assert page.endswith(f"<p>{html.escape(str(report.table().caption))}</p>")
    assert report.table().caption
    found = json.loads(report.to_json())["depth"]
    assert found["law"]["rate"] == pytest.approx(report.depth.law.rate)
    figure = plot_layers(report.depth)
    assert figure.data[1].y[2] == pytest.approx(report.depth.law.start * report.depth.law.rate**2)
    assert plot_layers(report.depth, "stable_rank").data[0].x == ("3", "7", "11")


@pytest.mark.parametrize(
    ("mismatches", "tolerance", "depth"),
    [([0.5, 0.0, 0.0], 0.01, 2), ([0.0, 0.5, 0.0], 0.01, 3), ([0.0], 0.0, 1), ([0.0, 0.02], 0.01, None),
     ([0.0, 0.02], 0.02, 1), ([], 0.1, None)],
)  # fmt: skip
def test_effective_depth(mismatches: list[float], tolerance: float, depth: int | None) -> None:
    assert effective_depth(mismatches, tolerance) == depth


@pytest.mark.parametrize("scale", [1e-160, 1.0, 1e160])
def test_ranks_do_not_depend_on_the_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((60, 5))
    statistics = ClassStatistics(3, 5)
    statistics.update(torch.from_numpy(features * scale), torch.arange(60) % 3)
    expected = np.linalg.svd(features - features.mean(0), compute_uv=False) / np.sqrt(60)
    np.testing.assert_allclose(total_singular_values(statistics) / scale, expected, rtol=1e-6)


def test_effective_depth_refuses_what_is_no_share() -> None:
    with pytest.raises(ValueError, match=r"tolerance=2.0 must be a share"):
        effective_depth([0.0], 2.0)
    with pytest.raises(ValueError, match=r"tolerance=-0.5 must be a share"):
        effective_depth([0.0], -0.5)
    with pytest.raises(ValueError, match=r"mismatches\[1\]=nan"):
        effective_depth([0.0, float("nan")])


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class Network(nn.Module):
    """Registered against the order in which it runs, with a part that never does."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.stages = nn.ModuleList([nn.Sequential(Residual(4), Residual(4)), nn.Sequential(Residual(4))])
        self.auxiliary = nn.Linear(4, 4)
        self.stem = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def test_blocks_are_found_in_the_order_in_which_they_run() -> None:
    x = torch.randn(90, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    model = Network()
    report = measure(model, batches(x), layers="all")
    assert list(report.layers) == ["stem", "stages.0.0", "stages.0.1", "stages.1.0"]
    named = measure(model, batches(x), layers=list(report.layers))
    for name, metrics in named.layers.items():
        assert report.layers[name].nc1 == pytest.approx(metrics.nc1, rel=1e-3)
    assert not any(module._forward_hooks for module in model.modules())


class Odd(nn.Module):
    """Gives maps whose axes nothing tells."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.view(-1, 2, 2, 3).repeat(1, 1, 1, 2)


def test_layers_without_a_known_axis_are_skipped_by_name() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), Odd(), nn.Flatten(), nn.Linear(24, 8), nn.Linear(8, 3))
    with pytest.warns(CollapseWarning, match="leaves out '1'"):
        report = measure(model, batches(), layers="all")
    assert list(report.layers) == ["0", "3"]


def test_an_iterator_is_read_once_and_says_so() -> None:
    with pytest.warns(CollapseWarning, match="read only once"):
        report = measure(mlp(), iter(batches()), layers="all")
    assert report.depth.effective_depth is None
    assert all(layer.ncc_mismatch is None and layer.nc1 > 0 for layer in report.depth.layers.values())


def test_wide_layers_keep_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_SCATTER_BYTES", 8 * 12**2)
    with pytest.warns(CollapseWarning, match="ranks of 7, 11"):
        report = measure(mlp(), batches(), layers="all")
    assert report.layers["7"].nc1 is None
    assert report.layers["7"].cdnv > 0
    assert report.depth.law is None


def test_a_network_of_nothing_but_a_classifier() -> None:
    with pytest.raises(ValueError, match="found nothing to measure"):
        measure(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), batches(), layers="all")


class Body(nn.Module):
    """Two blocks under a name of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, 8)


class Whole(nn.Module):
    """A small stem, a body and a classifier."""

    def __init__(self, width: int, stem: int) -> None:
        super().__init__()
        self.stem = Body(stem)
        self.body = Body(width)
        self.classifier = nn.Linear(8, 3)


@pytest.mark.parametrize(
    ("stem", "width", "names"),
    [
        (2, 30, ["stem", "body.first", "body.second"]),  # what holds more than half of the weights is opened
        (9, 10, ["stem", "body.first", "body.second"]),
        (30, 2, ["stem.first", "stem.second", "body"]),
        (10, 10, ["stem", "body"]),
    ],
)
def test_the_part_that_holds_most_weights_is_opened(stem: int, width: int, names: list[str]) -> None:
    model = Whole(width, stem)
    assert [name for name, _ in trunk(model, model.classifier)] == names


def warnings_of(features: Tensor, labels: Tensor, action: str = "always", **options: object) -> int:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)  # type: ignore[arg-type]
        measure(model, [(features, labels)], layers=["0"], **options)  # type: ignore[arg-type]
    return len([found for found in caught if issubclass(found.category, CollapseWarning)])


def test_what_was_allowed_is_said_once_and_what_is_undefined_is_said_of_each_layer() -> None:
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert warnings_of(features, torch.arange(20) % 2, allow_missing=True) == 1  # the third class has no samples
    same = features[:1].expand(20, 4)
    assert warnings_of(same, torch.arange(20) % 3) == 2  # all samples are one
    assert warnings_of(same, torch.arange(20) % 2, allow_missing=True) == 3  # that of each layer, and the third class
    assert warnings_of(same, torch.arange(20) % 3, action="ignore") == 0
