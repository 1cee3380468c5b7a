"""What timed numbers depend on."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Versions, the processor, and what else the machine was doing."""
    from neuralcollapse.train.provenance import processor  # loads Lightning, which would count in a peak of memory

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }
