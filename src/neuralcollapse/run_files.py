"""Names of the files of a run folder. They come without torch: the command line looks for a run before it loads it."""

from __future__ import annotations

METRICS = "metrics.csv"
CONFIG = "config.yaml"
SNAPSHOTS = "snapshots"
REPORT = "report.html"
