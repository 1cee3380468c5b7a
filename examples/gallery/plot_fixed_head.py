"""A classifier that need not be learned.

Because the classifier of a collapsed network is a simplex ETF, it can be fixed as one from the start, and the feature
dimension can shrink to the number of classes. All four networks below learn the digits; three of them with fewer
trainable parameters in the head.
"""

import plotly.graph_objects as go
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import fix_classifier, set_feature_dim

data = load_digits()
pixels = torch.tensor(data.data, dtype=torch.float32) / 8 - 1
x, x_test, y, y_test = train_test_split(pixels, torch.tensor(data.target), test_size=0.3, random_state=0)


def network() -> nn.Sequential:
    """A perceptron with two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.BatchNorm1d(256), nn.Linear(256, 10))


models = {
    "learned": network(),
    "fixed": fix_classifier(network()),
    "d = K": set_feature_dim(network(), 10),
    "fixed, d = K": fix_classifier(set_feature_dim(network(), 10)),
}
figure = go.Figure()
for name, model in models.items():
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    accuracies = []
    for _ in range(30):
        model.train()
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracies.append(float((model(x_test).argmax(1) == y_test).float().mean()))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{name:13} {trainable:6,} trainable parameters, test accuracy {accuracies[-1]:.2%}")
    figure.add_scatter(x=list(range(1, 31)), y=accuracies, name=name)
figure.update_layout(xaxis_title="epoch", yaxis_title="test accuracy", yaxis_range=[0.85, 1.0])
figure.show()
