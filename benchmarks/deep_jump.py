"""How the optimum of a deep linear head jumps: the singular value of a class over its number of samples.

Writes ``results/deep/jump.svg``: the closed form for one to four linear layers (lines), and where L-BFGS ends on the
plain scalar objective, from the best of several random starts (dots).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import numpy as np
from scipy.optimize import minimize

from neuralcollapse.ufm.deep import deep_optimum

OTHERS, DECAY = 40, 0.05


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/deep/jump.svg"))
    path = parser.parse_args().output
    path.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "neuralcollapse"
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    sizes = np.arange(1, 41)
    for layers, colour in zip((1, 2, 3, 4), ("#7b8794", "#2f6fbb", "#d9480f", "#2b8a3e"), strict=True):
        exact = [closed_form(int(n), layers) for n in sizes]
        found = [by_descent(int(n), layers) for n in sizes[::3]]
        axis.step(sizes, exact, where="mid", color=colour, label=f"M = {layers}")
        axis.plot(sizes[::3], found, "o", color=colour, markersize=4)
    axis.plot(sizes, np.sqrt(sizes), ":", color="black", label="no weight decay: sqrt(n)")
    axis.set(
        xlabel="samples n of the class",
        ylabel="singular value z of W_M...W_1 H",
        title="With two layers or more, a class appears in a jump",
    )
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    print(path)


def closed_form(n: int, layers: int) -> float:
    """Z of the class, beside one of 40 samples."""
    return float(deep_optimum([OTHERS, n], 2, lambdas=[DECAY] * layers, lambda_h=DECAY).singular_values[1])


def by_descent(n: int, layers: int) -> float:
    """The same by L-BFGS on the factors of one singular value, whose product is z."""
    total = OTHERS + n

    def objective(factors: np.ndarray) -> float:
        return (factors.prod() - math.sqrt(n)) ** 2 / (2 * total) + DECAY * float(factors @ factors) / 2

    rng = np.random.default_rng(n)
    starts = [size * rng.random(layers + 1) for size in (0.1, *[3.0] * 10)]  # the origin has a basin of its own
    runs = [minimize(objective, start, method="L-BFGS-B") for start in starts]
    return float(min(runs, key=lambda run: run.fun).x.prod())


if __name__ == "__main__":
    main()
