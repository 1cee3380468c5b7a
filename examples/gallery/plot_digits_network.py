"""Collapse of a real network, in a plain PyTorch loop.

A small network learns the 1,797 handwritten digits that come with scikit-learn. After every few epochs one call to
`measure` computes the four measures of neural collapse. NC4 is drawn in units of the network's own logits
(`nc4_relative`), since an untrained network has a small NC4 only because its logits are small.
"""

from itertools import pairwise

import plotly.graph_objects as go
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import measure


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """One hidden layer."""
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]


torch.manual_seed(0)
data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)
widths = [64, 256, 256, 256, 256]
hidden = [layer for a, b in pairwise(widths) for layer in block(a, b)]
model = nn.Sequential(*hidden, nn.Linear(256, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 40, gamma=0.1)

epochs, history = [], []
for epoch in range(1, 121):
    for rows in torch.randperm(len(x)).split(128):
        loss = cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    if epoch % 4 == 0 or epoch < 4:
        epochs.append(epoch)
        history.append(measure(model, [(x, y)]).metrics.to_dict())

figure = go.Figure()
for name in ("nc1", "nc2", "nc3", "nc4_relative"):
    values = [row[name] for row in history]
    figure.add_scatter(x=epochs, y=values, name=name)
    print(f"{name:13} {values[0]:8.4f} -> {values[-1]:8.4f}")
figure.update_layout(xaxis_title="epoch", yaxis_title="measure (zero at collapse)", yaxis_type="log")
figure.show()
