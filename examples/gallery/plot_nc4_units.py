"""Why NC4 can rise while the bias collapses.

NC4 is the length of b + W h_G, in the units of the logits. An untrained network has tiny logits, and so a tiny NC4.
Divided by the size of the logits themselves (`nc4_relative`) the same quantity falls steadily during training.
"""

import plotly.graph_objects as go
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import measure

torch.manual_seed(0)
data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)

epochs, history = [], []
for epoch in range(81):
    if epoch % 4 == 0:
        epochs.append(epoch)
        history.append(measure(model, [(x, y)]).metrics)
    for rows in torch.randperm(len(x)).split(128):
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()

figure = go.Figure()
for name in ("nc4", "nc4_relative"):
    values = [getattr(found, name) for found in history]
    figure.add_scatter(x=epochs, y=values, name=name)
    print(f"{name:13} untrained {values[0]:.3f}, trained {values[-1]:.3f}")
figure.update_layout(xaxis_title="epoch", yaxis_title="measure", yaxis_type="log")
figure.show()
