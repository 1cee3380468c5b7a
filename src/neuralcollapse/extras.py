"""The optional installs: what each brings, and what to say when one is missing."""

from __future__ import annotations

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
