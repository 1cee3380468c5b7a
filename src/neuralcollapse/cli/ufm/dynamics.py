"""``neuralcollapse ufm dynamics``."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import words
from neuralcollapse.cli.ufm.place import Place
from neuralcollapse.cli.ufm.problem import Problem, ProblemOptions


def dynamics(
    *,
    choices: ProblemOptions = Problem(),  # noqa: B008  (it is frozen)
    methods: str = "",
    random_starts: int = 2,
    seed: int = 0,
    output: Path | None = None,
) -> None:
    """Run every optimizer from random starts and from beside each saddle, and draw how all of them collapse.

    For example:
      neuralcollapse ufm dynamics
      neuralcollapse ufm dynamics --num-classes 3 --methods gradient,newton --random-starts 4

    Args:
        methods: Some of gradient,sgd,adam,lbfgs,newton. By default all.
        random_starts: Random starts, besides one start beside each saddle.
        seed: Seed of the random starts.
        output: The page. By default runs/ufm/dynamics.html.
    """
    place = Place(output, "runs/ufm/dynamics.html")
    from rich.console import Console
    from rich.progress import track

    from neuralcollapse.report.dynamics import dynamics as trace
    from neuralcollapse.report.dynamics import write_dynamics

    problem = choices.make()
    console = Console(stderr=True)
    runs = trace(problem, methods=words(methods) or None, random_starts=random_starts, seed=seed)
    histories = list(track(runs, "Optimizing", console=console, transient=True, disable=not console.is_terminal))
    for history in histories:
        last = {name: values[-1] for name, values in history.metrics.items()}
        measures = "  ".join(f"{name.upper()} {last[name]:.1e}" for name in ("nc1", "nc2", "nc3"))
        print(f"{history.name:<28} {last['iteration']:>6.0f} iterations  {_end(last)}  {measures}")
    write_dynamics(problem, histories, place.path)
    print(place.said("Report"))


def _end(last: dict[str, float | None]) -> str:
    """How far from optimal, where the loss is convex."""
    return "no certificate" if last["gap"] is None else f"gap {last['gap']:.1e}"
