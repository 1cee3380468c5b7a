"""The one-vs-rest margin of K vectors: how far each is from the convex hull of all others (GNC2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from neuralcollapse.geometry.arithmetic import in_unit, times_power_of_two
from neuralcollapse.geometry.inputs import Rows, as_real, as_rows


@dataclass(frozen=True)
class OneVsRestMargin:
    """Distance of each row to the convex hull of all others, with a proof of how exact it is."""

    distances: Float[Tensor, " K"]
    """dist(w_k, conv{w_j : j != k}), reached by a point of the hull."""
    gaps: Float[Tensor, " K"]
    """Duality gap: the true distance is smaller by at most this much."""

    @property
    def margin(self) -> float:
        """The smallest distance: GNC2 of Jiang et al., larger is better."""
        return float(self.distances.min())

    @property
    def gap(self) -> float:
        """The largest duality gap."""
        return float(self.gaps.max())

    def __float__(self) -> float:
        return self.margin

    def __str__(self) -> str:
        return f"one-vs-rest margin {self.margin:.9g} (duality gap {self.gap:.1g})"


@torch.no_grad()
def one_vs_rest_margin(weight: Float[Tensor, "K d"] | Rows, *, normalize: bool = True) -> OneVsRestMargin:
    r"""How far each row is from the convex hull of all others (GNC2).

    .. math:: \rho = \min_k \mathrm{dist}(w_k, \mathrm{conv}\{w_j : j \ne k\})

    Each class is a quadratic program over the simplex. It is solved by active sets (Lawson and Hanson's NNLS: the
    nearest point of a hull to the origin minimises ||P a||² + (1'a - 1)² over a >= 0, up to scale), over the nearest
    rows first and any that violate optimality afterwards. The separating hyperplane is the dual certificate. In [0, 2];
    larger is better, and the largest is reached at collapse: K/(K-1) for K <= d+1, 1 for d+1 < K <= 2d, 1 - cos(2π/K)
    for d = 2; see ``ufm.softmax_code``. Cost: about 2 ms per class at K = 1,000, d = 64.

    Args:
        weight: K x d, K at least 2. Arithmetic is float64.
        normalize: scale each row to length one first, as the definition asks; otherwise rows are taken as they are.

    Raises:
        ValueError: if there are fewer than two rows, a row is not finite, or a row to be normalised is zero.

    Source: Jiang et al. 2024, Definition 3.1.

    >>> corners = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    >>> round(float(one_vs_rest_margin(corners)), 12)
    1.0
    """
    weight = as_real(weight, "weight")
    scaled, unit = in_unit(as_rows(weight, "weight", normalize))
    rows = scaled.cpu().numpy()
    pairs = [_distance_to_hull(rows, k) for k in range(len(rows))]
    distances, gaps = (
        times_power_of_two(torch.tensor(column, dtype=torch.float64, device=weight.device), unit)
        for column in zip(*pairs, strict=True)
    )
    return OneVsRestMargin(distances, gaps)


def _distance_to_hull(rows: np.ndarray, k: int) -> tuple[float, float]:
    """Distance of row k to the hull of the others, and the duality gap."""
    own = rows[k]
    gram = rows @ own
    near = np.square(rows).sum(1) - 2 * gram
    near[k] = np.inf
    candidates = np.argsort(near)[: min(len(rows) - 1, max(128, 2 * rows.shape[1]))]
    for _ in range(len(rows)):
        shifted = rows[candidates] - own
        system = np.vstack([shifted.T, np.ones(len(candidates))])
        target = np.zeros(len(system))
        target[-1] = 1
        shares = nnls(system, target, maxiter=50 * len(candidates) + 1000)[0]
        shares /= shares.sum()
        normal = -(shares @ shifted)  # from the hull's nearest point to w_k
        distance = float(np.linalg.norm(normal))
        projections = rows @ normal
        projections[k] = -np.inf
        # Every other row lies behind the plane through the nearest point, or joins the candidates.
        support = float(own @ normal - projections.max())
        outside = np.setdiff1d(np.flatnonzero(projections > own @ normal - distance**2 + 1e-14), candidates)
        if not len(outside):
            break
        candidates = np.concatenate([candidates[shares > 0], outside])
    proved = max(support / distance, 0.0) if distance > 0 else 0.0
    return distance, max(distance - proved, 0.0)


def gnc2(weight: Float[Tensor, "K d"] | Rows) -> float:
    """GNC2: the one-vs-rest margin of the rows of W scaled to length one, in [0, 2].

    At collapse it is as large as K and d allow. The cost is that of :func:`one_vs_rest_margin`, which also proves how
    exact the margin is.

    Raises:
        ValueError: as :func:`one_vs_rest_margin`.

    Source: Jiang et al. 2024, Definition 3.1; the largest values are those of ``ufm.softmax_code``.

    >>> gnc2(torch.tensor([[3.0, 0.0], [-1.0, 0.0]]))
    2.0
    """
    return one_vs_rest_margin(weight).margin
