"""No kill, full disk or flipped bit loses a run, and no folder is taken for one that it is not."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from neuralcollapse.measurement.run_folder import read_metrics, write_metrics
from neuralcollapse.train import TrainConfig, load_run, train
from neuralcollapse.train.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from neuralcollapse.train.checkpoint_record import trained_epochs
from neuralcollapse.train.folder import alone_in
from neuralcollapse.train.optimality import certify_run

SMALL = TrainConfig(width=32, samples_per_class=6, test_samples_per_class=3, epochs=3, batch_size=32)


def run(folder: Path, **changes) -> list[dict[str, str]]:
    train(dataclasses.replace(SMALL, output=str(folder), **changes), progress=False)
    return rows(folder)


def rows(folder: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_metrics(folder)]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, epochs=4)
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "three"
    run(folder)
    return folder


@pytest.fixture
def copy(three: Path, tmp_path: Path) -> Path:
    """Three of the four epochs."""
    return shutil.copytree(three, tmp_path / "copy")


def same(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        for name, value in left.items():
            assert bool(value) == bool(right[name]), name
            assert float(right[name] or 0) == pytest.approx(float(value or 0), rel=1e-5, abs=1e-9), name


def test_a_flipped_bit_falls_back_to_the_checkpoint_before(whole: Path, copy: Path, caplog) -> None:
    flip(copy / "checkpoints" / "last.ckpt")
    same(run(copy, epochs=4, resume=True), rows(whole))
    assert "last.ckpt is not a readable checkpoint" in caplog.text
    assert "it differs from its digest" in caplog.text
    assert "continues from the checkpoint before it" in caplog.text
    assert read_checkpoint(copy / "checkpoints" / "previous.ckpt")["neuralcollapse"]["epoch"] == 3


def test_a_cut_checkpoint_falls_back_too(copy: Path) -> None:
    last = copy / "checkpoints" / "last.ckpt"
    for size in (1000, 0):
        last.write_bytes(last.read_bytes()[:size])
        _, content = newest_checkpoint(copy)
        assert content["neuralcollapse"]["epoch"] == 2


def test_after_a_fall_back_the_good_checkpoint_is_not_replaced_by_the_damaged_one(copy: Path) -> None:
    good = (copy / "checkpoints" / "previous.ckpt").read_bytes()
    flip(copy / "checkpoints" / "last.ckpt")
    run(copy, resume=True)  # the third epoch again: one save
    assert (copy / "checkpoints" / "previous.ckpt").read_bytes() == good
    assert newest_checkpoint(copy)[1]["neuralcollapse"]["epoch"] == 3


def test_both_damaged_is_an_error_and_changes_nothing(copy: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        flip(copy / "checkpoints" / name)
    before = contents(copy)
    with pytest.raises(ValueError, match=r"last\.ckpt is not a readable checkpoint"):
        run(copy, epochs=4, resume=True)
    assert contents(copy) == before


def in_a_child(action) -> int:
    """Wait status of a forked process that does this: it can be killed, or meet a full disk, without harm to us."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError:
            os._exit(3)
        except BaseException:
            os._exit(4)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_kill_at_any_step_of_a_write_leaves_a_verified_checkpoint(tmp_path: Path, links: bool) -> None:
    def refused(*arguments) -> None:
        raise PermissionError("this file system has no links")

    def write_until(fatal: int) -> None:
        if not links:
            os.link = refused
        calls = itertools.count(1)

        def fatally(function):
            def step(*arguments, **options):
                if next(calls) == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return step

        for name in ("replace", "fsync", "open", *["link"] * links):
            setattr(os, name, fatally(getattr(os, name)))
        for epoch in (2, 3):
            torch.save({"neuralcollapse": {"epoch": epoch}}, content := io.BytesIO())
            write_checkpoint(last, content.getvalue(), keep=True)

    ends = []
    for fatal in range(1, 100):
        folder = tmp_path / str(fatal)
        last = folder / "checkpoints" / "last.ckpt"
        torch.save({"neuralcollapse": {"epoch": 1}}, content := io.BytesIO())
        write_checkpoint(last, content.getvalue(), keep=True)
        ends.append(in_a_child(lambda: write_until(fatal)))  # noqa: B023
        found = newest_checkpoint(folder)
        assert found is not None, f"lost at step {fatal}"
        if links:
            assert read_checkpoint(last) == found[1], f"not under its own name at step {fatal}"
        if ends[-1] != signal.SIGKILL:
            break
    assert ends[-1] == 0
    assert len(ends) > 15, "some steps of two writes"


@pytest.mark.parametrize("kills", [1, 2, 5])
def test_kills_in_a_row_between_a_digest_and_its_file(tmp_path: Path, kills: int) -> None:
    """Each leaves one more digest of a checkpoint that never came."""
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"

    def content(epoch: int) -> bytes:
        torch.save({"neuralcollapse": {"epoch": epoch}}, written := io.BytesIO())
        return written.getvalue()

    def killed() -> None:
        replace = os.replace

        def fatally(source, target) -> None:
            if Path(target).name == "last.ckpt":
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = fatally
        write_checkpoint(last, content(3), keep=True)

    for epoch in (1, 2):
        write_checkpoint(last, content(epoch), keep=True)
    for _ in range(kills):
        assert in_a_child(killed) == signal.SIGKILL
        assert [read_checkpoint(path)["neuralcollapse"]["epoch"] for path in (last, previous)] == [2, 2]
    for epoch in range(4, 20):
        write_checkpoint(last, content(epoch), keep=True)
    assert [read_checkpoint(path)["neuralcollapse"]["epoch"] for path in (last, previous)] == [19, 18]
    assert len((tmp_path / "previous.ckpt.sha256").read_text().splitlines()) <= 16


def test_a_full_disk_keeps_both_checkpoints(copy: Path) -> None:
    before = contents(copy / "checkpoints")

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a disk with room for 1,000 bytes
        write_checkpoint(copy / "checkpoints" / "last.ckpt", b"x" * 5000, keep=True)

    assert os.waitstatus_to_exitcode(in_a_child(write)) == 3
    assert contents(copy / "checkpoints") == before


def as_an_old_version_wrote(checkpoints: Path) -> None:
    """One checkpoint, without a record and without a digest."""
    content = torch.load(checkpoints / "last.ckpt", weights_only=True)
    del content["neuralcollapse"]
    for path in checkpoints.iterdir():
        path.unlink()
    torch.save(content, checkpoints / "last.ckpt")


def test_an_old_checkpoint_without_record_or_digest_still_resumes(copy: Path, whole: Path) -> None:
    as_an_old_version_wrote(copy / "checkpoints")
    same(run(copy, epochs=4, resume=True), rows(whole))


def test_rows_that_an_old_checkpoint_does_not_hold_are_missed_aloud(copy: Path, caplog) -> None:
    as_an_old_version_wrote(copy / "checkpoints")
    write_metrics(copy, read_metrics(copy)[:2])
    assert [row["epoch"] for row in run(copy, epochs=4, resume=True)] == ["0", "1", "4"]
    assert "metrics.csv lacks 2 of the 4 rows up to" in caplog.text
    assert "the first that of epoch 2" in caplog.text


def test_the_config_in_the_checkpoint_is_compared_when_config_yaml_is_gone_or_edited(copy: Path, whole: Path) -> None:
    config = copy / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("seed: 0", "seed: 1"))
    with pytest.raises(ValueError, match="holds another run: seed was 0 and is now 1"):
        run(copy, epochs=4, seed=1, resume=True)
    config.unlink()
    before = contents(copy)
    with pytest.raises(ValueError, match="holds another run: seed was 0 and is now 1"):
        run(copy, epochs=4, seed=1, resume=True)
    with pytest.raises(FileExistsError, match="holds a run already"):
        run(copy, epochs=4)
    assert contents(copy) == before
    same(run(copy, epochs=4, resume=True), rows(whole))
    assert "seed: 0\n" in config.read_text()


def test_a_strangers_checkpoint_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "checkpoints" / "last.ckpt")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="does not say which run it belongs to"):
        run(tmp_path, resume=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["gone", "cut", "header", "edited"])
def test_lost_rows_come_back_from_the_checkpoint(copy: Path, whole: Path, damage: str, caplog) -> None:
    path = copy / "metrics.csv"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    path.write_text({"gone": "", "cut": text[: len(text) // 2], "header": "<b>" + text,
                     "edited": "".join([*lines[:2], *lines[3:]])}[damage])  # fmt: skip
    if damage == "gone":
        path.unlink()
    same(run(copy, epochs=4, resume=True), rows(whole))
    assert "restored from" in caplog.text


def test_rows_after_the_checkpoint_are_trained_again(copy: Path, whole: Path) -> None:
    kept = contents(copy / "checkpoints")
    run(copy, epochs=4, resume=True)
    for name, content in kept.items():
        (copy / "checkpoints" / name).write_bytes(content)
    same(run(copy, epochs=4, resume=True), rows(whole))


def test_what_may_be_another_programs_is_moved_aside(tmp_path: Path, caplog) -> None:
    (tmp_path / "metrics.csv").write_text("mine,precious\n1,2\n")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "holiday.jpg").write_bytes(b"picture")
    (tmp_path / "notes.txt").write_text("stay")
    (tmp_path / "provenance.json").write_text('{"vintage": 1947}')
    run(tmp_path, epochs=1)
    (table,) = tmp_path.glob("metrics.csv.2*")
    (pictures,) = tmp_path.glob("snapshots.2*")
    assert table.read_text() == "mine,precious\n1,2\n"
    assert (pictures / "holiday.jpg").read_bytes() == b"picture"
    assert (tmp_path / "notes.txt").read_text() == "stay"
    (wine,) = tmp_path.glob("provenance.json.2*")
    assert wine.read_text() == '{"vintage": 1947}'
    assert f"moved to {table}" in caplog.text
    assert len(rows(tmp_path)) == 2


def test_rows_of_a_run_whose_checkpoints_are_gone_are_kept(copy: Path) -> None:
    names = ("metrics.csv", "config.yaml", "provenance.json")
    before = {name: (copy / name).read_text() for name in names}
    shutil.rmtree(copy / "checkpoints")
    run(copy, epochs=1, resume=True)
    assert {name: kept.read_text() for name in names for kept in copy.glob(f"{name}.2*")} == before


def test_rows_of_a_finished_run_of_one_epoch_are_kept(tmp_path: Path) -> None:
    """Its rows are those of a run that was killed in its first save."""
    finished = run(tmp_path, epochs=1)
    shutil.rmtree(tmp_path / "checkpoints")
    text = (tmp_path / "metrics.csv").read_text()
    run(tmp_path, epochs=1, resume=True)
    (table,) = tmp_path.glob("metrics.csv.2*")
    assert (table.read_text(), len(finished)) == (text, 2)


def test_a_run_killed_in_its_first_epoch_begins_anew_and_leaves_no_copies(copy: Path, whole: Path, caplog) -> None:
    shutil.rmtree(copy / "checkpoints")
    write_metrics(copy, read_metrics(copy)[:1])
    for path in (copy / "snapshots").glob("epoch-000[1-9]*"):
        path.unlink()
    same(run(copy, epochs=4, resume=True), rows(whole))
    assert not list(copy.glob("*.2*"))
    assert not caplog.text


def test_a_session_that_trains_nothing_leaves_no_trace(copy: Path) -> None:
    before = contents(copy)
    run(copy, resume=True)
    assert contents(copy) == before


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("epochs", [1, 2])
def test_fewer_epochs_than_are_done_are_refused(copy: Path, epochs: int, record: bool) -> None:
    """Lightning would speak of its Trainer, or say nothing."""
    if not record:
        as_an_old_version_wrote(copy / "checkpoints")
    before = contents(copy)
    with pytest.raises(ValueError, match=rf"^epochs={epochs} is less than the 3 that \S+ has finished: give more"):
        run(copy, epochs=epochs, resume=True)
    assert contents(copy) == before


def test_an_edited_configuration_is_refused_by_all_that_read_the_run(copy: Path) -> None:
    config = copy / "config.yaml"
    text = config.read_text()
    for line, edited in (
        ("weight_decay: 0.005", "weight_decay: 0.01"),
        ("samples_per_class: 6", "samples_per_class: 5"),
    ):
        config.write_text(text.replace(f"\n{line}", f"\n{edited}"))
        name, _, value = line.partition(": ")
        for read in (load_run, certify_run, partial(certify_run, class_means=True)):
            with pytest.raises(ValueError, match=f"is not .* of its checkpoint: {name} was {value} and is now"):
                read(copy)
    config.write_text(text.replace("epochs: 3", "epochs: 4").replace("data_root: data", "data_root: elsewhere"))
    assert load_run(copy).config.epochs == 4


def test_how_far_a_run_came_is_told_by_its_newest_whole_checkpoint(copy: Path, tmp_path: Path) -> None:
    last, previous = (copy / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    assert trained_epochs(copy) == 3
    content = torch.load(last, weights_only=True)
    del content["neuralcollapse"]
    torch.save(content, last)  # as an older version wrote it
    assert trained_epochs(copy) == 3
    shutil.copy(previous, last)  # the disk was full when the last one was written: metrics.csv has its row
    assert (trained_epochs(copy), rows(copy)[-1]["epoch"]) == (2, "3")
    last.write_bytes(last.read_bytes()[:-100])
    assert trained_epochs(copy) == 2
    previous.write_bytes(b"")
    assert trained_epochs(copy) is None
    assert trained_epochs(tmp_path) is None


def test_how_far_a_run_came_is_read_without_its_tensors(copy: Path, monkeypatch) -> None:
    """The digest would take the whole file, and lightning seconds to load."""
    monkeypatch.setattr("neuralcollapse.train.checkpoint.digest_of", lambda path: pytest.fail("the whole file is read"))
    assert trained_epochs(copy) == 3
    code = "import sys, neuralcollapse.train.checkpoint_record; print('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_loser_of_two_starts_changes_nothing(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "run"
    run(folder, epochs=1)
    before = contents(folder)
    monkeypatch.setattr("neuralcollapse.train.folder.PATIENCE", 0.1)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(folder / ".lock"):
            locked.set()
            done.wait()

    winner = threading.Thread(target=hold)
    winner.start()
    locked.wait()
    with pytest.raises(FileExistsError, match="another process is training in"):
        run(folder, epochs=2, resume=True)
    done.set()
    winner.join()
    assert contents(folder) == before


def test_a_tilde_is_the_home_folder_for_every_file_of_a_run(tmp_path: Path, monkeypatch) -> None:
    """The shell leaves it in --output=~/runs/mine, and Lightning alone would expand it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = train(dataclasses.replace(SMALL, output="~/runs/mine", epochs=1), progress=False)
    assert folder == tmp_path / "runs" / "mine"
    assert {"metrics.csv", "config.yaml", "checkpoints"} <= set(os.listdir(folder))
    assert not list((tmp_path / "here").iterdir())


def test_a_start_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown dataset"):
        run(tmp_path / "runs" / "new", dataset="letters")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="unknown dataset"):
        run(tmp_path / "mine", dataset="letters")
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize("output", ["", "  "])
def test_no_output_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match=r"output=.* names no folder"):
        TrainConfig(output=output).resolved()


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write in the run folder .*file/run: .*Give another output folder"):
        run(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_writer_never_uses_the_temporary_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    write_checkpoint(tmp_path / "last.ckpt", b"content", keep=False)
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "last.ckpt.sha256"]


def test_the_lock_goes_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with alone_in(tmp_path / "run"):
            (tmp_path / "run" / "config.yaml").write_text("")
    assert (tmp_path / "run" / "config.yaml").is_file()
