"""The question the paper leaves open: is every critical point for d = K global or a strict saddle?

Theorem 3.2 needs d > K for an unused direction at every critical point. For d = K one is missing only where W
has full rank. This searches for such a point that is neither global nor a strict saddle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, minimize

from neuralcollapse.ufm.certificate import Verdict, certify
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solvers import value_and_gradient_of


@dataclass(frozen=True)
class Finding:
    """A critical point that the search met."""

    problem: UFM
    kind: str
    """global, strict saddle, counterexample, or undecided (curvature or gradient too near zero to tell)."""
    full_rank: bool
    """Whether W has rank K: there Theorem 3.2's argument has nothing to say."""
    gap: float | None
    least_eigenvalue: float
    gradient_norm: float


@dataclass(frozen=True)
class Search:
    """What a search found. Evidence, not proof."""

    trials: int
    critical: int
    counts: dict[str, int]
    """Critical points by kind."""
    full_rank_saddles: int
    """Strict saddles of full rank: where a counterexample would have been."""
    weakest: float
    """The least eigenvalue nearest to zero among the strict saddles."""
    counterexamples: list[Finding]

    def to_dict(self) -> dict[str, object]:
        """Numbers by name."""
        return {**dataclasses.asdict(self), "counterexamples": [str(found) for found in self.counterexamples]}

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        found = (
            f"{len(self.counterexamples)} COUNTEREXAMPLE CANDIDATES: check them in higher precision"
            if self.counterexamples
            else "no counterexample"
        )
        return (
            f"{self.trials} starts with d = K reached {self.critical} critical points: {kinds}.\n"
            f"Strict saddles of full rank: {self.full_rank_saddles}; the weakest negative eigenvalue of a saddle: "
            f"{self.weakest:.3g}.\nResult: {found}. This is evidence, not proof: a search cannot visit every point."
        )


def search(trials: int = 200, *, max_classes: int = 6, seed: int = 0) -> Search:
    """Draw problems with d = K and starts, polish each to a critical point, and look at its curvature.

    Polishing goes down the gradient's norm, which leads to saddles as well as to minima. Half the starts first
    go down f for a while, so that points at all heights are met.

    Raises:
        ValueError: if ``trials`` is less than 1 or ``max_classes`` less than 2.
    """
    if trials < 1 or max_classes < 2:
        raise ValueError(f"trials={trials} must be at least 1 and max_classes={max_classes} at least 2")
    findings = list(_findings(trials, max_classes, np.random.default_rng(seed)))
    kinds = [found.kind for found in findings]
    saddles = [found for found in findings if found.kind == "strict saddle"]
    return Search(
        trials=trials,
        critical=len(findings),
        counts={kind: kinds.count(kind) for kind in set(kinds)},
        full_rank_saddles=sum(found.full_rank for found in saddles),
        weakest=max((found.least_eigenvalue for found in saddles), default=float("nan")),
        counterexamples=[found for found in findings if found.kind == "counterexample"],
    )


def _findings(trials: int, max_classes: int, rng: np.random.Generator) -> Iterator[Finding]:
    for trial in range(trials):
        k = int(rng.integers(2, max_classes + 1))
        counts = rng.integers(1, 8, size=k) if trial % 3 else np.full(k, rng.integers(1, 8))
        w, h = 10 ** rng.uniform(-4, -1, size=2)
        b = 0.0 if trial % 2 else 10 ** rng.uniform(-4, 0)
        problem = UFM(k, counts.tolist(), k, lambda_w=w, lambda_h=h, lambda_b=b)
        start = rng.standard_normal(2 * k * k + k) * 10 ** rng.uniform(-1, 1)
        found = _polish(problem, start, descent=int(rng.integers(1, 60)) if rng.random() < 0.5 else 0)
        if found is not None:
            yield found


def _polish(problem: UFM, start: np.ndarray, descent: int) -> Finding | None:
    """Solve gradient = 0 by Levenberg-Marquardt with the exact Hessian; None where it ends elsewhere."""
    model = problem.by_class
    if descent:
        start = minimize(
            value_and_gradient_of(model), start, jac=True, method="L-BFGS-B", options={"maxiter": descent},
        ).x  # fmt: skip
    result = least_squares(
        lambda x: value_and_gradient_of(model)(x)[1],
        start,
        jac=lambda x: model.dense_hessian(model.point(x)),
        method="trf",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        max_nfev=500,
    )
    point = model.point(result.x)
    certificate = certify(model, point, tol=1e-9)
    if certificate.gradient_norm > 1e-9:
        return None
    least = float(np.linalg.eigvalsh(model.dense_hessian(point))[0])
    singular = np.linalg.svd(point.W, compute_uv=False)
    full_rank = bool(singular[-1] > 1e-6 * max(singular[0], 1e-6))
    if certificate.verdict is Verdict.OPTIMAL:
        kind = "global"
    elif least < -1e-8:
        kind = "strict saddle"
    else:
        # Without negative curvature and far from the bound: what the conjecture forbids.
        kind = (
            "counterexample"
            if certificate.gap is not None and certificate.gap > 1e-6 and certificate.residual_ratio > 1 + 1e-6
            else "undecided"
        )
    return Finding(problem, kind, full_rank, certificate.gap, least, certificate.gradient_norm)
