"""Collapse layer by layer.

Each layer of a trained network separates the classes a little better than the one before. The measure tr(Σ_W Σ_B†)
falls by about the same factor per layer: the *law of data separation* (He and Su 2023). An untrained network of the
same shape shows no such fall.
"""

from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import measure

torch.manual_seed(0)
data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)
widths = [64] + 6 * [128]
blocks = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(widths)]
model = nn.Sequential(*blocks, nn.Linear(128, 10))
layers = [str(depth) for depth in range(6)]


def nc1_per_layer() -> list[float]:
    """NC1 of each block's output."""
    report = measure(model, [(x, y)], layers=layers)
    return [report.layers[name].nc1 for name in layers]


before = nc1_per_layer()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
for _ in range(40):
    for rows in torch.randperm(len(x)).split(128):
        loss = cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
after = nc1_per_layer()

depth = np.arange(1, 7)
slope, level = np.polyfit(depth, np.log(after), 1)
print(f"after training each layer multiplies NC1 by {np.exp(slope):.2f}")
figure = go.Figure()
figure.add_scatter(x=depth, y=before, name="untrained")
figure.add_scatter(x=depth, y=after, name="trained")
figure.add_scatter(x=depth, y=np.exp(level + slope * depth), line_dash="dot", name="fitted law")
figure.update_layout(xaxis_title="layer", yaxis_title="NC1", yaxis_type="log")
figure.show()
