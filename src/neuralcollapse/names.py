"""The names of data sets and models, checked without loading torch, so that a typo is answered at once."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from neuralcollapse.extras import missing

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "imagefolder:PATH", "hf:ID_OR_PATH")
LAYOUT = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}
"""Where torchvision keeps a data set, below the folder of its data sets."""
BACKBONES = ("mlp", "convnet", "resnet18", "resnet50")


def check_dataset(name: str) -> None:
    """Accept a data set that the package can look for.

    Raises:
        ValueError: if no data set has this name; it suggests the nearest ones.

    >>> check_dataset("imagefolder:photos")
    >>> check_dataset("mnits")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: unknown dataset 'mnits': did you mean mnist? Choose digits, ...
    """
    source, separator, path = name.partition(":")
    sources = {known.partition(":")[0]: ":" in known for known in DATASETS}
    if source not in sources or bool(separator) != sources[source] or (separator and not path):
        guess = did_you_mean(source, [known for known in sources if known != source])
        raise ValueError(f"unknown dataset {name!r}:{guess and f' {guess}'} {_choose(DATASETS, guess)}")


def check_model(name: str) -> None:
    """Accept a model that the package, torchvision or timm can build.

    The libraries' names are read from their files, because importing either library takes seconds.

    Raises:
        ValueError: if no model has this name; it suggests the nearest ones.
        ImportError: if it is timm's, and timm is not installed.

    >>> check_model("mlp")
    >>> check_model("resnet19")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: unknown model 'resnet19': did you mean resnet18? Choose mlp, ...
    """
    source, separator, architecture = name.rpartition(":")
    if separator and source in ("torchvision", "timm"):
        known = library_models(source)
        if source == "timm" and not known:
            raise missing("timm: models", "hf")
        if known:
            check_library_model(architecture.partition(".")[0] if source == "timm" else architecture, known, source)
    elif name not in BACKBONES:
        raise unknown_model(name)


def unknown_model(name: str) -> ValueError:
    """The error for a name that is no model's, with the nearest ones."""
    guess = did_you_mean(name, (*BACKBONES, *(f"torchvision:{known}" for known in library_models("torchvision"))))
    choices = f"{', '.join(BACKBONES)}, torchvision:NAME or timm:NAME"
    return ValueError(f"unknown model {name!r}:{guess and f' {guess}'} {_choose([choices], guess)}")


def check_library_model(name: str, known: Sequence[str], library: str) -> None:
    """Accept a name that the library lists.

    Raises:
        ValueError: otherwise; it lists the nearest names.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or list(known[:3])
        raise ValueError(f"{library} has no model {name!r}; close names: {', '.join(close)}")


def library_models(library: str) -> list[str]:
    """Names that an installed torchvision or timm registers, in order; none if it is not installed."""
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        return []
    registered = re.compile(r"^@register_model(?:\(\))?\n(?:[^\n]*\n)*?def (\w+)\(", re.MULTILINE)
    folder = Path(found.origin).parent / "models"
    return sorted({name for file in folder.glob("*.py") for name in registered.findall(file.read_text("utf-8"))})


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that offers the nearest known name, or nothing where none is near.

    >>> did_you_mean("tarin", ["train", "measure"])
    'did you mean train?'
    >>> did_you_mean("xyz", ["train", "measure"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _choose(known: Sequence[str], guess: str) -> str:
    return f"{'Choose' if guess else 'choose'} {', '.join(known)}"
