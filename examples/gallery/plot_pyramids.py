"""More classes than dimensions: the landscape is no longer benign.

Five classes in three dimensions do not fit as a simplex. Plain gradient methods then end in two different shapes: a
square pyramid, which is the better one, and a triangular bipyramid, a strict local minimum that is not global. With
d ≥ K - 1 this cannot happen; d = K - 2, as here, is enough to break it.
"""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.optimize import minimize
from scipy.spatial import ConvexHull

from neuralcollapse.ufm import UFM

problem = UFM(5, 10, 3, lambda_w=1e-3, lambda_h=1e-4, lambda_b=1e-2).by_class


def value_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
    """Objective and gradient as SciPy wants them."""
    point = problem.point(vector)
    return problem.objective(point), problem.gradient(point).to_vector()


found: dict[float, np.ndarray] = {}
counts: dict[float, int] = {}
for seed in range(12):
    start = problem.random_point(seed).to_vector()
    end = minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-16, "gtol": 1e-10},
    )
    key = round(end.fun, 5)
    found[key], counts[key] = end.x, counts.get(key, 0) + 1

figure = make_subplots(1, len(found), specs=[[{"type": "scene"}] * len(found)])
for column, value in enumerate(sorted(found), 1):
    corners = problem.point(found[value]).W
    corners = corners / np.linalg.norm(corners, axis=1).max()
    i, j, k = ConvexHull(corners).simplices.T
    x, y, z = corners.T
    figure.add_trace(go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, opacity=0.4, flatshading=True), 1, column)
    figure.add_trace(go.Scatter3d(x=x, y=y, z=z, mode="markers", marker_size=6, showlegend=False), 1, column)
    print(f"objective {value:.5f}: {counts[value]} of 12 random starts")
hidden = {"visible": False, "range": [-1.1, 1.1]}
figure.update_scenes(xaxis=hidden, yaxis=hidden, zaxis=hidden, aspectmode="cube")
figure.update_layout(height=460, margin={"l": 0, "r": 0, "t": 10, "b": 0})
figure.show()
