"""The examples, run as users run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.exhaustive
def test_timm_on_cifar10(data_root: Path) -> None:
    pytest.importorskip("timm")
    options = ["--dataset", f"hf:{data_root}/cifar10", "--samples-per-class", "20", "--epochs", "2"]
    printed = run("finetune_timm.py", *options)
    assert "8,867,442" in printed
    assert re.search(r"test accuracy \d+\.\d+%", printed)


@pytest.mark.exhaustive
def test_text() -> None:
    pytest.importorskip("transformers")
    printed = run("finetune_text.py", "--epochs", "6")
    accuracy = re.search(r"test accuracy (\d+\.\d+)%", printed)
    assert accuracy is not None
    assert float(accuracy[1]) > 60  # the largest class has less than half


@pytest.mark.parametrize(("script", "module"), [("finetune_timm.py", "timm"), ("finetune_text.py", "transformers")])
def test_an_example_without_its_extra_says_what_to_install(script: str, module: str) -> None:
    code = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path({str(EXAMPLES / script)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install '.[hf]'" in done.stderr
    assert "Traceback" not in done.stderr
