"""What only a process can show: imports, closed pipes and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "lightning", "plotly", "torchvision", "ray", "sklearn", "datasets", "timm", "scipy", "matplotlib"}

LIGHT = [
    "train --help",
    "measure --help",
    "ufm solve --help",
    "trian",
    "train --dataset mnits",
    "train --model resnet19",
    "train --model torchvision:resnet19",
    "train --model timm:resnet19",
    "train --epochs 0",
    "train --print-config",
    "measure --model mlp --data mnits",
    "savings resnet51",
    "report absent",
    "reproduce figure3 --mnist mnits",
    "reproduce figur3",
]


def test_help_and_typos_load_nothing_heavy() -> None:
    script = (
        "import contextlib, io, sys\n"
        "from neuralcollapse.cli import main\n"
        f"for line in {LIGHT!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "        with contextlib.suppress(SystemExit):\n"
        "            main(line.split())\n"
        f"    print(line, sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{line} []" for line in LIGHT]


@pytest.mark.parametrize("line", ["--help", "train --help", "train --print-config", "completion bash", "trian"])
def test_a_closed_pipe_is_no_traceback(line: str) -> None:
    """The reader has gone before the first word: the worst that head can do."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "neuralcollapse", *line.split()], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    if line == "trian":
        assert done.returncode == 2
    else:
        assert done.returncode == 141
        assert done.stderr == ""


def test_the_reader_of_errors_may_go_too() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-m", "neuralcollapse", "trian"], stdout=writer, stderr=writer)
    finally:
        os.close(writer)
    assert done.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "neuralcollapse", "savings", "resnet50", "--memory"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    assert "memory 1 of 4" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.endswith("neuralcollapse: stopped\n")
    assert "Traceback" not in said


def test_json_to_a_pipe() -> None:
    words = ["ufm", "theorem", "--points", "1", "--json", "/dev/stdout"]
    done = subprocess.run([sys.executable, "-m", "neuralcollapse", *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout[done.stdout.index("{") :])


def test_both_spellings_of_the_command() -> None:
    said = {
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in (
            [str(Path(sys.executable).parent / "neuralcollapse")],
            [sys.executable, "-m", "neuralcollapse"],
            [sys.executable, "-m", "neuralcollapse.cli"],
        )
    }
    assert len(said) == 1
