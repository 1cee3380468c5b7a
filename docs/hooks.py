"""Build steps of the documentation site: mathematics as MathML, the measures reference, and the executed gallery."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import tempfile
from html import escape, unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):<code>(.*?)</code>")
PLOTLY = "assets/plotly.min.js"
GREY, GRID = "#868e96", "rgba(134, 142, 150, 0.25)"
AXIS = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GREY, "automargin": True}
TEMPLATE = {
    "layout": {
        "font": {"color": GREY},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": AXIS,
        "yaxis": AXIS,
        "colorway": ["#4c6ef5", "#f76707", "#0ca678", "#ae3ec9", "#fab005", "#15aabf"],
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    }
}
"""Readable on light and dark pages."""
WHERE = {
    "classification": "`measure(model, loader)`, `measure_features` and `collapse_metrics`",
    "multilabel": '`measure(..., task="multilabel")` and `multilabel_metrics`',
    "regression": '`measure(..., task="regression")` and `regression_metrics`',
    "depth": '`measure(..., layers="all")` and the function of that name',
    "attack": "`measure(..., attack=, epsilon=)`",
}
"""Who gives the measures of a family."""
_LANGUAGE = "`measure_language_model`"
GIVEN = {
    "gnc1": "`gnc1(features, labels)`",
    "gnc2": "`gnc2(weight)`",
    "gnc3": "`gnc3(weight, class_means)`",
    "unc3": f"`unc3(weight, class_means)` and {_LANGUAGE}",
    "cdnv_squared": f"`cdnv(moments, exponent=2)` and {_LANGUAGE}",
    "uniformity": f"`hyperspherical_uniformity(vectors)` and {_LANGUAGE}",
    "uniformity_variation": f"`hyperspherical_uniformity(vectors).variation` and {_LANGUAGE}",
    "duality": f"`gnc3(weight, centred_means)` and {_LANGUAGE}",
    "ncc_agreement": _LANGUAGE,
}
"""Who gives the measures that no family gives."""
LOOK = {"margin": {"l": 10, "r": 10, "t": 30, "b": 10}, "height": 420}


def on_config(config: Any) -> Any:
    """List the gallery's pages in the navigation."""
    pages = [{title_and_text(path)[0]: f"gallery/{page_name(path)}.md"} for path in SCRIPTS]
    config.nav = [{"Gallery": ["gallery/index.md", *pages]} if "Gallery" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and plotly's script so that nothing is loaded from the network."""
    import plotly

    script = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    files.append(File.generated(config, PLOTLY, content=script))
    files.append(File.generated(config, "measures.md", content=measures_page()))
    files.append(File.generated(config, "gallery/index.md", content=gallery_index()))
    for path in SCRIPTS:
        files.append(File.generated(config, f"gallery/{page_name(path)}.md", content=gallery_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the counted tables where a page asks for them: ``<!-- faults -->`` and so on."""
    tables = {"faults": faults_table, "mutants": mutants_table, "floors": floors_table}
    return re.sub(r"<!-- (faults|mutants|floors) -->", lambda found: tables[found[1]](), markdown)


def _counted(name: str) -> Any:
    return json.loads((ROOT / "results" / "reliability" / f"{name}.json").read_text(encoding="utf-8"))


def faults_table() -> str:
    """Counts of the fault campaign per work and kind."""
    record = _counted("faults")
    columns = ("injected", "survived", "lost", "wrong", "unclear")
    lines = ["| work | fault | injected | survived | results lost | wrong numbers | unclear end |"]
    lines.append("| --- | --- | --: | --: | --: | --: | --: |")
    for row in record["rows"]:
        lines.append(f"| {row['work']} | {row['fault']} | " + " | ".join(str(row[name]) for name in columns) + " |")
    sums = (f"**{sum(row[name] for row in record['rows'])}**" for name in columns)
    lines.append(f"| **all** | | {' | '.join(sums)} |")
    lines += ["", f"Seed {record['seed']}, {record['minutes']:.0f} minutes on one busy core, torch {record['torch']}."]
    return "\n".join([*lines, record.get("note", "")])


def mutants_table() -> str:
    """Score per package, and the mutants that no test noticed."""
    record = _counted("mutants")
    lines = ["| package | mutants | killed |", "| --- | --: | --: |"]
    lines += [f"| {room} | {count['mutants']} | {count['killed']} |" for room, count in record["rooms"].items()]
    total, killed = (sum(count[name] for count in record["rooms"].values()) for name in ("mutants", "killed"))
    lines += [f"| **all** | **{total}** | **{killed}** ({killed / total:.0%}) |", "", f"Seed {record['seed']}."]
    for survivor, verdict in record["looked_at"].items():
        lines.append(f"\n- `{survivor}`: {verdict}")
    return "\n".join(lines)


def floors_table() -> str:
    """Lowest versions that were tried, and what did not work."""
    record = _counted("floors")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"Tried with {versions}.\n\n" + "\n".join(f"- {line}" for line in record["notes"])


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Turn LaTeX into MathML, which browsers draw without a script."""
    inline = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
    block = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
    html = re.sub(r":math:<code>(.*?)</code>", lambda found: convert(unescape(found[1])), html)
    html = ROLE.sub(_reference, html)
    html = inline.sub(lambda found: convert(unescape(found[1])), html)
    return block.sub(lambda found: _formula(unescape(found[1])), html)


def _formula(latex: str) -> str:
    """A formula on lines of its own, which scrolls where it is wider than a phone."""
    return f'<div style="overflow-x: auto">{convert(latex, display="block")}</div>'


def _reference(found: re.Match[str]) -> str:
    """A cross-reference of a docstring as a link, where the name has an entry on some page."""
    name = unescape(found[1]).lstrip("~")
    shown = name.rpartition(".")[2] if found[1].startswith("~") else name
    return f'<autoref identifier="{escape(name)}" optional><code>{escape(shown)}</code></autoref>'


def page_name(path: Path) -> str:
    """``plot_tetrahedron.py`` becomes ``tetrahedron``."""
    return path.stem.removeprefix("plot_")


def title_and_text(path: Path) -> tuple[str, str]:
    """First line and remainder of a script's docstring."""
    import ast

    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem
    title, _, remainder = text.partition("\n")
    return title.rstrip("."), remainder.strip()


def gallery_index() -> str:
    """One card per script."""
    lines = ["# Gallery", "", "Every figure below was drawn by the script beside it while this site was built.", ""]
    lines += ["If you run a script yourself, its figure opens in your browser. Without a browser, replace its last"]
    lines += ['line, `figure.show()`, by `figure.write_html("figure.html")`.', ""]
    for path in SCRIPTS:
        title, text = title_and_text(path)
        first = re.split(r"(?<=\.)\s", text, maxsplit=1)[0].replace("\n", " ")
        lines += [f"- **[{title}]({page_name(path)}.md)**. {first}"]
    return "\n".join(lines) + "\n"


def gallery_page(path: Path) -> str:
    """Text, figures, printed output and code of one script, run now."""
    title, text = title_and_text(path)
    figures, printed = run_script(path)
    code = re.sub(r'^""".*?"""\n+', "", path.read_text(encoding="utf-8"), count=1, flags=re.DOTALL)
    parts = [f"# {title}", text, *figures]
    if printed.strip():
        parts += ["It prints:", f"```text\n{printed.rstrip()}\n```"]
    parts += ["## The script", f"`python examples/gallery/{path.name}`", f"```python\n{code.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def run_script(path: Path) -> tuple[list[str], str]:
    """Figures and printed output of a script; kept until the script or the package changes."""
    digest = hashlib.sha256(path.read_bytes())
    for source in sorted((ROOT / "src").rglob("*.py")):
        digest.update(source.read_bytes())
    kept = ROOT / "build" / "gallery" / f"{path.stem}-{digest.hexdigest()[:16]}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(executed(path)), encoding="utf-8")
    figures, printed = json.loads(kept.read_text(encoding="utf-8"))
    return figures, printed


def executed(path: Path) -> tuple[list[str], str]:
    """Run a script in an empty folder; its figures as HTML, and what it printed."""
    import plotly.io
    from plotly.io._base_renderers import ExternalRenderer

    figures: list[str] = []

    class Collect(ExternalRenderer):  # type: ignore[misc]
        def render(self, fig_dict: dict[str, Any]) -> None:
            fig_dict["layout"] = {**LOOK, **fig_dict.get("layout", {}), "template": TEMPLATE}
            html = plotly.io.to_html(fig_dict, include_plotlyjs=False, full_html=False, config={"responsive": True})
            tag = f'<script src="../{PLOTLY}"></script>\n' if not figures else ""
            figures.append(f'{tag}<div class="figure">{html}</div>')

    plotly.io.renderers["collect"] = Collect()
    before, folder = plotly.io.renderers.default, Path.cwd()
    printed = io.StringIO()
    plotly.io.renderers.default = "collect"
    try:
        with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(printed):
            os.chdir(empty)
            runpy.run_path(str(path), run_name="__main__")
    finally:
        os.chdir(folder)
        plotly.io.renderers.default = before
    return figures, printed.getvalue()


def measures_page() -> str:
    """The reference of all measures, from the registry that tables and plots use too."""
    from neuralcollapse.geometry.measures import MEASURES

    lines = [(ROOT / "docs" / "measures_intro.md").read_text(encoding="utf-8").rstrip(), ""]
    group = None
    for measure in MEASURES.values():
        if measure.group != group:
            group = measure.group
            lines += [f"## {group.capitalize()}", ""]
        lines += [
            f"### {measure.title} {{#{measure.name}}}",
            "",
            f"`{measure.name}`: {measure.meaning}",
            "",
            f"\\[{measure.formula}\\]",
            "",
            f"- Source: {measure.source}",
            f"- Range: {escape(str(measure.range))}. Ideal value: {measure.ideal}. Direction: {measure.direction}.",
            f"- Given by: {GIVEN.get(measure.name) or WHERE[measure.family]}.",
            f"- Cost: {measure.cost}",
            "",
        ]
    return "\n".join(lines)
