"""Figures as SVG files that follow the reader's light or dark mode, on a page and on their own."""

from __future__ import annotations

import base64
import re

import plotly.graph_objects as go

_STYLE = """<style>
text { fill: #16191d !important; }
.gridlayer path { stroke: #e3e5e8 !important; }
@media (prefers-color-scheme: dark) {
text { fill: #eceef1 !important; }
.gridlayer path { stroke: #323843 !important; }
.zerolinelayer path, .xlines-above, .ylines-above { stroke: #59626e !important; }
}
</style>"""


def svg_text(figure: go.Figure, width: int) -> str:
    """A figure as SVG; inside :func:`neuralcollapse.report.figures.image_writer`.

    Its colours are its own business: an SVG that a page shows as an image sees the reader's colour scheme.
    """
    picture = figure.to_image("svg", width=width, height=figure.layout.height).decode()
    return re.sub(r"(<svg[^>]*>)", lambda tag: tag[0] + _STYLE, compact(picture), count=1)


def compact(picture: str) -> str:
    """Coordinates to hundredths of a pixel, which makes the file smaller; what a reader sees between tags stays.

    >>> compact('<path d="M0.12345,7"/><text>0.005</text>')
    '<path d="M0.12,7"/><text>0.005</text>'
    """
    return re.sub(
        r"<[^>]*>",
        lambda tag: re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0]),
        picture,
    )


def data_uri(picture: str) -> str:
    """An SVG as the source of an image inside a page."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode()
