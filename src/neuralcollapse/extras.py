"""The optional installs: what each brings, and what to say when one is missing."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

EXTRAS = {
    "hf": ("accelerate", "datasets", "timm", "transformers"),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "figures": ("kaleido",),
    "frames": ("pandas",),
    "docs": ("latex2mathml", "mkdocs-material", "mkdocstrings"),
}
"""Extra -> the distributions it brings, as pyproject.toml has them."""


def missing(what: str, extra: str) -> ImportError:
    """The error for something that needs an extra which is not installed; the hint works without a package index.

    >>> print(missing("timm models", "hf"))
    timm models need the extra 'hf': pip install '.[hf]' in the source folder of neuralcollapse
    """
    return ImportError(
        f"{what} need the extra {extra!r}: pip install '.[{extra}]' in the source folder of neuralcollapse"
    )


def check_pictures(what: str = "figures as files") -> None:
    """Whether figures can become files here, before the work: kaleido waits for ever for a browser that is missing.

    Raises:
        ImportError: if kaleido is not installed.
        FileNotFoundError: if there is no Chrome or Chromium.
    """
    if importlib.util.find_spec("kaleido") is None:
        raise missing(what, "figures")
    if browser() is None:
        named = os.environ.get("BROWSER_PATH")
        where = f"BROWSER_PATH={named!r} is no file" if named else "there is none"
        raise FileNotFoundError(
            f"{what} need Chrome or Chromium, and {where}: install it, or run kaleido_get_chrome, which downloads one"
        )


def browser() -> Path | None:
    """The Chrome or Chromium with which kaleido draws; None where there is none, or no kaleido."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    found = os.environ.get("BROWSER_PATH") or Chromium.find_browser(skip_local=False)
    return Path(found) if found and Path(found).is_file() else None
