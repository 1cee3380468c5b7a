"""neuralcollapse ufm, and its pages in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.ufm.cases import make


@pytest.fixture
def ufm(call):
    """Run a task that succeeds; what it prints."""

    def run(*arguments: str) -> str:
        ended = call("ufm", *arguments)
        assert ended.code == 0, ended.err
        return ended.out

    return run


def test_solve_and_certify(ufm, tmp_path: Path) -> None:
    solved = ufm("solve", "--samples-per-class", "9,1,4,2", "--output", "p.npz")
    assert "globally optimal" in solved
    assert re.search(r"newton, (1 iteration|\d+ iterations), .* s, the gap is within --tol=1e-08 of the value", solved)
    assert "newton, 1 iteration, " in ufm("solve")
    assert "reached: raise it" in (few := ufm("solve", "--method", "gradient", "--max-iterations", "2"))
    assert "gradient, 2 iterations, " in few
    assert "--max-iterations reached" in few
    judged = ufm("certify", "p.npz")
    value = make(4, [9, 1, 4, 2], 4, 5e-3, 1e-3, 1e-2).solve().value
    for text in (solved, judged):
        line = next(line for line in text.splitlines() if line.startswith("value"))
        assert float(line.split()[1]) == pytest.approx(value, abs=1e-7)
    # Columns in another order, with their labels, are the same point.
    arrays = dict(np.load(tmp_path / "p.npz"))
    order = np.random.default_rng(0).permutation(len(arrays["labels"]))
    np.savez(tmp_path / "q.npz", **arrays | {"H": arrays["H"][:, order], "labels": arrays["labels"][order]})
    assert ufm("certify", "q.npz") == judged
    assert "closed form" in ufm("solve", "--method", "lbfgs")
    assert "relaxation not tight" in ufm("solve", "--num-classes", "6", "--feature-dim", "2")
    assert "Exceptions: none" in ufm("theorem", "--points", "5", "--json", "c.json")
    assert (tmp_path / "c.json").is_file()


def test_errors(call, tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", W=np.ones((2, 2)))
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    np.savez(tmp_path / "shape.npz", W=np.ones((2, 2)), H=np.ones((2, 3)), b=np.ones(2), labels=np.array([0, 1]))
    whole = {"W": np.ones((2, 2)), "H": np.ones((2, 4)), "b": np.ones(2)}
    np.savez(tmp_path / "part.npz", **whole, labels=np.array([0.2, 0.9, 1.4, 1.9]))
    np.savez(tmp_path / "cube.npz", **whole | {"W": np.ones((2, 2, 1))}, labels=np.array([0, 0, 1, 1]))
    np.savez(tmp_path / "third.npz", **whole, labels=np.array([0, 1, 1, 2]))
    for name, message in [
        ("part.npz", "part.npz: labels have dtype torch.float64: expected integers, one class index per sample"),
        ("third.npz", "third.npz: labels must be 2 classes from 0"),
        ("cube.npz", "cube.npz: W has shape (2, 2, 1), expected (K, d)"),
        ("half.npz", "lacks H, b, labels"),
        ("bad.npz", "not a readable"),
        ("shape.npz", r"H has shape (2, 3), expected (2, 2)"),
    ]:
        ended = call("ufm", "certify", name)
        assert ended.code == 1
        assert message in ended.err, name


def test_a_point_in_half_precision_is_certified_as_its_numbers_are(ufm, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    point = {"W": rng.standard_normal((3, 4)), "H": rng.standard_normal((4, 6)), "b": rng.standard_normal(3)}
    half = {name: torch.from_numpy(array).bfloat16() for name, array in point.items()}
    labels = torch.arange(6) % 3
    save_file(half | {"labels": labels}, tmp_path / "half.safetensors")
    np.savez(tmp_path / "exact.npz", labels=labels, **{name: tensor.double() for name, tensor in half.items()})
    assert ufm("certify", "half.safetensors") == ufm("certify", "exact.npz")


@pytest.mark.exhaustive
@pytest.mark.parametrize("classes", ["3", "4"])
def test_every_optimizer_ends_in_the_simplex_and_the_page_shows_it(ufm, tmp_path: Path, browser, classes: str) -> None:
    done = ufm(
        "dynamics", "--num-classes", classes, "--methods", "gradient,lbfgs,newton", "--output", "d.html"
    )  # fmt: skip
    lines = [line for line in done.splitlines() if " gap " in line]
    assert len(lines) == 3 * {"3": 4, "4": 6}[classes]
    for line in lines:
        words = line.split()
        assert float(words[words.index("gap") + 1]) < 1e-8
        for name in ("NC1", "NC2", "NC3"):
            assert float(words[words.index(name) + 1]) < 1e-7
    errors, requests = [], []
    page = browser.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "d.html").as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    page.locator("#epoch").fill("0")
    before = page.evaluate("() => document.getElementById('space').data[2].y[0]")
    page.locator("#epoch").fill("20")
    assert page.evaluate("() => document.getElementById('space').data[2].y[0]") != before
    if classes == "3":  # three classes lie in a plane
        heights = page.evaluate("() => document.getElementById('space').data.slice(1).flatMap(t => [...t.x])")
        assert max(abs(height) for height in heights) < 1e-6
    assert errors == []
    assert requests == [(tmp_path / "d.html").as_uri()]
    page.close()


def test_the_landscape_page(ufm, tmp_path: Path, browser) -> None:
    done = ufm("landscape", "--saddle", "2+1+1", "--output", "l.html")
    assert "1+1+1+1          rank 3" in done
    errors: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "l.html").as_uri())
    page.wait_for_selector(".js-plotly-plot .contourlayer")
    assert errors == []
    page.close()


def test_the_slice_is_f_and_its_hessian() -> None:
    from neuralcollapse.report.landscape import landscape_slice

    problem = make(3, 4, 3, 5e-3, 1e-3, 1e-2)
    saddle = next(found for found in problem.saddles() if found.shape == (2, 1))
    found = landscape_slice(problem, saddle, points=19)
    at = found.values[np.abs(found.across).argmin()]
    assert at[np.abs(found.along).argmin()] == pytest.approx(saddle.certificate.value, abs=1e-9)
    assert at[np.abs(found.along - 1).argmin()] == pytest.approx(problem.global_optimum().value, abs=1e-9)
    assert (found.spectrum[0] < -1e-9).sum() == saddle.morse_index
    assert (found.spectrum[-1] < -1e-9).sum() == 0
    optimum = next(found for found in problem.saddles() if found.shape == (1, 1, 1))
    with pytest.raises(ValueError, match="not a strict saddle"):
        landscape_slice(problem, optimum)
