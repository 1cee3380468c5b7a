"""Reports: the pages of runs and of the unconstrained model, and figures as files."""

from neuralcollapse.report.figures import write_figures
from neuralcollapse.report.history import RunSkipped
from neuralcollapse.report.page import write_report

__all__ = ["RunSkipped", "write_figures", "write_report"]
