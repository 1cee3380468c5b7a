"""The table of commands: the one place that knows them all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command of ``neuralcollapse``; its module is imported when the command is used."""

    name: str
    """As it is typed, such as ``train`` or ``ufm solve``."""
    home: str
    """``MODULE:FUNCTION`` below ``neuralcollapse.cli``. The function's parameters are the options, its docstring
    is the help."""
    summary: str
    """One line for the list of commands."""
    if_stopped: str = ""
    """What Ctrl-C leaves, and how to continue."""


COMMANDS = (
    Command(
        "train",
        "train:train",
        "Train a classifier until it collapses, and measure every epoch.",
        "Finished epochs are kept: the same command with --resume continues",
    ),
    Command("measure", "measure:measure", "Measure a model, a run, or stored features."),
    Command("certify", "certify:certify", "Judge how near a trained network is to a proven optimum."),
    Command("verify", "verify:verify", "Check that a run's numbers still follow from its checkpoint and data."),
    Command("report", "report:report", "Draw one or more runs as one offline HTML page."),
    Command("savings", "savings:savings", "Show what a fixed head and smaller features save."),
    Command(
        "reproduce",
        "reproduce:reproduce",
        "Repeat the paper's figures and tables, and judge each claim.",
        "Finished runs and epochs are kept: the same command continues",
    ),
    Command("archive", "archive:archive", "Copy the small files of runs, some kilobytes each."),
    Command("ufm solve", "ufm.solve:solve", "Minimise the objective, with a certificate of optimality."),
    Command("ufm certify", "ufm.certify:certify", "Judge a point of your own: how far is it from optimal?"),
    Command("ufm landscape", "ufm.landscape:landscape", "Draw the way down from a saddle to the optimum."),
    Command("ufm dynamics", "ufm.dynamics:dynamics", "Watch every optimizer collapse."),
    Command("ufm target", "ufm.target:target", "Show the geometry that class sizes and decays imply."),
    Command("ufm thresholds", "ufm.thresholds:thresholds", "Will weight decay erase rare classes?"),
    Command("ufm explore", "ufm.explore:explore", "Find local minima that are not global (d < K - 1)."),
    Command("ufm theorem", "ufm.theorem:theorem", "Check each step of the landscape's proof on critical points."),
    Command("doctor", "doctor:doctor", "Show versions, devices, extras and data that this machine has."),
    Command("completion", "completion:completion", "Complete commands and options in your shell."),
)

GROUPS = {"ufm": "Solve and explore the theory: the unconstrained feature model."}
"""Commands that have commands: what each is about."""
