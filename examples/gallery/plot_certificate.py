"""How near to the optimum? A certificate on the way.

The objective is not convex, so a small gradient proves nothing. From the predictions at any point, `certify` computes a
lower bound that no point can pass. While gradient descent goes down, the bound goes up; where they meet, the point is
proven to be globally optimal, although the class sizes are unequal and no formula for the optimum is known.
"""

import plotly.graph_objects as go
import torch
from torch.nn.functional import cross_entropy

from neuralcollapse.ufm import UFM, Point

counts = [20, 10, 5, 2]
problem = UFM(4, counts, 4, lambda_w=1e-2, lambda_h=1e-3, lambda_b=1e-2)
labels = torch.arange(4).repeat_interleave(torch.tensor(counts))
torch.manual_seed(0)
W = (0.3 * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
H = (0.3 * torch.randn(4, len(labels), dtype=torch.float64)).requires_grad_()
b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
optimizer = torch.optim.SGD([{"params": [W, b], "lr": 1.0}, {"params": [H], "lr": 10.0}], momentum=0.9)

steps, values, bounds = [], [], []
for step in range(1501):
    if step % 50 == 0:
        found = problem.certify(Point(W.detach().numpy(), H.detach().numpy(), b.detach().numpy()))
        steps.append(step)
        values.append(found.value)
        bounds.append(found.lower_bound)
    loss = cross_entropy((W @ H + b[:, None]).T, labels)
    decay = 1e-2 / 2 * W.square().sum() + 1e-3 / 2 * H.square().sum() + 1e-2 / 2 * b.square().sum()
    optimizer.zero_grad()
    (loss + decay).backward()
    optimizer.step()

print(f"value {values[-1]:.8f}, certified lower bound {bounds[-1]:.8f}")
figure = go.Figure()
figure.add_scatter(x=steps, y=values, name="objective")
figure.add_scatter(x=steps, y=bounds, name="certified lower bound")
figure.update_layout(xaxis_title="gradient step", yaxis_title="objective", yaxis_range=[0, max(values[:2])])
figure.show()
