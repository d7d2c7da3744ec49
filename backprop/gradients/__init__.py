"""What the gradient is, and proof of it."""

from backprop.gradients.check import check_function, check_gradients
from backprop.gradients.curvature import (
    Curvature,
    fisher_product,
    gauss_newton_product,
    hessian_eigenvalues,
    hessian_product,
    learning_rate_ceiling,
)
from backprop.gradients.explain import Explanation, explain
from backprop.gradients.jacobian import input_gradient, jacobian
from backprop.gradients.noise import NoiseScale, gradient_noise_scale
from backprop.gradients.per_example import per_example_gradient_norms, per_example_gradients
from backprop.gradients.report import Entry, GradientReport, Tensor

__all__ = [
    "Curvature",
    "Entry",
    "Explanation",
    "GradientReport",
    "NoiseScale",
    "Tensor",
    "check_function",
    "check_gradients",
    "explain",
    "fisher_product",
    "gauss_newton_product",
    "gradient_noise_scale",
    "hessian_eigenvalues",
    "hessian_product",
    "input_gradient",
    "jacobian",
    "learning_rate_ceiling",
    "per_example_gradient_norms",
    "per_example_gradients",
]
