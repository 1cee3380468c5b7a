"""``neuralcollapse reproduce``."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from neuralcollapse.cli.options import numbers, words, writable
from neuralcollapse.extras import check_pictures
from neuralcollapse.names import check_dataset
from neuralcollapse.train.config import PATH

if TYPE_CHECKING:
    from neuralcollapse.paper.cost import Cost
    from neuralcollapse.paper.judgement import Judgement
    from neuralcollapse.paper.outcome import Outcome
    from neuralcollapse.paper.sweep import Job

_DATA = Parameter(group=Group("Data", sort_key=1))
_RUNS = Parameter(group=Group("Runs", sort_key=2))
_PAGE = Parameter(group=Group("Result", sort_key=3))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How to run and draw."""

    scale: Annotated[Literal["smoke", "reduced", "narrow", "full"], _RUNS] = "reduced"
    """How much of the paper's protocol is run: smoke takes embedded data, reduced takes 100 images per class of MNIST
    and CIFAR-10, narrow takes every image with narrow networks (but L-BFGS 120 epochs on MNIST and 200 images per class
    of CIFAR-10, and ResNet50 500 images per class), full takes the paper's protocol."""
    output: Annotated[Path | None, _PAGE] = None
    """Folder of runs and gallery. By default runs/paper-SCALE."""
    data_root: Annotated[str, _DATA, PATH] = "data"
    """Folder of torchvision's data sets."""
    mnist: Annotated[str, _DATA] = "mnist"
    """Where MNIST comes from: mnist, or another source such as hf:FOLDER."""
    cifar10: Annotated[str, _DATA] = "cifar10"
    """Where CIFAR-10 comes from: cifar10, or another source such as hf:FOLDER."""
    seeds: Annotated[str, _RUNS] = ""
    """Seeds of every run, such as 0,1,2. By default the scale's own."""
    precision: Annotated[Literal["32-true", "bf16-mixed", "16-mixed"] | None, _RUNS] = None
    """Arithmetic of the training steps of every run. By default the scale's own. L-BFGS takes 32-true in place of
    16-mixed, because it cannot scale its loss."""
    capture: Annotated[bool, _RUNS] = False
    """Replay the steps of every run as one graph, as train --capture does: faster on a GPU."""
    engine: Annotated[Literal["local", "ray"], _RUNS] = "local"
    """Run in processes of this machine, or on Ray."""
    workers: Annotated[int, _RUNS] = 1
    """Number of runs at a time, each with its share of the cores. Small runs share one accelerator."""
    address: Annotated[str | None, _RUNS] = None
    """Address of a Ray cluster. By default Ray starts on this machine."""
    retries: Annotated[int, _RUNS] = 1
    """Further attempts for a run that dies or fails. One that diverged, or has wrong input, is not tried again."""
    list: Annotated[bool, _RUNS] = False
    """Train nothing: list the progress, the expected time and the command of each run. To time a few batches, it
    downloads data sets that are missing."""
    draw: Annotated[bool, _RUNS] = False
    """Train nothing: judge and draw what is there."""
    static: Annotated[bool, _PAGE] = False
    """Draw SVG figures instead of interactive ones, for a small page. It needs the extra 'figures' and Chrome or
    Chromium."""


def reproduce(
    figures: Annotated[list[str], Parameter(negative=())],
    /,
    *,
    choices: Annotated[Choices, Parameter(name="*")] = Choices(),
) -> None:
    """Repeat the paper's figures and tables: train what is missing, judge each claim, draw a gallery.

    Before the runs it says how long they take on this machine, and during the runs how long is left. Interrupt it any
    time; run the same command again to continue. Finished runs are never run again. Figures that the folder's gallery
    shows already stay in it, with their own seeds and precision; it must be a gallery of the same scale.

    For example:
      neuralcollapse reproduce all --scale smoke                # every figure in miniature: about three minutes
      neuralcollapse reproduce figure5 --scale reduced --list   # what would run, how far it is, each command
      neuralcollapse reproduce figure5 --scale reduced          # real data, 100 images per class: under an hour
      neuralcollapse reproduce figure3 --scale narrow           # every image: about 1 to 3 core-hours per run
      neuralcollapse reproduce all --scale full --engine ray    # the paper's protocol: pip install '.[ray]'
      neuralcollapse reproduce figure3 --scale full --capture --workers 8   # eight runs side by side on one GPU

    Args:
        figures: What to repeat: figure3, figure4, figure5, figure6, figure7, savings, or all.
    """
    from neuralcollapse.paper.experiments import FIGURES, check_figures

    check_dataset(choices.mnist)
    check_dataset(choices.cifar10)
    names = [name for given in figures for name in words(given)]
    wanted = [*FIGURES] if "all" in names else [*dict.fromkeys(names)]
    check_figures(wanted)
    output = choices.output or Path(f"runs/paper-{choices.scale}")
    if not choices.list:
        if choices.static:
            check_pictures("static figures (--static)")
        writable(output, "--output", folder=True)
    from neuralcollapse.paper.earlier import PAGE, check_scale
    from neuralcollapse.paper.outcome import as_trained
    from neuralcollapse.paper.reproduce import plan, plan_again
    from neuralcollapse.paper.sweep import check_counts, check_folders

    check_counts(choices.workers, choices.retries)
    check_scale(output, choices.scale)
    sources = {"mnist": choices.mnist, "cifar10": choices.cifar10}
    planned = plan(
        wanted,
        choices.scale,
        output=output,
        data_root=choices.data_root,
        seeds=numbers(choices.seeds, "--seeds", "0,1,2", int) if choices.seeds else (),
        precision=choices.precision,
        capture=choices.capture,
        sources=sources,
    )
    if choices.draw:
        planned = {name: [as_trained(run) for run in group] for name, group in planned.items()}
    runs = _runs(planned)
    if choices.list:
        check_folders(runs)
        _list(runs, choices)
        return
    planned |= plan_again(planned, choices.scale, output=output, data_root=choices.data_root, sources=sources)
    planned = {name: planned[name] for name in FIGURES if name in planned}  # the page keeps the paper's order
    check_folders(_runs(planned))
    failed = [] if choices.draw else _sweep(runs, choices)
    from neuralcollapse.paper.gallery import write_gallery

    # A second look: the runs are further than when they were planned.
    planned = {name: [dataclasses.replace(run) for run in group] for name, group in planned.items()}
    judged = write_gallery(output, choices.scale, planned, static=choices.static)
    _print_verdicts(judged)
    print(f"\nGallery: {output / PAGE}")
    if failed:
        listed = "\n".join(f"  {job.name}: {job.error or 'not begun'}" for job in failed)
        raise ChildProcessError(
            f"{len(failed)} of {len(runs)} runs are not finished:\n{listed}\n"
            "Finished runs are kept: the same command continues with the others"
        )


def _runs(planned: Mapping[str, Sequence[Outcome]]) -> list[Outcome]:
    """Each once; figures share runs."""
    return [*{run.experiment.name: run for group in planned.values() for run in group}.values()]


def _list(runs: Sequence[Outcome], choices: Choices) -> None:
    from neuralcollapse.train.command import DATA

    costs = _estimate(runs, choices)
    print(f"# {_say_cost(runs, costs, choices)}.")
    for reason, count in Counter(cost.reason for cost in costs.values() if cost.reason).items():
        print(f"# unknown for {count} run{'s' * (count > 1)}: {_typed(reason)}")
    for said in _emulated(runs):
        print(f"# {said}")
    if any(DATA in run.command for run in runs):
        print(f"# {DATA} stands for the folder that holds your data sets")
    for run in runs:
        cost = "" if run.finished else f", {costs[run.experiment.name]}"
        print(f"# {run.experiment.name}: epoch {run.done} of {run.epochs}{cost}\n{run.command}")


def _sweep(runs: Sequence[Outcome], choices: Choices) -> list[Job]:
    from neuralcollapse.cli.sweep_view import watching
    from neuralcollapse.paper.cost import Forecast
    from neuralcollapse.paper.sweep import State, sweep

    costs = _estimate(runs, choices)
    said = _say_cost(runs, costs, choices)
    if not all(run.finished for run in runs):
        said += ". Interrupt it any time: the same command continues"
    print("\n".join((said, *_emulated(runs))), file=sys.stderr)
    with watching(sys.stderr.isatty(), Forecast(runs, costs, choices.workers)) as watch:
        jobs = sweep(
            runs,
            engine=choices.engine,
            workers=choices.workers,
            address=choices.address,
            retries=choices.retries,
            watch=watch,
        )
    return [job for job in jobs if job.state is not State.FINISHED]


def _estimate(runs: Sequence[Outcome], choices: Choices) -> dict[str, Cost]:
    from neuralcollapse.paper.cost import estimate
    from neuralcollapse.paper.engines import threads

    return estimate(runs, threads(choices.workers))


def _emulated(runs: Sequence[Outcome]) -> list[str]:
    from neuralcollapse.paper.cost import emulated_precisions

    return [_typed(said) for said in emulated_precisions(runs)]


def _typed(said: str) -> str:
    """With options in place of arguments."""
    from neuralcollapse.cli.app import build_app
    from neuralcollapse.cli.errors import as_typed

    return as_typed(said, build_app()["reproduce"])


def _say_cost(runs: Sequence[Outcome], costs: Mapping[str, Cost], choices: Choices) -> str:
    from neuralcollapse.durations import duration
    from neuralcollapse.paper.cost import total

    finished = sum(run.finished for run in runs)
    said = f"{len(runs)} runs, {finished} finished"
    if finished == len(runs):
        return said
    unknown = sum(cost.seconds is None for cost in costs.values())
    together = f" with {choices.workers} at a time" if choices.workers > 1 else ""
    together += ", without --capture" if choices.capture else ""
    if finished + unknown == len(runs):
        said += ". The others take an unknown time"
    else:
        said += f". The others take about {duration(total(costs, choices.workers))} on this machine{together}"
        said += f", and {unknown} more an unknown time" if unknown else ""
    return said


def _print_verdicts(judged: Mapping[str, list[Judgement]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "the paper's claim", "verdict")
    for name, group in judged.items():
        for one in group:
            table.add_row(name, one.claim.text, one.verdict)
    Console().print(table)
