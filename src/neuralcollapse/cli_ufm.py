"""The command line of the unconstrained feature model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from neuralcollapse.ufm import UFM, Solution

Number = TypeVar("Number", int, float)


def ufm_parser() -> ArgumentParser:
    """``neuralcollapse ufm``, before its tasks."""
    return ArgumentParser(
        description="The unconstrained feature model of Zhu et al.: solve it, certify it, walk its landscape."
    )


def add_tasks(parser: ArgumentParser) -> None:
    """Add the tasks; jsonargparse wants the parser in its place in the tree first."""
    commands = parser.add_subcommands(dest="task", metavar="TASK")

    solve = _problem_parser("Minimise f; print the certificate and the closed form beside it.")
    solve.add_argument("--method", type=str, default="newton", help="gradient, sgd, adam, lbfgs or newton")
    solve.add_argument("--tol", type=float, default=1e-8, help="duality gap at which to stop")
    solve.add_argument("--max_iterations", type=int | None, help="by default what the method needs")
    solve.add_argument("--output", type=str | None, help="write the point to this .npz: W, H, b, labels")
    commands.add_subcommand("solve", solve, help="minimise, with a certificate")

    certify = ArgumentParser(description="How far is a point from optimal? With a proof.")
    certify.add_argument("point", type=str, help=".npz or .safetensors: W (K, d), H (d, N), b (K,), labels (N,)")
    _decays(certify)
    commands.add_subcommand("certify", certify, help="judge a point of your own")

    landscape = _problem_parser("A slice of f through a saddle and the optimum, and the Hessian on the way.")
    landscape.add_argument("--saddle", type=str | None, help="shape such as 2+1+1; by default the first of rank 1")
    landscape.add_argument("--output", type=str, default="landscape.html", help="the page")
    commands.add_subcommand("landscape", landscape, help="draw the way down from a saddle")

    dynamics = _problem_parser("Every optimizer from random starts and from next to each saddle.")
    dynamics.add_argument("--random_starts", type=int, default=2, help="besides a start next to each saddle")
    dynamics.add_argument("--methods", type=str, default="", help="some of gradient,sgd,adam,lbfgs,newton")
    dynamics.add_argument("--output", type=str, default="dynamics.html", help="the page")
    commands.add_subcommand("dynamics", dynamics, help="watch every optimizer collapse")

    conjecture = ArgumentParser(description="Search for a counterexample to the paper's conjecture for d = K.")
    conjecture.add_argument("--trials", type=int, default=200, help="random problems and starts")
    conjecture.add_argument("--max_classes", type=int, default=6, help="largest K")
    conjecture.add_argument("--seed", type=int, default=0, help="of the search")
    conjecture.add_argument("--json", type=str | None, help="write what was found to this file as well")
    commands.add_subcommand("conjecture", conjecture, help="look for a counterexample (d = K)")


def _problem_parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description)
    parser.add_argument("--num_classes", type=int, default=4, help="K")
    parser.add_argument("--samples_per_class", type=str, default="5", help="n, or one number a class: 9,1,4,2")
    parser.add_argument("--feature_dim", type=int | None, help="d; by default K")
    parser.add_argument("--seed", type=int, default=0, help="of random starts")
    _decays(parser)
    return parser


def _decays(parser: ArgumentParser) -> None:
    parser.add_argument("--lambda_w", type=float, default=5e-3, help="weight decay of the classifier")
    parser.add_argument("--lambda_h", type=float, default=1e-3, help="weight decay of the features")
    parser.add_argument("--lambda_b", type=float, default=1e-2, help="weight decay of the bias")


def run_ufm(options: Namespace) -> None:
    """Do what was asked and print it."""
    tasks = {
        "solve": _solve, "certify": _certify, "landscape": _landscape, "dynamics": _dynamics, "conjecture": _conjecture,
    }  # fmt: skip
    tasks[options.task](options[options.task])


def words(text: str) -> list[str]:
    """The words of an option that takes several, between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, option: str, example: str, kind: type[Number]) -> list[Number]:
    """The numbers of an option that takes several, between commas.

    Raises:
        ValueError: if one is not a number of this kind, or there is none.
    """
    try:
        found = [kind(word) for word in words(text)]
    except ValueError as error:
        raise ValueError(f"{option} {text}: give {example}") from error
    if not found:
        raise ValueError(f"{option} is missing: give {example}")
    return found


def _problem(options: Namespace) -> UFM:
    from neuralcollapse.ufm import UFM

    counts = numbers(options.samples_per_class, "--samples-per-class", "5, or 9,1,4,2", int)
    return UFM(
        options.num_classes,
        counts[0] if len(counts) == 1 else counts,
        options.feature_dim or options.num_classes,
        **_lambdas(options),
    )


def _lambdas(options: Namespace) -> dict[str, float]:
    return {name: options[name] for name in ("lambda_w", "lambda_h", "lambda_b")}


def _solve(options: Namespace) -> None:
    problem = _problem(options)
    solution = problem.solve(
        method=options.method, seed=options.seed, tol=options.tol, max_iterations=options.max_iterations
    )
    print(problem)
    print(solution)
    if problem.balanced and problem.feature_dim >= problem.num_classes - 1:
        print(f"closed form     {problem.global_optimum().value:.9g}  (Theorem 3.1)")
    if options.output:
        _save(solution, Path(options.output))


def _save(solution: Solution, path: Path) -> None:
    import numpy as np

    point = solution.point
    np.savez(path, W=point.W, H=point.H, b=point.b, labels=solution.problem.labels)
    print(f"Point: {path}")


def _certify(options: Namespace) -> None:
    import numpy as np

    from neuralcollapse.measurement.embeddings import load_tensors
    from neuralcollapse.ufm import UFM, Point

    arrays = {name: tensor.numpy() for name, tensor in load_tensors(options.point, ("W", "H", "b", "labels")).items()}
    labels = arrays["labels"]
    num_classes, feature_dim = arrays["W"].shape
    if labels.ndim != 1 or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{options.point}: labels must be {num_classes} classes from 0, in one dimension")
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels.astype(int), minlength=num_classes)
    problem = UFM(num_classes, counts.tolist(), feature_dim, **_lambdas(options))
    if arrays["H"].shape != (feature_dim, len(labels)):
        raise ValueError(f"{options.point}: H has shape {arrays['H'].shape}, expected ({feature_dim}, {len(labels)})")
    weight, features, bias = (arrays[name].astype(float) for name in ("W", "H", "b"))
    point = Point(weight, features[:, order], bias)
    print(problem)
    print(problem.certify(point))


def _landscape(options: Namespace) -> None:
    from neuralcollapse.report.landscape import write_landscape
    from neuralcollapse.ufm import Verdict

    problem = _problem(options)
    atlas = list(problem.saddles())
    for critical in atlas:
        print(critical)
    strict = {
        "+".join(map(str, critical.shape)): critical
        for critical in atlas
        if critical.certificate.verdict is Verdict.SADDLE
    }
    if not strict:
        raise ValueError(
            "this problem has no strict saddle in its atlas: past the phase transition the origin is optimal"
        )
    wanted = options.saddle or next((name for name, found in strict.items() if found.rank == 1), next(iter(strict)))
    if wanted not in strict:
        raise ValueError(f"--saddle {wanted}: choose one of {', '.join(strict)}")
    print(f"Landscape: {write_landscape(problem, strict[wanted], Path(options.output))}")


def _dynamics(options: Namespace) -> None:
    from rich.console import Console
    from rich.progress import track

    from neuralcollapse.report.dynamics import dynamics
    from neuralcollapse.report.page import write_page

    problem = _problem(options)
    console = Console(stderr=True)
    runs = dynamics(
        problem, methods=words(options.methods) or None, random_starts=options.random_starts, seed=options.seed
    )
    histories = list(track(runs, "Optimizing", console=console, transient=True, disable=not console.is_terminal))
    for history in histories:
        last = {name: values[-1] for name, values in history.metrics.items()}
        measures = "  ".join(f"{name.upper()} {last[name]:.1e}" for name in ("nc1", "nc2", "nc3"))
        print(f"{history.name:<28} {last['iteration']:>6.0f} iterations  gap {last['gap']:.1e}  {measures}")
    print(f"Report: {write_page(histories, Path(options.output))}")


def _conjecture(options: Namespace) -> None:
    from neuralcollapse.ufm.conjecture import search

    found = search(options.trials, max_classes=options.max_classes, seed=options.seed)
    print(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found.to_dict(), indent=1) + "\n")
