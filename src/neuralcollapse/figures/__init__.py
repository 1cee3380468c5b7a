"""Figures in one call: curves, cosine maps, layers, and the simplex in three dimensions."""

from neuralcollapse.figures.cosines import plot_cosines
from neuralcollapse.figures.curves import plot_measures
from neuralcollapse.figures.layers import plot_layers
from neuralcollapse.figures.simplex import plot_simplex
from neuralcollapse.figures.values import plot_values

__all__ = ["plot_cosines", "plot_layers", "plot_measures", "plot_simplex", "plot_values"]
