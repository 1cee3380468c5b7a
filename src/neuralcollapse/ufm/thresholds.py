"""Will weight decay erase rare classes, and below how many samples?

At the global optimum of the unconstrained feature model, classes of equal size that are too small merge into one point,
or lose their features altogether. The thresholds are exact; they depend on λW λH and the class sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.optimize import minimize

from neuralcollapse.ufm.arguments import class_sizes
from neuralcollapse.ufm.losses import CrossEntropy, Focal, LabelSmoothing, Loss, MeanSquaredError
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.solution import Point


@dataclass(frozen=True)
class CollapseThresholds:
    """Which classes the weight decay erases, and what it would take to keep them."""

    class_counts: tuple[int, ...]
    samples: float
    """A class (or a group of equally large classes) is lost with so many samples or fewer, at the present total N."""
    lost: tuple[int, ...]
    """Classes that are lost."""
    at_risk: tuple[int, ...]
    """Classes that this threshold judges. The others, each of a size of its own, may lose their direction too, and then
    lie at one point with all that have lost theirs: see :func:`target_geometry`."""
    keeps_all: int | None
    """Samples that each of the rarest judged classes needs to survive, the others as they are; other judged classes may
    stay lost. None where no number of samples helps, or none is judged."""
    largest_decay: float | None
    """λW λH below which all judged classes survive. None where none is judged."""
    nothing_learned: bool
    """Whether the optimum is the origin: W = 0 and H = 0."""
    event: str
    """What becomes of a lost class: ``merge`` (into one point with those of its size) or ``vanish`` (zero features)."""

    def to_dict(self) -> dict[str, Any]:
        """Everything by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.class_counts))
        lines = [f"classes of {sizes} samples"]
        if self.nothing_learned:
            lines.append("The weight decay erases everything: the optimum is W = 0, H = 0.")
        if self.nothing_learned and not self.at_risk:
            return "\n".join(lines)
        if not self.at_risk:
            lines.append(
                "No two classes are of equal size: none merges exactly with another. Rare classes have shorter rows of "
                "W, smaller margins, and may share directions: see target_geometry."
            )
            return "\n".join(lines)
        verb = {"merge": "merge into one point", "vanish": "vanish: their features and logits are zero"}[self.event]
        alone = [k for k in range(len(self.class_counts)) if k not in self.at_risk]
        kept = "no group of equal classes merges" if alone else "no class is lost"
        named = f"classes {', '.join(map(str, self.lost))} {verb}" if self.lost else kept
        reached = f"{self.samples:.6g} samples" if math.isfinite(self.samples) else "above any number of samples"
        lines.append(f"threshold: {reached}; {named}")
        if self.keeps_all is not None:
            rarest = "the rarest of these groups survives" if alone else "the rarest classes survive"
            samples = f"{self.keeps_all} sample{'s' * (self.keeps_all > 1)} each"
            lines.append(f"{rarest} with {samples}, the others as they are")
        every = "all of these groups" if alone else "all classes"
        lines.append(f"{every} survive with lambda_w * lambda_h below {self.largest_decay:.6g}")
        if alone and not self.nothing_learned:
            named = f"class {alone[0]} has" if len(alone) == 1 else f"classes {', '.join(map(str, alone))} have each"
            lines.append(
                f"not judged: {named} a size of its own. The weight decay may leave it no direction, and it then lies "
                "at one point with all others that have lost theirs: see target_geometry"
            )
        return "\n".join(lines)


def collapse_thresholds(
    class_counts: Sequence[int] | Int[np.ndarray, " K"],
    lambda_w: float | int,
    lambda_h: float | int,
    lambda_b: float | int = 0.0,
    *,
    loss: str | Loss = "cross_entropy",
    bias: bool = True,
    nonnegative: bool = False,
) -> CollapseThresholds:
    r"""Which classes these decays erase at the global optimum, and below how many samples.

    With N samples in all and any d >= K:

    - Losses convex in the logits and alike in all wrong classes: classes of equal size n merge iff n <= N² λW λH. The
      residuals of a merged group have norm sqrt(n)/N across the group. Up to τ they are dual feasible: the merged
      optimum is then global. With label smoothing α, iff (1 - α)² n <= N² λW λH.
    - Squared error without bias: class k vanishes iff n_k <= N² λW λH, whatever the sizes.
    - Cross-entropy with nonnegative features and no bias: class k vanishes iff n_k <= N² λW λH K/(K-1)
      (Dang et al. 2024).

    Args:
        class_counts: samples of each class.
        lambda_w: weight decay of the classifier.
        lambda_h: weight decay of the features, per sample.
        lambda_b: weight decay of the bias: it moves no threshold but that of the origin.
        loss: as :class:`UFM` takes it; the focal loss, which is not convex, has no known threshold.
        bias: whether there is a bias.
        nonnegative: whether features are nonnegative; the threshold is known for cross-entropy without bias.

    Raises:
        ValueError: naming the argument, its value and the constraint; or if no threshold is known for this model.

    >>> found = collapse_thresholds([30, 30, 30, 2, 2, 2], 0.0173, 0.0173)
    >>> found.lost, found.keeps_all
    ((3, 4, 5), 3)
    """
    sizes = class_sizes(class_counts)
    problem = UFM(
        len(sizes), sizes, len(sizes), lambda_w=lambda_w, lambda_h=lambda_h, lambda_b=lambda_b,
        loss=loss, bias=bias, nonnegative=nonnegative,
    ).by_class  # fmt: skip
    counts, k = problem.class_counts, problem.num_classes
    vanish = nonnegative or (isinstance(problem.loss, MeanSquaredError) and not bias)
    factor = _factor(problem)
    # A group needs company to merge; a class vanishes alone.
    judged = [i for i in range(k) if vanish or (counts == counts[i]).sum() > 1]
    threshold = factor * float(problem.total) ** 2 * problem.lambda_w * problem.lambda_h
    lost = tuple(i for i in judged if counts[i] <= threshold * (1 + 1e-12))
    nothing = len(lost) == k if vanish else _origin_is_optimal(problem)
    lost = tuple(range(k)) if nothing else lost
    rarest = min((int(counts[i]) for i in judged), default=0)
    return CollapseThresholds(
        tuple(counts.tolist()),
        threshold,
        lost,
        tuple(judged),
        _keeps(counts, rarest, factor * problem.lambda_w * problem.lambda_h) if judged else None,
        rarest / (factor * float(problem.total) ** 2) if judged else None,
        nothing,
        "vanish" if vanish else "merge",
    )


def _factor(problem: UFM) -> float:
    """What multiplies N² λW λH."""
    loss = problem.loss
    if isinstance(loss, Focal) and loss.gamma > 0:
        raise ValueError(f"loss={loss} is not convex in the logits: no threshold is known. Compare solves instead")
    if problem.nonnegative:
        if type(loss) is not CrossEntropy or problem.bias:
            raise ValueError(
                "nonnegative=True: the threshold is known for cross-entropy with bias=False only. Use target_geometry"
            )
        return problem.num_classes / (problem.num_classes - 1)
    return 1 / (1 - loss.alpha) ** 2 if isinstance(loss, LabelSmoothing) else 1.0


def _keeps(counts: np.ndarray, rarest: int, decay: float) -> int | None:
    """The least size m of the rarest classes with m > decay (N - r n + r m)², r of them, the others fixed."""
    number = int((counts == rarest).sum())
    rest = int(counts.sum()) - number * rarest
    # decay r² m² + (2 decay r rest - 1) m + decay rest² < 0 between the roots
    a, b, c = decay * number**2, 2 * decay * number * rest - 1, decay * rest**2
    discriminant = b * b - 4 * a * c
    if discriminant <= 0 or b >= 0:
        return None
    low = 2 * c / (-b + math.sqrt(discriminant))
    size = max(1, math.floor(low))
    while size <= decay * (rest + number * size) ** 2 * (1 + 1e-12):
        size += 1
        if size > (-b + math.sqrt(discriminant)) / (2 * a):
            return None
    return size


def _origin_is_optimal(problem: UFM) -> bool:
    """Whether ||G||₂ <= τ at W = 0, H = 0 and the best bias there (Lemma C.4)."""
    k, d = problem.num_classes, problem.feature_dim
    zero = np.zeros((k, d))

    def value_and_slope(bias: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = problem.value_and_gradient(Point(zero, zero.T, bias))
        return value, slope.b

    bias = np.zeros(k)
    if problem.bias:
        shares = problem.class_counts / problem.total
        start = np.log(shares) - np.log(shares).mean()
        found = minimize(value_and_slope, start, jac=True, method="BFGS", options={"gtol": 1e-12}).x
        for _ in range(50):
            point = Point(zero, zero.T, found)
            curved = problem.dense_hessian(point)[-k:, -k:]
            step = np.linalg.lstsq(curved, value_and_slope(found)[1], rcond=1e-13)[0]
            if np.linalg.norm(value_and_slope(found - step)[1]) >= np.linalg.norm(value_and_slope(found)[1]):
                break
            found = found - step
        bias = found
    gram = np.zeros((k, k))
    for part, residual in problem.residuals(Point(zero, zero.T, bias)):
        gram += (residual * problem.weights[part]) @ residual.T
    return math.sqrt(float(np.linalg.eigvalsh(gram)[-1])) <= problem.tau * (1 + 1e-9)
