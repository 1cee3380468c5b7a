"""The unconstrained feature model: solve it, certify it, walk its landscape."""

from neuralcollapse.ufm.certificate import Certificate, Direction, Verdict
from neuralcollapse.ufm.problem import UFM, Point
from neuralcollapse.ufm.saddles import CriticalPoint
from neuralcollapse.ufm.solvers import METHODS, Solution, Stop

__all__ = ["METHODS", "UFM", "Certificate", "CriticalPoint", "Direction", "Point", "Solution", "Stop", "Verdict"]
