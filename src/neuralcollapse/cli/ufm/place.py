"""Where a page goes, and what is said of a file that was there before."""

from __future__ import annotations

from pathlib import Path

from neuralcollapse.cli.options import writable


class Place:
    """The file of a command's output; made before the work, so that no result is lost because it cannot be written."""

    def __init__(self, output: Path | None, default: str) -> None:
        path = writable(Path(default) if output is None else output, "--output")
        assert path is not None
        self.path = path
        self._replaces = path.is_file() and path.stat().st_size > 0

    def said(self, label: str) -> str:
        """The line to print once the file is written."""
        return f"{label}: {self.path}" + (" (replaces the file that was there)" if self._replaces else "")
