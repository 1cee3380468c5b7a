"""The unconstrained feature model: solve it, certify it, walk its landscape."""

from neuralcollapse.ufm.certificate import Certificate, Direction, Verdict
from neuralcollapse.ufm.losses import (
    LOSSES,
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    LabelSmoothing,
    Loss,
    MeanSquaredError,
)
from neuralcollapse.ufm.problem import UFM
from neuralcollapse.ufm.saddles import CriticalPoint
from neuralcollapse.ufm.solution import Point, Solution, Stop
from neuralcollapse.ufm.solvers import METHODS

__all__ = [
    "LOSSES",
    "METHODS",
    "UFM",
    "BinaryCrossEntropy",
    "Certificate",
    "CriticalPoint",
    "CrossEntropy",
    "Direction",
    "Focal",
    "LabelSmoothing",
    "Loss",
    "MeanSquaredError",
    "Point",
    "Solution",
    "Stop",
    "Verdict",
]
