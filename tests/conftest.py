"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Bad input reaches the package's own checks, as it does for users: beartype stands aside."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real MNIST and CIFAR-10."""
    folder = Path(os.environ.get("NEURALCOLLAPSE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data at {folder}: set NEURALCOLLAPSE_DATA to the folder that holds MNIST/raw")
    return folder
