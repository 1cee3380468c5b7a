"""A certified solve of an unequal problem against cvxpy with SCS, and the time of a solve against N and against K."""

from __future__ import annotations

import argparse
import statistics
import time

import cvxpy as cp
import numpy as np
from rich.console import Console
from rich.table import Table

from neuralcollapse.ufm import UFM

COUNTS = [65, 40, 30, 20, 15, 12, 8, 5, 3, 2]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 classes, 40 samples, N up to 10,000, K up to 100")
    quick = parser.parse_args().quick
    console = Console(width=120)
    counts = [25, 10, 4, 1] if quick else COUNTS
    problem = UFM(len(counts), counts, len(counts), lambda_w=5e-3, lambda_h=1e-3, lambda_b=1e-2)
    theirs, value = program_by_scs(problem)
    ours, gaps = [], []
    for _ in range(5):
        start = time.perf_counter()
        solution = problem.solve(tol=1e-12)
        point = solution.point
        certificate = problem.certify(point)  # over all N columns, as part of the price
        ours.append(time.perf_counter() - start)
        gaps.append(certificate.gap)
    mine = statistics.median(ours)
    table = Table("K", "N", "ours s", "our gap", "SCS s", "SCS value - ours", "times faster", "bound")
    difference = f"{value - solution.value:.1e}"
    table.add_row(str(len(counts)), str(sum(counts)), f"{mine:.4f}", f"{max(gaps):.1e}", f"{theirs:.2f}", difference,
                  f"{theirs / mine:.0f}", "50")  # fmt: skip
    console.print(table)

    table = Table("N", "solve s", "certificate over all N s", "gap", title="K = 10, unequal classes, d = 10")
    for size in (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        shares = np.array(COUNTS) / sum(COUNTS)
        large = UFM(10, (shares * size).astype(int).tolist(), 10, lambda_w=5e-3, lambda_h=0.2 / size, lambda_b=1e-2)
        solution = large.solve(tol=1e-8)
        start = time.perf_counter()
        certificate = large.certify(solution.point)
        table.add_row(
            f"{large.total:,}",
            f"{solution.seconds:.3f}",
            f"{time.perf_counter() - start:.3f}",
            f"{certificate.gap:.1e}",
        )
    console.print(table)

    table = Table(
        "K = d", "solve s", "bound s", "CPU s", "relative gap", "bound", title="Classes of 1 to 49 samples each"
    )
    for classes, bound in ((100, 3),) if quick else ((100, 3), (1_000, 300)):
        start = time.process_time()
        solution = many_classes(classes).solve(tol=1e-7)
        worked = time.process_time() - start  # far below the solve's own time where other work shares the machine
        gap = solution.certificate.gap / solution.value
        table.add_row(f"{classes:,}", f"{solution.seconds:.2f}", f"{bound}", f"{worked:.2f}", f"{gap:.1e}", "1e-6")
    console.print(table)

    table = Table(
        "K", "N", "closed form s", "bound s", "gradient norm", title="The optimum of equal classes, certified"
    )
    start = time.perf_counter()
    solution = UFM(1000, 1000, 1024, lambda_w=1e-6, lambda_h=1e-6).global_optimum()
    taken = time.perf_counter() - start
    table.add_row("1,000", "1,000,000", f"{taken:.2f}", "1", f"{solution.certificate.gradient_norm:.1e}")
    console.print(table)


def many_classes(classes: int) -> UFM:
    """Classes of unequal size, with decays far from the threshold."""
    counts = np.random.default_rng(0).integers(1, 50, size=classes).tolist()
    decay = 0.1 / sum(counts)
    return UFM(classes, counts, classes, lambda_w=decay, lambda_h=decay, lambda_b=1e-2)


def program_by_scs(problem: UFM) -> tuple[float, float]:
    """Seconds and value of the convex program (37) by cvxpy with SCS, to the accuracy SCS reaches by default."""
    k, n = problem.num_classes, problem.total
    logits, bias = cp.Variable((k, n)), cp.Variable(k)
    outputs = logits + cp.reshape(bias, (k, 1), order="C") @ np.ones((1, n))
    one_hot = np.repeat(np.eye(k), problem.class_counts, axis=1)
    loss = cp.sum(cp.log_sum_exp(outputs, axis=0)) - cp.sum(cp.multiply(one_hot, outputs))
    decay = problem.tau * cp.normNuc(logits) + problem.lambda_b / 2 * cp.sum_squares(bias)
    program = cp.Problem(cp.Minimize(loss / n + decay))
    start = time.perf_counter()
    program.solve(solver="SCS", eps=1e-7, max_iters=50_000)
    return time.perf_counter() - start, float(program.value)


if __name__ == "__main__":
    main()
