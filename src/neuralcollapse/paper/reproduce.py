"""From names of figures to finished runs, judged claims and a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from neuralcollapse.paper.experiments import FIGURES, SCALES, check_figures
from neuralcollapse.paper.outcome import Outcome


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
        ValueError: if a figure or scale is unknown, or a seed is negative or given twice.
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
                runs[experiment.name] = Outcome(experiment, config)
        planned[name] = [runs[experiment.name] for experiment in experiments]
    return planned
