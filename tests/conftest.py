"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests run side by side, one process per core: more threads than cores would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    """What a test draws without a generator of its own is drawn alike in each run, whatever ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Bad input reaches the package's own checks, as it does for users: beartype stands aside."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked_shapes: None
) -> Callable[..., Ended]:
    """Run a command in this process, in an empty folder: what takes a process seconds takes milliseconds here."""
    from neuralcollapse.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> Ended:
        code = 0
        try:
            main(words)
        except SystemExit as stopped:
            code = stopped.code
        said = capfd.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real MNIST and CIFAR-10."""
    folder = Path(os.environ.get("NEURALCOLLAPSE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data at {folder}: set NEURALCOLLAPSE_DATA to the folder that holds MNIST/raw")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A real browser; a reason to skip where there is none, unless CI requires it."""
    executable = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if executable is None:
        assert not os.environ.get("NEURALCOLLAPSE_REQUIRE_BROWSER"), "no chromium, though it is required here"
        pytest.skip("no chromium on this machine: install Debian's chromium to test the report in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()
