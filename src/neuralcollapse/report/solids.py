"""Solids spanned by the rows of a classifier in three dimensions, turning: one SVG file without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull

_FRAMES = 72
_SIZE = 260
"""Side of a panel, in pixels."""

_STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #1f2933; text-anchor: middle }
    .note { font-size: 12px; fill: #52606d }
    .face { fill: #2f6fbb; stroke: none }
    .edge { stroke: #1f4e87; stroke-width: 2; stroke-linecap: round }
    .corner { fill: #d9480f }
    @media (prefers-color-scheme: dark) {
      text { fill: #e4e7eb } .note { fill: #9aa5b1 } .face { fill: #63a4ff } .edge { stroke: #9cc4ff }
      .corner { fill: #ff922b }
    }"""


def turning_svg(
    solids: Sequence[tuple[str, str, Float[np.ndarray, "K 3"]]], *, seconds: float = 12.0, description: str = ""
) -> str:
    """Solids side by side, each turning about its first axis; readable in light and dark, without any script.

    Args:
        solids: for each a title, a line below it, and points whose convex hull is drawn.
        seconds: per turn.
        description: what is seen, for those who cannot see it.

    Raises:
        ValueError: if there is no solid, or points are not in three dimensions.
    """
    if not solids:
        raise ValueError("solids is empty: give at least one title, note and points")
    panels = [_panel(index, *solid, seconds) for index, solid in enumerate(solids)]
    width, height = _SIZE * len(solids), _SIZE + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="100%" '
        f'style="max-width: {width}px" role="img" aria-label="{_escape(description)}">\n'
        f"  <style>{_STYLE}\n  </style>\n" + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(index: int, title: str, note: str, points: np.ndarray, seconds: float) -> str:
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points have shape {points.shape}: expected (K, 3)")
    frames = np.stack([_project(_upright(points), 2 * math.pi * frame / _FRAMES) for frame in range(_FRAMES + 1)])
    hull = ConvexHull(points)
    lines = [f'  <g transform="translate({index * _SIZE}, 0)">']
    for face, outline in _faces(hull):
        corners = "; ".join(" ".join(f"{x:.0f},{y:.0f}" for x, y in frame[outline, :2]) for frame in frames)
        # The signed area says whether a face looks at the viewer: near faces are drawn more firmly.
        shown = "; ".join(f"{_opacity(frame[outline]):.2f}" for frame in frames)
        lines.append(
            f'    <polygon class="face" data-face="{face}">{_animate("points", corners, seconds)}'
            f"{_animate('fill-opacity', shown, seconds)}</polygon>"
        )
    for first, second in sorted(_edges(hull)):
        parts = [
            _animate(name, "; ".join(f"{frame[corner, axis]:.0f}" for frame in frames), seconds)
            for name, corner, axis in (("x1", first, 0), ("y1", first, 1), ("x2", second, 0), ("y2", second, 1))
        ]
        depth = "; ".join(f"{0.65 + 0.35 * (frame[first, 2] + frame[second, 2]) / 2:.2f}" for frame in frames)
        lines.append(f'    <line class="edge">{"".join(parts)}{_animate("stroke-opacity", depth, seconds)}</line>')
    for corner in range(len(points)):
        x, y = ("; ".join(f"{frame[corner, axis]:.0f}" for frame in frames) for axis in (0, 1))
        lines.append(
            f'    <circle class="corner" r="5">{_animate("cx", x, seconds)}{_animate("cy", y, seconds)}</circle>'
        )
    middle = _SIZE / 2
    lines.append(f'    <text x="{middle:.0f}" y="{_SIZE + 18}">{_escape(title)}</text>')
    lines.append(f'    <text class="note" x="{middle:.0f}" y="{_SIZE + 40}">{_escape(note)}</text>')
    return "\n".join([*lines, "  </g>"])


def _upright(points: np.ndarray) -> np.ndarray:
    """Centred, of largest norm one, with the most distinct corner on top."""
    centred = points - points.mean(0)
    centred = centred / np.linalg.norm(centred, axis=1).max()
    norms = np.linalg.norm(centred, axis=1)
    top = centred[np.abs(norms - np.median(norms)).argmax()]
    axis = top / np.linalg.norm(top)
    others = np.linalg.svd(axis[None])[2][1:]
    return centred @ np.stack([*others, axis]).T


def _project(points: np.ndarray, angle: float) -> np.ndarray:
    """Screen x and y, and depth in [-1, 1]: turned about the upright axis, seen a little from above."""
    c, s, tilt = math.cos(angle), math.sin(angle), 0.35
    x, y = c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]
    up, depth = math.cos(tilt) * points[:, 2] - math.sin(tilt) * y, math.sin(tilt) * points[:, 2] + math.cos(tilt) * y
    scale = 0.42 * _SIZE * (1 + 0.12 * depth)
    return np.stack([_SIZE / 2 + scale * x, _SIZE / 2 - scale * up, np.clip(depth, -1, 1)], axis=1)


def _faces(hull: ConvexHull) -> list[tuple[int, list[int]]]:
    """Corners of each face in order around it; coplanar triangles are one face."""
    planes: list[tuple[np.ndarray, set[int]]] = []
    for equation, simplex in zip(hull.equations, hull.simplices, strict=True):
        known = next((members for plane, members in planes if np.abs(plane - equation).max() < 1e-4), None)
        if known is None:
            planes.append((equation, set(simplex.tolist())))
        else:
            known.update(simplex.tolist())
    faces = []
    for number, (plane, members) in enumerate(planes):
        corners = np.array(sorted(members))
        flat = (hull.points[corners] - hull.points[corners].mean(0)) @ np.linalg.svd(plane[None, :3])[2][1:].T
        faces.append((number, corners[np.argsort(np.arctan2(flat[:, 1], flat[:, 0]))].tolist()))
    return faces


def _edges(hull: ConvexHull) -> set[tuple[int, int]]:
    outlines = [outline for _, outline in _faces(hull)]
    pairs = [(a, b) for outline in outlines for a, b in zip(outline, [*outline[1:], outline[0]], strict=True)]
    return {(min(pair), max(pair)) for pair in pairs}


def _opacity(corners: np.ndarray) -> float:
    """Firm where the face is in front of the solid's centre."""
    return 0.12 + 0.2 * max(0.0, float(corners[:, 2].mean()))


def _animate(name: str, values: str, seconds: float) -> str:
    first = values.split(";")[0]
    timing = f'dur="{seconds:g}s" repeatCount="indefinite"'
    return f'<animate attributeName="{name}" {timing} from="{first}" values="{values}"/>'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
