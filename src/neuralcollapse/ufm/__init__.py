"""The unconstrained feature model: solve it, certify it, walk its landscape."""

from neuralcollapse.ufm.certificate import Certificate, Direction, Verdict
from neuralcollapse.ufm.codes import SoftmaxCode, softmax_code
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
from neuralcollapse.ufm.targets import TargetGeometry, target_geometry
from neuralcollapse.ufm.thresholds import CollapseThresholds, collapse_thresholds

__all__ = [
    "LOSSES",
    "METHODS",
    "UFM",
    "BinaryCrossEntropy",
    "Certificate",
    "CollapseThresholds",
    "CriticalPoint",
    "CrossEntropy",
    "Direction",
    "Focal",
    "LabelSmoothing",
    "Loss",
    "MeanSquaredError",
    "Point",
    "SoftmaxCode",
    "Solution",
    "Stop",
    "TargetGeometry",
    "Verdict",
    "collapse_thresholds",
    "softmax_code",
    "target_geometry",
]
