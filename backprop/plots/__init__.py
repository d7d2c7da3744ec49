"""Pictures of data, networks and training. They need matplotlib (the extra `backprop-mlp[plots]`), but no display.

Each function takes `ax=`, axes to draw into (as many as it has panels), makes a figure of its own without it, and returns what it
drew into: `ax.figure.savefig("picture.png")` writes it. Nothing is told apart by color alone.
"""

from backprop.plots.animation import animate_training
from backprop.plots.boundary import decision_boundary
from backprop.plots.columns import column_dependence, column_importance
from backprop.plots.curves import batch_size_tradeoff, learning_curves
from backprop.plots.diagram import network_diagram
from backprop.plots.flow import Magnitudes, gradient_check, magnitudes
from backprop.plots.landscape import loss_line, loss_surface
from backprop.plots.matrices import confusion_matrix, weights
from backprop.plots.regression import predicted_against_true, residuals
from backprop.plots.units import units

__all__ = [
    "Magnitudes",
    "animate_training",
    "batch_size_tradeoff",
    "column_dependence",
    "column_importance",
    "confusion_matrix",
    "decision_boundary",
    "gradient_check",
    "learning_curves",
    "loss_line",
    "loss_surface",
    "magnitudes",
    "network_diagram",
    "predicted_against_true",
    "residuals",
    "units",
    "weights",
]
