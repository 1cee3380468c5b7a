"""Draw the animation at the top of the README: four classes of digits collapsing to a tetrahedron.

    python examples/draw_tetrahedron.py docs/assets/tetrahedron.svg

A perceptron learns the digits 0 to 3. Each frame shows the features that enter its classifier, projected on the three
dimensions that their class means span, turned so that the means lie nearest to a fixed tetrahedron. The scale is the
distance of the means from their centre, so what shrinks is the spread within the classes.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse import extract_features, measure, simplex_etf

COLOURS = ("#4c6ef5", "#f76707", "#0ca678", "#ae3ec9")
SIZE, SHOWN, SECONDS = 420, 30, 14
EPOCHS = [*range(0, 10), *range(10, 30, 2), *range(30, 121, 6)]


def train() -> tuple[list[tuple[np.ndarray, np.ndarray]], list[tuple[int, float, float]]]:
    """Coordinates (N, 3) and those of the classifier's rows for each frame, with epoch, NC1 and NC2."""
    torch.manual_seed(0)
    data = load_digits(n_class=4)
    x, y = torch.tensor(data.data, dtype=torch.float32) / 8 - 1, torch.tensor(data.target)
    widths = [64, 128, 128, 128]
    hidden: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        hidden += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    model = nn.Sequential(*hidden, nn.Linear(128, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-3)
    frames, facts = [], []
    for epoch in range(EPOCHS[-1] + 1):
        if epoch in EPOCHS:
            found = extract_features(model, [(x, y)])
            frames.append(coordinates(found.features.numpy(), data.target, model[-1].weight.detach().numpy()))
            metrics = measure(model, [(x, y)]).metrics
            facts.append((epoch, float(metrics.nc1 or 0), float(metrics.nc2 or 0)))
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return frames, facts


def coordinates(features: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and classifier rows in the span of the class means, turned towards a fixed tetrahedron."""
    means = np.stack([features[labels == k].mean(0) for k in range(4)])
    centre = means.mean(0)
    basis = np.linalg.svd(means - centre, full_matrices=False)[2][:3]
    inner = (means - centre) @ basis.T
    corners = np.linalg.svd(simplex_etf(4, 4).double().numpy())[2][:3].T
    left, _, right = np.linalg.svd(inner.T @ corners)
    turn = left @ right
    scale = np.linalg.norm(inner, axis=1).mean()
    shown = np.concatenate([np.flatnonzero(labels == k)[:SHOWN] for k in range(4)])
    rows = (weight - weight.mean(0)) @ basis.T @ turn
    return (features[shown] - centre) @ basis.T @ turn / scale, rows / np.linalg.norm(rows, axis=1).mean()


def project(points: np.ndarray, angle: float) -> np.ndarray:
    """Pixels (N, 2) of points seen from an angle, a little from above."""
    c, s = np.cos(angle), np.sin(angle)
    turned = points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    tilt = np.array([[1, 0, 0], [0, np.cos(0.35), -np.sin(0.35)], [0, np.sin(0.35), np.cos(0.35)]])
    return SIZE / 2 + (turned @ tilt.T)[:, :2] * SIZE * 0.33


def draw(frames: list[tuple[np.ndarray, np.ndarray]], facts: list[tuple[int, float, float]]) -> str:
    """An animated SVG; it holds its last frame for a while and starts again."""
    angles = np.linspace(0.3, 0.3 + 0.75 * np.pi, len(frames))
    held = 10
    seen = [(project(f, a), project(w, a)) for (f, w), a in zip(frames, angles, strict=True)]
    seen += [(project(frames[-1][0], a), project(frames[-1][1], a)) for a in angles[-1] + 0.06 * np.arange(1, held + 1)]
    total = len(seen)
    style = "text{font:15px sans-serif;fill:#868e96}"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}"><style>{style}</style>']

    def animate(name: str, values: np.ndarray) -> str:
        listed = ";".join(f"{value:.1f}" for value in values)
        return f'<animate attributeName="{name}" dur="{SECONDS}s" repeatCount="indefinite" values="{listed}"/>'

    middles = np.array([[dots[k * SHOWN : (k + 1) * SHOWN].mean(0) for k in range(4)] for dots, _ in seen])
    for i, j in itertools.combinations(range(4), 2):
        ends = [
            animate(f"{axis}{end}", middles[:, k, "xy".index(axis)]) for end, k in ((1, i), (2, j)) for axis in "xy"
        ]
        out.append(f'<line stroke="#adb5bd" stroke-width="1">{"".join(ends)}</line>')
    for k, colour in enumerate(COLOURS):
        tips = np.array([rows[k] for _, rows in seen])
        out.append(
            f'<line x1="{SIZE / 2}" y1="{SIZE / 2}" x2="{tips[-1, 0]:.1f}" y2="{tips[-1, 1]:.1f}" stroke="{colour}" '
            f'stroke-width="3">{animate("x2", tips[:, 0])}{animate("y2", tips[:, 1])}</line>'
        )
    for index in range(4 * SHOWN):
        track = np.array([dots[index] for dots, _ in seen])
        out.append(
            f'<circle r="4" cx="{track[-1, 0]:.1f}" cy="{track[-1, 1]:.1f}" fill="{COLOURS[index // SHOWN]}" '
            f'fill-opacity="0.6">{animate("cx", track[:, 0])}{animate("cy", track[:, 1])}</circle>'
        )
    for index, (epoch, nc1, nc2) in enumerate(facts):
        last = total if index == len(facts) - 1 else index + 1
        times = f"0;{index / total:.4f};{min(last / total, 1):.4f}"
        visible = "visible;hidden;hidden" if index == 0 and last < total else "hidden;visible;hidden"
        if index == 0:
            times, visible = f"0;{1 / total:.4f};1", "visible;hidden;hidden"
        elif last == total:
            times, visible = f"0;{index / total:.4f};1", "hidden;visible;visible"
        shown = "visible" if last == total else "hidden"
        out.append(
            f'<text x="12" y="{SIZE - 14}" visibility="{shown}">epoch {epoch}   NC1 {nc1:.3f}   NC2 {nc2:.3f}'
            f'<animate attributeName="visibility" calcMode="discrete" dur="{SECONDS}s" repeatCount="indefinite" '
            f'keyTimes="{times}" values="{visible}"/></text>'
        )
    return "".join([*out, "</svg>\n"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FILE.svg", help="where the picture is written")
    output = parser.parse_args().output
    pictures, numbers = train()
    for shown_epoch, first, second in (numbers[0], numbers[-1]):
        print(f"epoch {shown_epoch}: NC1 {first:.4f}, NC2 {second:.4f}")
    output.write_text(draw(pictures, numbers), encoding="utf-8")
