"""Collapse has nothing to do with meaning: random labels.

Digits with labels drawn at random have nothing to generalise. A network that is wide enough still learns them by heart,
and then collapses as it does on true labels; a narrow one does neither (the paper's Figure 5 in miniature).
"""

import torch
from plotly.subplots import make_subplots
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import measure

data = load_digits()
x = torch.tensor(data.data[:1000], dtype=torch.float32) / 8 - 1
y = torch.arange(1000)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))] % 10

widths = [8, 16, 32, 64, 128, 256]
nc1, errors = [], []
for width in widths:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Linear(width, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 60, gamma=0.1)
    for _ in range(150):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    found = measure(model, [(x, y)])
    with torch.no_grad():
        errors.append(float((model(x).argmax(1) != y).float().mean()))
    nc1.append(found.metrics.nc1)
    print(f"width {width:3}: training error {errors[-1]:6.1%}, NC1 {nc1[-1]:.3g}")

figure = make_subplots(specs=[[{"secondary_y": True}]])
figure.add_scatter(x=widths, y=nc1, name="NC1")
figure.add_scatter(x=widths, y=errors, name="training error", line_dash="dot", secondary_y=True)
figure.update_xaxes(title="width", type="log", tickvals=widths)
figure.update_yaxes(title="NC1 (zero at collapse)", type="log", secondary_y=False)
figure.update_yaxes(title="training error", secondary_y=True)
figure.show()
