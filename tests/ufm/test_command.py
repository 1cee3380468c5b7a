"""neuralcollapse ufm, as a process, and its pages in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.ufm.cases import make

COMMAND = [str(Path(sys.executable).parent / "neuralcollapse"), "ufm"]


def run(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_solve_and_certify(tmp_path: Path) -> None:
    solved = run("solve", "--samples-per-class", "9,1,4,2", "--output", "p.npz", cwd=tmp_path).stdout
    assert "globally optimal" in solved
    judged = run("certify", "p.npz", cwd=tmp_path).stdout
    value = make(4, [9, 1, 4, 2], 4, 5e-3, 1e-3, 1e-2).solve().value
    for text in (solved, judged):
        line = next(line for line in text.splitlines() if line.startswith("value"))
        assert float(line.split()[1]) == pytest.approx(value, abs=1e-7)
    # Columns in another order, with their labels, are the same point.
    arrays = dict(np.load(tmp_path / "p.npz"))
    order = np.random.default_rng(0).permutation(len(arrays["labels"]))
    np.savez(tmp_path / "q.npz", **arrays | {"H": arrays["H"][:, order], "labels": arrays["labels"][order]})
    assert run("certify", "q.npz", cwd=tmp_path).stdout == judged
    assert "closed form" in run("solve", "--method", "lbfgs", cwd=tmp_path).stdout
    assert "relaxation not tight" in run("solve", "--num-classes", "6", "--feature-dim", "2", cwd=tmp_path).stdout
    assert "evidence, not proof" in run("conjecture", "--trials", "5", "--json", "c.json", cwd=tmp_path).stdout
    assert (tmp_path / "c.json").is_file()


def test_errors(tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", W=np.ones((2, 2)))
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    np.savez(tmp_path / "shape.npz", W=np.ones((2, 2)), H=np.ones((2, 3)), b=np.ones(2), labels=np.array([0, 1]))
    for arguments, message in [
        (["solve", "--lambda-w", "0"], "--lambda-w=0.0 must be positive"),
        (["solve", "--samples-per-class", "many"], "give 5, or 9,1,4,2"),
        (["solve", "--method", "magic"], "--method='magic' is unknown"),
        (["solve", "--num-classes", "1"], "--num-classes=1 must be at least 2"),
        (["certify", "absent.npz"], "no file of tensors at absent.npz"),
        (["certify", "half.npz"], "lacks H, b, labels"),
        (["certify", "bad.npz"], "not a readable"),
        (["certify", "shape.npz"], r"H has shape (2, 3), expected (2, 2)"),
        (["landscape", "--saddle", "9+9"], "choose one of 4, 3+1"),
        (["landscape", "--lambda-w", "5", "--lambda-h", "5"], "no strict saddle"),
    ]:
        errors = run(*arguments, cwd=tmp_path, code=1).stderr
        assert message in errors, arguments


@pytest.mark.parametrize("classes", ["3", "4"])
def test_every_optimizer_ends_in_the_simplex_and_the_page_shows_it(tmp_path: Path, browser, classes: str) -> None:
    done = run(
        "dynamics", "--num-classes", classes, "--methods", "gradient,lbfgs,newton", "--output", "d.html", cwd=tmp_path
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if " gap " in line]
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
    before = page.evaluate("() => document.getElementById('space').data[2].x[0]")
    page.locator("#epoch").fill("20")
    assert page.evaluate("() => document.getElementById('space').data[2].x[0]") != before
    if classes == "3":  # three classes lie in a plane
        heights = page.evaluate("() => document.getElementById('space').data.slice(1).flatMap(t => [...t.z])")
        assert max(abs(height) for height in heights) < 1e-6
    assert errors == []
    assert requests == [(tmp_path / "d.html").as_uri()]
    page.close()


def test_the_landscape_page(tmp_path: Path, browser) -> None:
    done = run("landscape", "--saddle", "2+1+1", "--output", "l.html", cwd=tmp_path)
    assert "1+1+1+1          rank 3" in done.stdout
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
