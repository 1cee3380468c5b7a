"""From names of figures to finished runs, judged claims and a gallery."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from neuralcollapse.paper.earlier import figures_of, runs_of
from neuralcollapse.paper.experiments import FIGURES, SCALES, Experiment, check_figures
from neuralcollapse.paper.outcome import Outcome, as_begun, as_trained


def plan(
    figures: Sequence[str],
    scale: str,
    *,
    output: Path,
    data_root: str = "data",
    sources: Mapping[str, str] | None = None,
    seeds: Sequence[int] = (),
    precision: str | None = None,
    capture: bool = False,
) -> dict[str, list[Outcome]]:
    """The runs of each figure, as far as they are; figures share runs.

    Args:
        figures: names of :data:`FIGURES`.
        scale: a name of :data:`SCALES`.
        output: folder of all runs.
        data_root: folder of torchvision's data sets.
        sources: where a data set comes from otherwise: ``{"cifar10": "hf:FOLDER"}``.
        seeds: of every experiment, in place of the scale's own.
        precision: of the training steps of every run, as Lightning names it: ``32-true``, ``bf16-mixed``, ``16-mixed``
            (L-BFGS, which cannot scale its loss, takes ``32-true`` for the last).
        capture: replay the training steps of every run as one graph, where the device can.

    Raises:
        ValueError: if a figure or scale is unknown, a seed is negative or given twice, or the configuration in a run's
            folder is damaged.
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown: choose {', '.join(SCALES)}")
    check_figures(figures)
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds={list(seeds)} must be different whole numbers, none of them negative")
    runs: dict[str, Outcome] = {}
    planned: dict[str, list[Outcome]] = {}
    for name in figures:
        experiments = SCALES[scale].seeded(FIGURES[name].runs(SCALES[scale]), seeds)
        for experiment in experiments:
            if experiment.name not in runs:
                config = experiment.config(
                    SCALES[scale],
                    sources=sources or {},
                    data_root=data_root,
                    output=output,
                    precision=precision,
                    capture=capture,
                )
                runs[experiment.name] = as_begun(Outcome(experiment, config))
        planned[name] = [runs[experiment.name] for experiment in experiments]
    return planned


def plan_again(
    planned: Mapping[str, Sequence[Outcome]],
    scale: str,
    *,
    output: Path,
    data_root: str = "data",
    sources: Mapping[str, str] | None = None,
) -> dict[str, list[Outcome]]:
    """The runs of the other figures that the folder's gallery shows already, to be drawn again beside those planned.

    They keep the seeds that the gallery lists, and the data set and the precision that their folders name.

    Args:
        planned: what this command runs: its figures are left out, and its runs are shared.
        scale: a name of :data:`SCALES`, that of the gallery.
        output: folder of all runs and of the gallery.
        data_root: folder of torchvision's data sets, for runs that are missing.
        sources: where a data set of these comes from otherwise.

    Raises:
        ValueError: if the configuration in a folder is damaged.
    """
    runs = {run.experiment.name: run for group in planned.values() for run in group}
    listed, found = runs_of(output), {}
    for name in figures_of(output):
        if name in planned:
            continue
        experiments = [
            seeded
            for experiment in FIGURES[name].runs(SCALES[scale])
            for seeded in _listed(experiment, listed) or SCALES[scale].seeded([experiment])
        ]
        for experiment in experiments:
            if experiment.name not in runs:
                config = experiment.config(SCALES[scale], sources=sources or {}, data_root=data_root, output=output)
                runs[experiment.name] = as_trained(as_begun(Outcome(experiment, config)))
        found[name] = [runs[experiment.name] for experiment in experiments]
    return found


def _listed(experiment: Experiment, names: Sequence[str]) -> list[Experiment]:
    """The experiment with each seed with which a gallery lists it.

    >>> [run.name for run in _listed(Experiment("mnist"), ["mnist-resnet18-sgd-seed4", "mnist-resnet18-adam-seed5"])]
    ['mnist-resnet18-sgd-seed4']
    """
    pattern = re.compile(re.escape(experiment.variant) + r"(?:-seed(\d+))?", re.ASCII)
    seeds = [match[1] for name in names if (match := pattern.fullmatch(name))]
    return [dataclasses.replace(experiment, seed=None if seed is None else int(seed)) for seed in seeds]
