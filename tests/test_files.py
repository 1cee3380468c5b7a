"""Files are whole at every moment: whatever fails, the previous content stays."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from neuralcollapse import files


def test_text_and_bytes_arrive_whole(tmp_path: Path) -> None:
    assert files.write_text(tmp_path / "a", "π\n").read_bytes() == "π\n".encode()
    assert files.write_bytes(tmp_path / "a", b"\x00" * 3).read_bytes() == b"\x00" * 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_a_pipe_is_written_directly() -> None:
    reader, writer = os.pipe()
    files.write_text(f"/dev/fd/{writer}", "through")
    os.close(writer)
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_an_error_in_the_block_keeps_the_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "old")

    def interrupted() -> None:
        with files.replacing(tmp_path / "a") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("target", ["absent/a", "a/b", "folder"])
def test_what_cannot_be_written_says_so(tmp_path: Path, target: str) -> None:
    (tmp_path / "a").write_text("a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(files.WriteError, match=f"could not write .*{target}: "):
        files.write_text(tmp_path / target, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "a" / "b").is_dir()
    assert files.make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("stays")
    with pytest.raises(files.WriteError, match=r"could not make the folder .*file/run: .*; nothing") as found:
        files.make_folder(tmp_path / "file" / "run")
    assert found.value.errno == errno.ENOTDIR
    assert (tmp_path / "file").read_text() == "stays"


FULL = """
import resource, sys
from neuralcollapse import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a disk with room for 1,000 bytes
try:
    getattr(files, sys.argv[1])(sys.argv[2], "x" * 5000)
except files.WriteError as error:
    print(error.errno, error)
"""


@pytest.mark.parametrize("write", ["write_text", "append_line"])
def test_a_full_disk_keeps_the_previous_content(tmp_path: Path, write: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("the last good state\n")
    done = subprocess.run([sys.executable, "-c", FULL, write, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{errno.EFBIG} could not write {path}: ")
    assert "the previous file is unchanged" in done.stdout
    assert path.read_text() == "the last good state\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"]


KILLED = """
import sys
from neuralcollapse import files
for step in range(10**9):
    files.write_text(sys.argv[1], f"{step} " * 20000)
    if step == 3:
        print("running", flush=True)
"""


def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for delay in (0.0, 0.003, 0.011):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        words = path.read_text().split()
        assert len(words) == 20000
        assert len(set(words)) == 1
