"""Plotly figures of runs: the curves, the cosines, the view in space. The page shows the same ones."""

from __future__ import annotations

import contextlib
import html
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuralcollapse.extras import missing
from neuralcollapse.report.history import Frame, History, read_history, simplex

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
"""Okabe and Ito's, which readers with any colour vision can tell apart."""

MEASURES = {
    "nc1": "NC1  within-class variability",
    "nc2": "NC2  classifier to simplex ETF",
    "nc3": "NC3  self-duality",
    "nc4": "NC4  bias",
}


def curves_figure(histories: Sequence[History]) -> go.Figure:
    """NC1 to NC4 on log axes, a line a run."""
    figure = make_subplots(2, 2, subplot_titles=list(MEASURES.values()), vertical_spacing=0.16)
    for index, history in enumerate(histories):
        for place, name in enumerate(MEASURES):
            figure.add_scatter(
                x=next(iter(history.metrics.values())),
                y=[value if value and value > 0 else None for value in history.metrics[name]],
                name=html.escape(history.name),
                line={"color": COLOURS[index % len(COLOURS)], "width": 2},
                legendgroup=str(index),
                showlegend=place == 0 and len(histories) > 1,
                row=place // 2 + 1,
                col=place % 2 + 1,
            )
    figure.update_yaxes(type="log", exponentformat="power", nticks=6)
    figure.update_xaxes(title_text=next(iter(histories[0].metrics)), row=2)
    return laid_out(figure, 560)


def gap_figure(histories: Sequence[History]) -> go.Figure:
    """Duality gap of the unconstrained model on a log axis, a line a run."""
    figure = go.Figure()
    for index, history in enumerate(histories):
        figure.add_scatter(
            x=next(iter(history.metrics.values())),
            y=[value if value and value > 0 else None for value in history.metrics["gap"]],
            name=html.escape(history.name),
            line={"color": COLOURS[index % len(COLOURS)], "width": 2},
        )
    figure.update_yaxes(type="log", exponentformat="power", title_text="duality gap")
    figure.update_xaxes(title_text=next(iter(histories[0].metrics)))
    return laid_out(figure, 320)


def accuracy_figure(histories: Sequence[History]) -> go.Figure:
    """Training accuracy (solid) and test accuracy (dashed), a colour a run."""
    figure = go.Figure()
    for index, history in enumerate(histories):
        for name, dash in (("train_accuracy", "solid"), ("test_accuracy", "dash")):
            label = name.split("_")[0] if len(histories) == 1 else f"{html.escape(history.name)} {name.split('_')[0]}"
            figure.add_scatter(
                x=history.metrics["epoch"],
                y=history.metrics[name],
                name=label,
                line={"color": COLOURS[index % len(COLOURS)], "dash": dash, "width": 2},
            )
    figure.update_yaxes(tickformat=".0%", title_text="accuracy")
    figure.update_xaxes(title_text="epoch")
    return laid_out(figure, 320)


def cosines_figure(frame: Frame) -> go.Figure:
    """Cosines of classifier rows, of centred class means, and of the ones with the others."""
    titles = ("classifier", "class means", "classifier x means")
    figure = make_subplots(1, 3, subplot_titles=titles, horizontal_spacing=0.06)
    for column, cosines in enumerate((frame.weights, frame.means, frame.duality), start=1):
        figure.add_heatmap(
            z=cosines.round(3).tolist(), zmin=-1, zmax=1, colorscale="RdBu", reversescale=True,
            showscale=column == 3, row=1, col=column,
            hovertemplate="class %{y} and %{x}: %{z:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", constrain="domain", dtick=1)
    figure.update_xaxes(constrain="domain", dtick=1)
    for column in (1, 2, 3):
        figure.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", row=1, col=column)
    return laid_out(figure, 340)


def space_figure(frame: Frame, chosen: Sequence[int]) -> go.Figure:
    """The simplex, and on their way to it the means, classifier rows and samples of the chosen classes."""
    figure = go.Figure()
    corners = simplex(len(chosen))
    edges: list[list[float | None]] = [[], [], []]
    for first in range(len(chosen)):
        for second in range(first):
            for axis in range(3):
                edges[axis] += [corners[first, axis], corners[second, axis], None]
    figure.add_scatter3d(
        x=edges[0], y=edges[1], z=edges[2], mode="lines", name="simplex ETF",
        line={"color": "#888888", "width": 3}, hoverinfo="skip",
    )  # fmt: skip
    for index, data in enumerate(space_points(frame, len(chosen))):
        colour = COLOURS[index % len(COLOURS)]
        for part, marker in (("samples", 3), ("mean", 8), ("weight", 0)):
            x, y, z = data[part]
            figure.add_scatter3d(
                x=x, y=y, z=z,
                mode="lines" if part == "weight" else "markers",
                name=f"class {chosen[index]}" if part == "mean" else part,
                legendgroup=str(index), showlegend=part == "mean",
                marker={"size": marker, "color": colour, "opacity": 0.55 if part == "samples" else 1},
                line={"color": colour, "width": 5},
                hovertemplate=f"class {chosen[index]}, {part}<extra></extra>",
            )  # fmt: skip
    scene_axis = {"visible": False, "range": [-1.7, 1.7]}
    figure.update_layout(
        scene={
            "xaxis": scene_axis, "yaxis": scene_axis, "zaxis": scene_axis, "aspectmode": "cube",
            "camera": {"eye": {"x": 0.95, "y": 0.3, "z": 0.35}},
        },
        uirevision="kept",
    )  # fmt: skip
    figure.update_layout(legend={"orientation": "h", "y": 0})
    return laid_out(figure, 520)


def space_points(frame: Frame, classes: int) -> list[dict[str, list[list[float]]]]:
    """For each chosen class the x, y and z of its samples, its mean, and the line to its classifier row."""
    found = []
    for index in range(classes):
        samples = frame.sample_points[frame.sample_classes == index]
        ray = [[0.0, 0.0, 0.0], frame.weight_points[index].tolist()]
        found.append(
            {
                "samples": samples.round(4).T.tolist(),
                "mean": frame.mean_points[index : index + 1].round(4).T.tolist(),
                "weight": [[round(point[axis], 4) for point in ray] for axis in range(3)],
            }
        )
    return found


def write_figures(
    folders: Sequence[Path], output: Path, *, classes: Sequence[int] = (0, 1, 2, 3), format: str = "svg"
) -> list[Path]:
    """Write the figures as files; the cosines and the view in space are those of each run's last epoch.

    Raises:
        ValueError: if the format is neither svg nor png, or a run cannot be drawn.
        ImportError: if kaleido is not installed.
    """
    if format not in ("svg", "png"):
        raise ValueError(f"format={format!r} is unknown: choose svg or png")
    histories = [read_history(folder, classes) for folder in folders]
    figures = {"collapse": curves_figure(histories), "accuracy": accuracy_figure(histories)}
    for history in histories:
        if history.frames:
            figures[f"{history.name}-cosines"] = cosines_figure(history.frames[-1])
            figures[f"{history.name}-space"] = space_figure(history.frames[-1], history.chosen)
    output.mkdir(parents=True, exist_ok=True)
    written = []
    with image_writer():
        for name, figure in figures.items():
            path = output / f"{name}.{format}"
            figure.update_layout(template="plotly_white").write_image(path, width=900, scale=2)
            written.append(path)
    return written


@contextlib.contextmanager
def image_writer() -> Iterator[None]:
    """One browser for many figures, where figures become files.

    Raises:
        ImportError: if kaleido is not installed.
    """
    try:
        import kaleido
    except ImportError as error:
        raise missing("figures", "figures") from error
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)  # tells of every message cut off at the end
    kaleido.start_sync_server(silence_warnings=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The kopts argument")  # of every plotly figure
            yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def laid_out(figure: go.Figure, height: int) -> go.Figure:
    """The look that all figures share."""
    figure.update_layout(
        height=height,
        margin={"l": 48, "r": 12, "t": 36, "b": 40},
        font={"size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        template="none",
    )
    return figure
