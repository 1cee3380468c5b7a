"""The report in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from neuralcollapse.report import write_report
from neuralcollapse.report.history import read_history, simplex
from neuralcollapse.train import TrainConfig, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [
        train(TrainConfig(epochs=6, seed=seed, output=str(root / name)), progress=False)
        for seed, name in enumerate(["plain", "<b>bold</b>&<img src=x onerror=alert(1)>".replace("/", "")])
    ]


def points(page, trace: int) -> list[float]:
    """Coordinates of a trace of the view in space, as drawn."""
    return page.evaluate(
        "i => { const t = document.getElementById('space').data[i]; return [...t.x, ...t.y, ...t.z]; }", trace
    )


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_opens_offline_and_moves(runs: list[Path], browser, tmp_path: Path, width: int, scheme: str) -> None:
    output = write_report(runs, tmp_path / "report.html")
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    errors, requests, dialogs = [], [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto(output.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    page.wait_for_selector("#space canvas")

    slider = page.locator("#epoch")
    assert slider.input_value() == "6"
    history = read_history(runs[0])
    for place, frame in ((0, history.frames[0]), (6, history.frames[-1])):
        slider.fill(str(place))
        assert page.locator("#shown").inner_text() == f"epoch {frame.epoch}"
        for index in range(4):  # traces: the simplex, then samples, mean and classifier row a class
            samples = frame.sample_points[frame.sample_classes == index]
            np.testing.assert_allclose(points(page, 1 + 3 * index), samples.T.flatten(), atol=1e-3)
            np.testing.assert_allclose(points(page, 2 + 3 * index), frame.mean_points[index], atol=1e-3)
        cosines = page.evaluate("() => document.getElementById('cosines').data[1].z")
        np.testing.assert_allclose(cosines, frame.means, atol=1e-3)
    page.locator("#play").click()
    page.wait_for_function("() => document.getElementById('shown').textContent === 'epoch 3'")
    page.locator("#run").select_option("1")
    assert "<b>bold" in page.locator("h1").inner_text()
    assert page.locator("h1 b, td b, td img, h1 img").count() == 0
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 22, 26)") == (scheme == "dark")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert errors == []
    assert dialogs == []
    assert requests == [output.as_uri()]
    page.close()


def test_points_are_the_projection_onto_the_means(runs: list[Path]) -> None:
    """Distances in space are those of the features, projected onto the span of the chosen means."""
    from safetensors.numpy import load_file

    from neuralcollapse import measure
    from neuralcollapse.train import load_run
    from neuralcollapse.train.datasets import eval_loader

    run = load_run(runs[0])
    report = measure(run.network, eval_loader(run.data.train))
    frame = read_history(runs[0], [1, 3, 5, 7]).frames[-1]
    means = report.statistics.means.numpy()[[1, 3, 5, 7]]
    basis = np.linalg.qr((means - means.mean(0)).T)[0][:, :3]
    flat = (means - means.mean(0)) @ basis
    size = np.linalg.norm(flat, axis=1).mean()
    np.testing.assert_allclose(
        np.linalg.norm(frame.mean_points[:, None] - frame.mean_points, axis=2),
        np.linalg.norm(flat[:, None] - flat, axis=2) / size,
        atol=1e-4,
    )
    labels = report.labels.numpy()
    chosen = report.features.numpy()[labels == 3][:20]
    projected = (chosen - means.mean(0)) @ basis
    np.testing.assert_allclose(
        np.linalg.norm(frame.sample_points[frame.sample_classes == 1][:, None] - frame.mean_points, axis=2),
        np.linalg.norm(projected[:, None] - flat, axis=2) / size,
        atol=1e-3,
    )
    assert "sample_products" in load_file(runs[0] / "snapshots" / "epoch-0006.safetensors")


@pytest.mark.parametrize("corners", [2, 3, 4])
def test_simplex_corners(corners: int) -> None:
    gram = simplex(corners) @ simplex(corners).T
    np.testing.assert_allclose(gram[~np.eye(corners, dtype=bool)], -1 / (corners - 1), atol=1e-12)


def test_bad_input(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no configuration at"):
        write_report([tmp_path], tmp_path / "r.html")
    for classes in ([0], [1, 1], [0, 10]):
        with pytest.raises(ValueError, match="choose two to four different ones in"):
            write_report(runs, tmp_path / "r.html", classes=classes)
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    (copy / "snapshots" / "epoch-0003.safetensors").write_bytes(b"?")
    with pytest.raises(ValueError, match=r"epoch-0003\.safetensors is damaged"):
        write_report([copy], tmp_path / "r.html")
    (copy / "metrics.csv").unlink()
    with pytest.raises(ValueError, match="no measured epoch yet"):
        write_report([copy], tmp_path / "r.html")


@pytest.mark.parametrize("format", ["svg", "png"])
def test_figures(runs: list[Path], browser, tmp_path: Path, format: str) -> None:
    pytest.importorskip("kaleido")
    from neuralcollapse.report import write_figures

    written = write_figures(runs[:1], tmp_path / "figures", format=format)
    assert [path.name for path in written] == [
        f"{name}.{format}" for name in ("collapse", "accuracy", "plain-cosines", "plain-space")
    ]
    for path in written:
        assert path.stat().st_size > 3000
    with pytest.raises(ValueError, match="choose svg or png"):
        write_figures(runs[:1], tmp_path, format="gif")
