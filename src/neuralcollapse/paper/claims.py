"""The paper's claims, figure by figure."""

from __future__ import annotations

from collections.abc import Sequence

from neuralcollapse.paper.judgement import Claim, Judgement
from neuralcollapse.paper.outcome import Outcome
from neuralcollapse.paper.rules import (
    as_accurate_as,
    falls,
    goes_with_error,
    optimizers_differ,
    reaches,
    saves,
    shrinks_with_width,
)


def judge(figure: str, runs: Sequence[Outcome], *, small: bool = False) -> list[Judgement]:
    """Each claim of a figure, judged on its finished runs; at a scale too small for that (``small``) only measured."""
    finished = [run for run in runs if run.finished]
    missing = tuple(run.experiment.name for run in runs if not run.finished)
    return [Judgement(claim, claim.check(finished), missing, small and bool(runs)) for claim in CLAIMS[figure]]


_COLLAPSE = [falls("nc1"), falls("nc2"), falls("nc3")]

CLAIMS: dict[str, list[Claim]] = {
    "figure3": [*_COLLAPSE, falls("nc4"), falls("nc4_relative")],
    "figure4": [
        reaches(0.999),
        Claim(
            "Networks that collapse alike differ in test accuracy, by optimizer",
            "more than half a percentage point between the best and the worst",
            optimizers_differ,
        ),
    ],
    "figure5": [
        *(shrinks_with_width(name) for name in ("nc1", "nc2", "nc3", "train_error")),
        *(goes_with_error(name) for name in ("nc1", "nc2", "nc3")),
    ],
    "figure6": [
        *_COLLAPSE,
        Claim(
            "Decay of the features instead of all parameters costs no test accuracy "
            "(99.57% against 99.60% on MNIST, 77.92% against 78.42% on CIFAR-10 at the paper's scale)",
            "at most one percentage point below decay of all parameters",
            as_accurate_as("decay", "all", 1.0),
        ),
    ],
    "figure7": [
        falls("nc1"),
        falls("nc3"),
        reaches(0.999),
        Claim(
            "A fixed simplex ETF, and d = K, cost no test accuracy",
            "at most one percentage point below the learned classifier with the model's own d",
            as_accurate_as("head", "learned", 1.0),
        ),
    ],
    "savings": [
        saves("resnet50", 1000, "fixed head", 8.01),
        saves("densenet169", 1000, "fixed head", 11.76),
        saves("shufflenet_v2_x1_0", 1000, "fixed head", 52.56),
        saves("resnet18", 10, "d = K", 20.70),
        saves("resnet50", 10, "d = K", 4.45),
    ],
}
