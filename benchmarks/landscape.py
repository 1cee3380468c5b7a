"""The landscape below d = K - 1: a catalogue of minima, and how the best shape of K = 5, d = 3 changes with the decay.

Writes the folder ``results/landscape``: ``phases.csv``, ``phases.svg`` and ``solids.svg`` (a minute), and with
``--catalogue`` also ``catalogue.csv`` (half an hour on one core).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np

from neuralcollapse.report.solids import turning_svg
from neuralcollapse.ufm import UFM
from neuralcollapse.ufm.explore import Exploration, catalogue, convex_bound, explore
from neuralcollapse.ufm.phases import Branch, at, crossing, follow

NAMES = {"5 corners, faces 4x3 + 1x4": "square pyramid", "5 corners, faces 6x3": "triangular bipyramid"}


def main() -> None:
    """Compute, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/landscape"))
    parser.add_argument("--catalogue", action="store_true", help="search all pairs again")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    problem = UFM(5, 10, 3, lambda_w=1e-3, lambda_h=1e-4, lambda_b=1e-2)
    found = explore(problem, starts=60)
    print(found)
    branches = [follow(problem, minimum, np.geomspace(1e-5, 5e-2, 149)) for minimum in found.minima]
    tie = crossing(problem, *branches)
    write_phases(problem, branches, options.output / "phases.csv")
    draw_phases(problem, branches, tie, options.output / "phases.svg")
    draw_solids(found, options.output / "solids.svg")
    for branch in branches:
        print(f"{NAMES[branch.shape]}: a strict minimum from λW = {branch.lambdas[0]:.4g} to {branch.lambdas[-1]:.4g}")
    print(f"both have the same value at λW = {tie:.8g}")
    if options.catalogue:
        rows = list(catalogue(range(3, 13), (2, 3, 4), (1e-2, 3e-3, 1e-3, 1e-4), starts=100))
        with (options.output / "catalogue.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def write_phases(problem: UFM, branches: list[Branch], path: Path) -> None:
    """One row per λ and minimum."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lambda_w", "lambda_h", "lambda_b", "shape", "value", "least_positive", "lower_bound"])
        for branch in branches:
            for value, minimum in zip(branch.lambdas, branch.minima, strict=True):
                model = at(problem, value)
                numbers = (value, model.lambda_h, model.lambda_b)
                writer.writerow(
                    [*(f"{number:.6g}" for number in numbers), NAMES[branch.shape], f"{minimum.value:.12g}",
                     f"{minimum.least_positive:.6g}", f"{convex_bound(model):.12g}"]
                )  # fmt: skip


def draw_phases(problem: UFM, branches: list[Branch], tie: float | None, path: Path) -> None:
    """Value above the convex bound, relative to it; and the softest positive eigenvalue."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "neuralcollapse"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    reference = {value: convex_bound(at(problem, value)) for branch in branches for value in branch.lambdas}
    for branch, colour in zip(branches, ("#2f6fbb", "#d9480f"), strict=True):
        excess = [m.value / reference[v] - 1 for v, m in zip(branch.lambdas, branch.minima, strict=True)]
        axes[0].semilogx(branch.lambdas, excess, color=colour, label=NAMES[branch.shape])
        axes[1].loglog(branch.lambdas, [m.least_positive for m in branch.minima], color=colour)
    axes[0].set(
        xlabel="λW  (λH = λW/10)", ylabel="value above the convex bound, relative", title="Which shape is best?"
    )
    axes[1].set(xlabel="λW", ylabel="smallest positive eigenvalue", title="Each ends where this reaches zero")
    if tie is not None:
        for axis in axes:
            axis.axvline(tie, color="#7b8794", linestyle=":")
        axes[0].annotate(f"equal at λW = {tie:.4g}", (1.15 * tie, 0.145))
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_solids(found: Exploration, path: Path) -> None:
    """Both minima of K = 5, d = 3, turning."""
    solids = [
        (NAMES[minimum.shape], f"f = {minimum.value:.8f}", np.asarray(minimum.point.W)) for minimum in found.minima
    ]
    words = "A square pyramid and a triangular bipyramid, turning: the rows of W at the two strict local minima."
    path.write_text(turning_svg(solids, description=words))


if __name__ == "__main__":
    main()
