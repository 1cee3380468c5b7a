"""Solvers of the unconstrained feature model: small objects that all end with a certificate."""

from neuralcollapse.ufm.solvers.coordinates import Balanced, value_and_gradient_of
from neuralcollapse.ufm.solvers.first_order import SGD, Adam, GradientDescent
from neuralcollapse.ufm.solvers.lbfgs import LBFGS
from neuralcollapse.ufm.solvers.newton import Newton
from neuralcollapse.ufm.solvers.solve import METHODS, solve
from neuralcollapse.ufm.solvers.solver import Solver

__all__ = [
    "LBFGS",
    "METHODS",
    "SGD",
    "Adam",
    "Balanced",
    "GradientDescent",
    "Newton",
    "Solver",
    "solve",
    "value_and_gradient_of",
]
