"""``neuralcollapse verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from neuralcollapse.cli.options import writable, write_json
from neuralcollapse.run_files import CONFIG
from neuralcollapse.train.config import PATH


def verify(run: Path, /, *, data_root: Annotated[str | None, PATH] = None, json: Path | None = None) -> None:
    """Check that a run's numbers still follow from its checkpoint and data.

    The last row is measured again from last.ckpt. The configuration, every row of metrics.csv, and the hash of the
    pixels and labels are compared with what the checkpoint recorded. If anything changed, the command names it and
    exits with code 1.

    For example:
      neuralcollapse verify runs/digits-mlp-sgd-seed0
      neuralcollapse verify runs/mnist-resnet18-sgd-seed0 --data-root /data --json verified.json

    Args:
        run: Run folder made by neuralcollapse train.
        data_root: Folder of torchvision's data sets, if it is elsewhere now.
        json: Write the result to this file as well.
    """
    if not (run / CONFIG).is_file():
        raise FileNotFoundError(f"no configuration at {run / CONFIG}: is its folder a run?")
    writable(json, "--json")
    from neuralcollapse.train.verify import verify as verify_run

    found = verify_run(run, data_root=data_root)
    print(found)
    write_json(json, found.to_dict())
    if not found.holds:
        sys.exit(1)
