"""Out-of-distribution scores from collapsed features: NECO.

A network learns the digits 0 to 6. Features of the digits it never saw (7, 8, 9) lie less in the span of the class
means than features of the digits it knows, and NECO measures just that (Ben Ammar et al. 2024).
"""

import numpy as np
import plotly.graph_objects as go
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import NECO, ClassStatistics

torch.manual_seed(0)
data = load_digits()
x, y = torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)
known = y < 7
train = known & (torch.arange(len(y)) % 4 > 0)
body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
head = nn.Linear(128, 7)
optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.05, momentum=0.9, weight_decay=2e-3)
inputs, labels = x[train], y[train]
for _ in range(60):
    for rows in torch.randperm(len(inputs)).split(128):
        optimizer.zero_grad()
        cross_entropy(head(body(inputs[rows])), labels[rows]).backward()
        optimizer.step()

with torch.no_grad():
    statistics = ClassStatistics(7, 128)
    statistics.update(body(inputs), labels)
    neco = NECO(statistics)
    seen = neco.score(body(x[known & ~train])).numpy()
    unseen = neco.score(body(x[~known])).numpy()
area = roc_auc_score(np.repeat([1, 0], [len(seen), len(unseen)]), np.concatenate([seen, unseen]))
print(f"area under the ROC curve {area:.3f}: known digits against unknown ones")
figure = go.Figure()
figure.add_histogram(x=seen, name="digits 0 to 6 (known)", opacity=0.7, histnorm="probability", nbinsx=40)
figure.add_histogram(x=unseen, name="digits 7 to 9 (unknown)", opacity=0.7, histnorm="probability", nbinsx=40)
figure.update_layout(barmode="overlay", xaxis_title="NECO score", yaxis_title="share of images")
figure.show()
