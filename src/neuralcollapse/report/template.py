"""Every page this package writes: one file, offline, escaped, under a policy that runs only its own scripts.

Pages are jinja2 templates that extend ``base.html``. Values are escaped wherever they appear. Data for scripts
travels as JSON in an inert element. The Content-Security-Policy lists the hashes of the page's own scripts and
styles and allows nothing else: no network, no other script, no style attribute.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = "pages"
_HEAD = 8192
"""Bytes of a page that say what it is."""
_PLOTLY_STYLE = "/* plotly adds its rules to this sheet */"


def is_page(path: Path) -> bool:
    """Whether a file is a page that this package wrote."""
    if path.suffix != ".html" or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_HEAD)
    return b'<meta name="generator" content="neuralcollapse">' in start or b"<title>Neural collapse: " in start


def render(
    template: str,
    *,
    title: str,
    figures: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    package: str | None = None,
    **values: Any,
) -> str:
    """Fill a template that extends ``base.html``.

    Args:
        template: its file name, in ``pages/`` of this package or of ``package``.
        title: of the page.
        figures: plotly figures by the id under which the template places them (``parts.figure``).
        data: what scripts read as ``page.data``: plain values, arrays and figures. NaN and infinities become null.
        scripts: texts of further scripts, which run after the figures are drawn.
        styles: texts of further style sheets.
        package: where else to look for templates, such as ``neuralcollapse.paper``.
        values: what the template shows.

    Raises:
        ValueError: if a script or style would end its own element.
    """
    drawn = {name: plain(figure) for name, figure in (figures or {}).items()}
    codes = [*(_plotly() if drawn or data else ()), own("base.js"), *scripts]
    sheets = [own("style.css"), *styles]
    for text in codes + sheets:
        if "</script" in text.lower() or "</style" in text.lower() or "<!--" in text:
            raise ValueError("a script or style holds text that would end its element")
    return _environment(package).get_template(template).render(
        title=title,
        policy=_policy(codes, [*sheets, _PLOTLY_STYLE]),
        styles=[Markup(text) for text in sheets],
        plotly_style=_PLOTLY_STYLE,
        scripts=[Markup(text) for text in codes],
        data=_json({"figures": drawn, **plain(data or {})}),
        **values,
    )  # fmt: skip


def own(name: str) -> str:
    """The text of a script or style of this package."""
    return resources.files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: figures and arrays as lists, and null for NaN and infinities."""
    if hasattr(value, "to_plotly_json"):
        value = json.loads(value.to_json())
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _json(value: Any) -> Markup:
    """JSON for a script element: no character in it can end the element or begin another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> Markup:
    rules = {
        "default-src": ["'none'"],
        "script-src": [_hash(text) for text in scripts],
        "style-src": [_hash(text) for text in styles],
        "img-src": ["data:", "blob:"],  # the icon, pictures of the figures
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return Markup("; ".join(f"{name} {' '.join(sources)}" for name, sources in rules.items()))


@functools.lru_cache(maxsize=16)
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _plotly() -> tuple[str, str]:
    from plotly.offline import get_plotlyjs

    return own("guard.js"), get_plotlyjs()


@functools.cache
def _environment(package: str | None) -> Environment:
    folders = [PackageLoader("neuralcollapse.report", _FOLDER)]
    if package is not None:
        folders.insert(0, PackageLoader(package, _FOLDER))
    environment = Environment(
        loader=ChoiceLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    return environment


def number(value: float | int | None, digits: int = 3) -> str:
    """A measure as a table shows it.

    >>> number(0.034567), number(1.92e-31), number(None), number(12345.0)
    ('0.0346', '1.92e-31', '–', '12,300')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
    return text.replace("-", "−")
