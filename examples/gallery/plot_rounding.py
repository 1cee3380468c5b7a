"""Why is NC1 negative elsewhere, and never here?

The usual script computes Σ_W as E[xxᵀ] - E[x]E[x]ᵀ in float32 and multiplies it by a pseudo-inverse. Near collapse the
two terms agree in almost all digits, and their difference is rounding: NC1 comes out wrong, or negative. This package
centres the features on their class means first, and agrees with float64 down to the deepest collapse.
"""

import numpy as np
import plotly.graph_objects as go
import torch

from neuralcollapse import measure_features

rng = np.random.default_rng(0)
K, D, N = 10, 64, 200
labels = np.repeat(np.arange(K), N)
centres = rng.normal(size=(K, D)) + 10  # an offset, as behind a ReLU
noise = rng.normal(size=(K * N, D))


def textbook(x: np.ndarray) -> float:
    """tr(Σ_W Σ_B†)/K from second moments, in the precision of x."""
    means = np.stack([x[labels == k].mean(0) for k in range(K)])
    centred = means - means.mean(0)
    within = x.T @ x / len(x) - means.T @ means / K
    return float(np.trace(within @ np.linalg.pinv(centred.T @ centred / K, rcond=1e-5)) / K)


spreads = np.geomspace(1e-6, 1, 25)
truth, naive, ours = [], [], []
for spread in spreads:
    exact = centres[labels] + spread * noise
    single = exact.astype(np.float32)
    double = single.astype(np.float64)
    means = np.stack([double[labels == k].mean(0) for k in range(K)])
    inside = double - means[labels]
    centred = means - means.mean(0)
    # The between-class directions number K - 1 = 9 of 64, so the pseudo-inverse is cut there.
    inverse = np.linalg.pinv(centred.T @ centred / K, rcond=1e-10)
    truth.append(np.trace(inside.T @ inside / len(double) @ inverse) / K)
    naive.append(textbook(single))
    ours.append(measure_features(torch.from_numpy(single), torch.from_numpy(labels)).nc1)

negative = sum(value < 0 for value in naive)
print(f"textbook formula in float32: {negative} of {len(naive)} values are negative")
print(f"this package: largest relative error {np.max(np.abs(np.array(ours) / truth - 1)):.1e}")
figure = go.Figure()
figure.add_scatter(x=spreads, y=truth, name="float64", line_width=6, opacity=0.4)
figure.add_scatter(x=spreads, y=np.abs(naive), name="textbook formula, float32 (absolute value)", mode="markers")
figure.add_scatter(x=spreads, y=ours, name="measure_features, float32", line_dash="dot")
figure.update_layout(xaxis_title="spread within classes", yaxis_title="NC1", xaxis_type="log", yaxis_type="log")
figure.show()
