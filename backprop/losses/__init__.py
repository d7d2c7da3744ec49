"""The losses: one class each, all with the contract of `Loss`."""

from backprop.losses.base import Loss
from backprop.losses.classification import BinaryCrossEntropy, CrossEntropy
from backprop.losses.distributions import GaussianNLL, Poisson
from backprop.losses.regression import AbsoluteError, Huber, LeastSquares, Pinball

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "GaussianNLL",
    "Huber",
    "LeastSquares",
    "Loss",
    "Pinball",
    "Poisson",
]
