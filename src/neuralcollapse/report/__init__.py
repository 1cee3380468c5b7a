"""Figures of runs, and one self-contained page."""

from neuralcollapse.report.figures import write_figures
from neuralcollapse.report.page import write_report

__all__ = ["write_figures", "write_report"]
