"""Four losses, one geometry.

Cross-entropy, label smoothing, focal loss and squared error train the same network on the same digits. All four end at
collapsed features whose class means form a simplex, as theory predicts for each of them (Zhou et al. 2022).
"""

from itertools import pairwise

import plotly.graph_objects as go
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from neuralcollapse import measure

data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """One hidden layer."""
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss with γ = 3 (Lin et al. 2017)."""
    log_p = logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    return (-((1 - log_p.exp()) ** 3) * log_p).mean()


LOSSES = {
    "cross-entropy": cross_entropy,
    "label smoothing 0.1": lambda logits, labels: cross_entropy(logits, labels, label_smoothing=0.1),
    "focal 3": focal,
    "squared error": lambda logits, labels: 5 * mse_loss(logits, one_hot(labels, 10).float()),
}

figure = go.Figure()
for name, loss_of in LOSSES.items():
    torch.manual_seed(0)
    widths = [64, 256, 256, 256, 256]
    hidden = [layer for a, b in pairwise(widths) for layer in block(a, b)]
    model = nn.Sequential(*hidden, nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 25, gamma=0.1)
    epochs, values = [], []
    for epoch in range(1, 61):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
        if epoch % 4 == 0:
            found = measure(model, [(x, y)]).metrics
            epochs.append(epoch)
            values.append(found.nc1)
    figure.add_scatter(x=epochs, y=values, name=name)
    print(f"{name:20} NC1 {found.nc1:.4f}   NC2 of the class means {found.nc2_means:.3f}")
figure.update_layout(xaxis_title="epoch", yaxis_title="NC1 (zero at collapse)", yaxis_type="log")
figure.show()
