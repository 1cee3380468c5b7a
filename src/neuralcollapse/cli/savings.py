"""``neuralcollapse savings``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from neuralcollapse.cli.models import check_file, file_and_function, user_model
from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.names import BACKBONES, check_model

_MEMORY = Parameter(group=Group("Memory", sort_key=2))


def savings(
    model: str,
    /,
    *,
    classes: int | None = None,
    feature_dim: int | None = None,
    classifier: str | None = None,
    json: Path | None = None,
    memory: Annotated[bool, _MEMORY] = False,
    image_size: Annotated[int, _MEMORY] = 224,
    batch_size: Annotated[int, _MEMORY] = 8,
) -> None:
    """Show the parameters, gradients, optimizer state and memory that a model needs.

    Compares the model as it is, with a fixed ETF head, with d = K features, and with both. --memory also runs
    training steps of SGD and Adam on random images and measures their memory: seconds for a resnet18, about two
    minutes for a resnet50 on two cores.

    For example:
      neuralcollapse savings resnet50                         # K = 1,000: the fixed head saves 8.01%
      neuralcollapse savings resnet18 --classes 10 --memory --image-size 32
      neuralcollapse savings timm:convnext_tiny               # pip install '.[hf]'
      neuralcollapse savings my_model.py:build --feature-dim 20

    Args:
        model: torchvision's name (resnet50), mlp, convnet, timm:NAME or FILE.py:FUNCTION.
        classes: K, the number of classes. By default 1000; FILE.py:FUNCTION chooses its own.
        feature_dim: Dimension of the smaller features. By default K.
        classifier: Name of the classifier layer, if the command cannot find it.
        json: Write the numbers to this file as well.
        memory: Also run training steps and measure their memory.
        image_size: Side of the images for --memory.
        batch_size: Number of images for --memory.
    """
    if classes is not None and classes < 2:
        raise ValueError(f"classes={classes} must be at least 2")
    if batch_size < 2 or image_size < 1:
        raise ValueError("--batch-size must be at least 2 (for batch normalisation), and --image-size at least 1")
    own = file_and_function(model)
    named = model if ":" in model or model in BACKBONES else f"torchvision:{model}"
    if own is None:
        check_model(named)
    else:
        check_file(own[0])
        if classes is not None:
            raise ValueError("--classes belongs to models made by name: FUNCTION chooses its own")
    path = writable(json, "--json")
    import torch
    from rich.console import Console

    from neuralcollapse import parameter_savings
    from neuralcollapse.nn import build_backbone

    shape = (3, image_size, image_size)
    network = user_model(*own) if own else build_backbone(named, classes or 1000, shape)
    found = parameter_savings(
        network,
        inputs=torch.randn(batch_size, *shape) if memory else None,
        feature_dim=feature_dim,
        classifier=classifier,
        watch=_progress(),
    )
    Console().print(found.table())
    write_json(path, found.to_dict())


def _progress() -> Callable[[int, int, str], None]:
    """A line for each variant, with the time that is left as far as the ones before it tell."""
    began = time.monotonic()

    def watch(place: int, number: int, name: str) -> None:
        spent = time.monotonic() - began
        left = f", about {spent / (place - 1) * (number - place + 1):.0f} s left" if place > 1 else ""
        print(f"memory {place} of {number}: {name}{left}", file=sys.stderr, flush=True)

    return watch
