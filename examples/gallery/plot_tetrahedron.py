"""The tetrahedron forming.

Four classes of free features in three dimensions, and a linear classifier on top, both trained by gradient descent on
regularised cross-entropy. Nothing asks for a tetrahedron: it is the only global minimum (Zhu et al. 2021, Theorem 3.1).
Press play: the dots are features, the lines are the four rows of the classifier. At the end each class is one point,
the four points are the corners of a regular tetrahedron, and each row of the classifier points at its own class.
"""

import plotly.graph_objects as go
import torch
from torch.nn.functional import cross_entropy

from neuralcollapse import measure_features

CLASSES, SAMPLES = 4, 12
COLOURS = ["#636efa", "#ef553b", "#00cc96", "#ab63fa"]

torch.manual_seed(1)
labels = torch.arange(CLASSES).repeat_interleave(SAMPLES)
features = torch.randn(len(labels), 3, requires_grad=True)
weight = torch.randn(CLASSES, 3, requires_grad=True)
optimizer = torch.optim.SGD([{"params": [features], "lr": 20.0}, {"params": [weight], "lr": 0.5}])


def picture() -> list[go.Scatter3d]:
    """Features as dots, the classifier's rows as lines, each scaled to a largest norm of one."""
    dots = features.detach() / features.detach().norm(dim=1).max()
    rows = weight.detach() / weight.detach().norm(dim=1).max()
    shown = []
    for k, colour in enumerate(COLOURS):
        x, y, z = dots[labels == k].T.tolist()
        shown.append(
            go.Scatter3d(x=x, y=y, z=z, mode="markers", marker={"size": 4, "color": colour}, name=f"class {k}")
        )
        ends = [[0.0, end] for end in rows[k].tolist()]
        shown.append(
            go.Scatter3d(
                x=ends[0], y=ends[1], z=ends[2], mode="lines", line={"width": 6, "color": colour}, showlegend=False
            )
        )
    return shown


frames = []
for step in range(4001):
    if step in (0, 5, 10, 20, 30, 40, 60, 80, 120, 160, 220, 300, 400, 600, 800, 1200, 2000, 4000):
        frames.append(go.Frame(data=picture(), name=str(step)))
    loss = cross_entropy(features @ weight.T, labels)
    penalty = 0.005 / 2 * weight.square().sum() + 0.0005 / 2 * features.square().sum()
    optimizer.zero_grad()
    (loss + penalty).backward()
    optimizer.step()

found = measure_features(features.detach(), labels, weight.detach())
print(f"NC1 {found.nc1:.1e}   NC2 {found.nc2:.1e}   NC3 {found.nc3:.1e}   (all zero at collapse)")

play = {
    "type": "buttons",
    "buttons": [
        {"label": "play", "method": "animate", "args": [None, {"frame": {"duration": 300}, "fromcurrent": True}]}
    ],
}
steps = [
    {"label": f.name, "method": "animate", "args": [[f.name], {"mode": "immediate", "frame": {"duration": 0}}]}
    for f in frames
]
axis = {"range": [-1.1, 1.1], "visible": False}
figure = go.Figure(data=frames[0].data, frames=frames)
figure.update_layout(
    scene={
        "xaxis": axis,
        "yaxis": axis,
        "zaxis": axis,
        "aspectmode": "manual",
        "aspectratio": {"x": 2, "y": 2, "z": 2},  # fills the box
        "camera": {"projection": {"type": "orthographic"}},
    },
    legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1},
    updatemenus=[play],
    sliders=[{"steps": steps, "currentvalue": {"prefix": "gradient step "}}],
    height=560,
    margin={"l": 0, "r": 0, "t": 20, "b": 0},
)
figure.show()
