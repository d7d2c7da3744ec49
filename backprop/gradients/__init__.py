"""What the gradient is, and proof of it."""

from backprop.gradients.check import Entry, GradientReport, check_gradients
from backprop.gradients.explain import Explanation, explain

__all__ = ["Entry", "Explanation", "GradientReport", "check_gradients", "explain"]
