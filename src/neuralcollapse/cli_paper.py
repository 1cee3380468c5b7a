"""``neuralcollapse reproduce``: parses, calls, prints."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from neuralcollapse.cli_ufm import numbers, words

if TYPE_CHECKING:
    from neuralcollapse.paper.judgement import Judgement
    from neuralcollapse.paper.outcome import Outcome
    from neuralcollapse.paper.sweep import Job

_DESCRIPTION = """Repeat the paper's figures and tables: train what is missing, judge each claim, draw a gallery.

  neuralcollapse reproduce all --scale smoke                 two minutes, embedded data: does everything run?
  neuralcollapse reproduce figure5 --scale reduced           real data, 100 images per class: hours on two cores
  neuralcollapse reproduce figure3 --scale narrow            every image and epoch, narrow networks: one or two
                                                             core-hours per run
  neuralcollapse reproduce all --scale full --engine ray     the paper's protocol, on a cluster

Stop it when you like: finished runs are never run again, an unfinished one goes on after its last epoch.
"""


def reproduce_parser() -> ArgumentParser:
    """Options of ``neuralcollapse reproduce``."""
    parser = ArgumentParser(description=_DESCRIPTION)
    parser.add_argument("figures", nargs="+", help="figure3, figure4, figure5, figure6, figure7, savings, or all")
    scales = Literal["smoke", "reduced", "narrow", "full"]
    parser.add_argument("--scale", type=scales, default="reduced", help="how much of the paper's protocol is run")
    parser.add_argument("--output", type=str | None, help="folder of runs and gallery; by default runs/paper-SCALE")
    parser.add_argument("--data_root", type=str, default="data", help="folder of torchvision's data sets")
    parser.add_argument("--mnist", type=str, default="mnist", help="where MNIST comes from, as train --dataset says it")
    parser.add_argument("--cifar10", type=str, default="cifar10", help="where CIFAR-10 comes from, such as hf:FOLDER")
    parser.add_argument("--seeds", type=str, default="", help="of every run, such as 0,1,2; by default the scale's own")
    parser.add_argument("--engine", type=Literal["local", "ray"], default="local", help="processes here, or Ray")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--address", type=str | None, help="of a Ray cluster; by default Ray starts on this machine")
    parser.add_argument("--retries", type=int, default=1, help="further attempts for a run whose process dies")
    parser.add_argument("--list", type=bool, default=False, help="only list the runs, how far they are, and commands")
    parser.add_argument("--draw", type=bool, default=False, help="train nothing: judge and draw what is there")
    parser.add_argument("--static", type=bool, default=False, help="SVG figures instead of scripts: a small page")
    return parser


def run_reproduce(options: Namespace) -> None:
    """Run the sweep, print the verdicts."""
    from neuralcollapse.paper.experiments import FIGURES
    from neuralcollapse.paper.reproduce import plan
    from neuralcollapse.paper.sweep import check_folders

    names = [name for given in options.figures for name in words(given)]
    output = Path(options.output or f"runs/paper-{options.scale}")
    planned = plan(
        list(FIGURES) if "all" in names else list(dict.fromkeys(names)),
        options.scale,
        output=output,
        data_root=options.data_root,
        seeds=numbers(options.seeds, "--seeds", "0,1,2", int) if options.seeds else (),
        sources={"mnist": options.mnist, "cifar10": options.cifar10},
    )
    runs = list({run.experiment.name: run for group in planned.values() for run in group}.values())
    check_folders(runs)
    if options.list:
        for run in runs:
            print(f"# {run.experiment.name}: epoch {run.epoch} of {run.config.epochs}\n{run.command}")
        return
    failed = [] if options.draw else _sweep(runs, options)
    from neuralcollapse.paper.gallery import write_gallery

    # A second look: the runs are further than when they were planned.
    planned = {name: [dataclasses.replace(run) for run in group] for name, group in planned.items()}
    judged = write_gallery(output, options.scale, planned, static=options.static)
    _print_verdicts(judged)
    print(f"\nGallery: {output / 'gallery.html'}")
    if failed:
        listed = "\n".join(f"  {job.name}: {job.error or 'not begun'}" for job in failed)
        raise ChildProcessError(
            f"{len(failed)} of {len(runs)} runs are not finished:\n{listed}\n"
            "What is finished is kept: the same command runs only what is not"
        )


def _sweep(runs: Sequence[Outcome], options: Namespace) -> list[Job]:
    from neuralcollapse.paper.sweep import State, sweep

    with _watching(sys.stderr.isatty()) as watch:
        jobs = sweep(
            runs,
            engine=options.engine,
            workers=options.workers,
            address=options.address,
            retries=options.retries,
            watch=watch,
        )
    return [job for job in jobs if job.state is not State.FINISHED]


@contextlib.contextmanager
def _watching(terminal: bool) -> Iterator[Callable[[Sequence[Job]], None]]:
    """On a terminal a live table of the runs, otherwise a line for each change."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=not terminal)
    if terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            yield lambda jobs: live.update(_table(jobs, console.height - 7), refresh=True)
        return
    known: dict[str, str] = {}

    def print_changes(jobs: Sequence[Job]) -> None:
        for job in jobs:
            said = f"{job.state}{f', attempt {job.attempts}' if job.attempts > 1 else ''}"
            if known.get(job.name, "waiting") != said:
                known[job.name] = said
                done = sum(other.state == "finished" for other in jobs)
                error = f": {job.error}" if job.error else ""
                console.print(f"[{done}/{len(jobs)}] {job.name} {said}{error}", markup=False)

    yield print_changes


_COLOURS = {"running": "cyan", "failed": "red", "waiting": "default", "finished": "green"}
"""In the order in which they matter, where the terminal has not room for all."""


def _table(jobs: Sequence[Job], room: int) -> Any:
    from rich.table import Table

    done = sum(job.state == "finished" for job in jobs)
    table = Table("run", "state", "epoch", "minutes", "attempts", "error", caption=f"{done} of {len(jobs)} finished")
    shown = jobs if len(jobs) <= room else sorted(jobs, key=lambda job: list(_COLOURS).index(job.state))
    for job in shown[: max(room, 1)]:
        config, seconds = job.outcome.config, job.seconds
        if job.state == "running":
            seconds += time.monotonic() - job.started
        table.add_row(
            job.name,
            f"[{_COLOURS[job.state]}]{job.state}",
            f"{config.epochs if job.state == 'finished' else job.outcome.epoch}/{config.epochs}",
            f"{seconds / 60:.1f}" if seconds else "",
            str(job.attempts or ""),
            job.error[:60],
        )
    return table


def _print_verdicts(judged: Mapping[str, list[Judgement]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "the paper's claim", "verdict")
    for name, group in judged.items():
        for one in group:
            table.add_row(name, one.claim.text, one.verdict)
    Console().print(table)
