"""Every measure from its formula, in NumPy's long double: no code is shared with the package."""

from __future__ import annotations

import numpy as np

Real = np.longdouble


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Gaussian elimination with partial pivoting: NumPy's own has no long double."""
    a, x = matrix.astype(Real).copy(), right.astype(Real).copy()
    n = len(a)
    for k in range(n):
        pivot = k + int(np.abs(a[k:, k]).argmax())
        a[[k, pivot]], x[[k, pivot]] = a[[pivot, k]], x[[pivot, k]]
        factor = a[k + 1 :, k] / a[k, k]
        a[k + 1 :] -= factor[:, None] * a[k]
        x[k + 1 :] -= factor[:, None] * x[k]
    for k in range(n - 1, -1, -1):
        x[k] = (x[k] - a[k, k + 1 :] @ x[k + 1 :]) / a[k, k]
    return x


def class_moments(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of the classes present, the deviations from them, and the traces of their covariances."""
    x = x.astype(Real)
    classes = np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in classes])
    means += np.stack([(x[y == c] - m).mean(0) for c, m in zip(classes, means, strict=True)])
    deviations = x - means[np.searchsorted(classes, y)]
    traces = np.array([(deviations[y == c] ** 2).sum(1).mean() for c in classes], dtype=Real)
    return means, deviations, traces


def nc1(means: np.ndarray, deviations: np.ndarray, weights: np.ndarray) -> Real:
    """tr(Σ_W Σ_B†)/K, Σ_W weighing sample i by ``weights``; for means of full rank min(K - 1, d)."""
    k, d = means.shape
    # Sums to zero over classes: differences to the first mean, orthonormalised over classes by Helmert's matrix.
    j = np.arange(1, k, dtype=Real)
    basis = np.stack([np.r_[np.ones(i, Real), -Real(i), np.zeros(k - 1 - i, Real)] for i in range(1, k)])
    basis /= np.sqrt(j * (j + 1))[:, None]
    spread = basis @ means  # (k-1) x d, with spread' spread = centred' centred
    if k - 1 <= d:
        shadows = solve(spread @ spread.T, spread @ deviations.T)
        return (weights * (shadows**2).sum(0)).sum()
    shadows = solve(spread.T @ spread, deviations.T)
    return (weights * (deviations.T * shadows).sum(0)).sum()


def frame_distance(left: np.ndarray, right: np.ndarray) -> Real:
    """Equations (8) and (9)."""
    k = len(left)
    gram = (left / np.abs(left).max()) @ (right / np.abs(right).max()).T
    ideal = (np.eye(k, dtype=Real) - Real(1) / k) / np.sqrt(Real(k - 1))
    return np.sqrt(((gram / np.sqrt((gram**2).sum()) - ideal) ** 2).sum())


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosines of all ordered pairs of different rows."""
    units = vectors / np.sqrt((vectors**2).sum(1))[:, None]
    return (units @ units.T)[~np.eye(len(units), dtype=bool)]


def variation(vectors: np.ndarray) -> Real:
    """Coefficient of variation of the rows' norms."""
    norms = np.sqrt((vectors**2).sum(1))
    return norms.std() / norms.mean()


def measures(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None, bias: np.ndarray | None = None
) -> dict[str, Real]:
    """All of them but the two NC1, for the classes present; the classifier's rows are those of these classes."""
    means, _, traces = class_moments(x, y)
    k, n = len(means), np.bincount(y)[np.unique(y)]
    centred = means - means.mean(0)
    pairs = [
        (traces[i] + traces[j]) / (2 * ((means[i] - means[j]) ** 2).sum()) for i in range(k) for j in range(i + 1, k)
    ]
    angles = cosines(centred)
    found = {
        "cdnv": np.mean(np.array(pairs, dtype=Real)),
        "nc1_quotient": (n @ traces / n.sum()) / ((centred**2).sum() / k),
        "nc2_means": frame_distance(centred, centred),
        "equinorm_means": variation(centred),
        "equiangularity_means": angles.std(),
        "max_equiangularity_means": np.abs(angles + Real(1) / (k - 1)).mean(),
    }
    if weight is None:
        return found
    w = weight.astype(Real)
    b = np.zeros(k, Real) if bias is None else bias.astype(Real)
    offset = b + w @ (n @ means / n.sum())
    angles = cosines(w)
    found |= {
        "nc2": frame_distance(w, w),
        "nc3": frame_distance(w, centred),
        "nc4": np.sqrt((offset**2).sum()),
        "nc4_relative": np.sqrt((offset**2).sum() / (((w @ centred.T) ** 2).sum() / k)),
        "equinorm_weights": variation(w),
        "equiangularity_weights": angles.std(),
        "max_equiangularity_weights": np.abs(angles + Real(1) / (k - 1)).mean(),
        "self_duality": ((w / np.sqrt((w**2).sum()) - centred / np.sqrt((centred**2).sum())) ** 2).sum(),
    }
    if bias is not None:
        found["bias_spread"] = b.std()
    return found


def nearest(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest class centre of each sample, and by how much, relatively, it is nearer than the next."""
    means, _, _ = class_moments(x, y)
    distances = np.stack([((x.astype(Real) - m) ** 2).sum(1) for m in means], 1)
    ordered = np.sort(distances, 1)
    margin = (ordered[:, 1] - ordered[:, 0]) / ordered[:, 1].clip(min=np.finfo(Real).tiny)
    return np.unique(y)[distances.argmin(1)], margin
