"""The losses: one class each, all with the contract of `Loss`."""

from backprop.losses.base import AbsoluteError, Huber, LeastSquares, Loss, Pinball
from backprop.losses.likelihoods import BinaryCrossEntropy, CrossEntropy, GaussianNLL, Poisson
from backprop.losses.members import PerMember

__all__ = ["AbsoluteError", "BinaryCrossEntropy", "CrossEntropy", "GaussianNLL"]
__all__ += ["Huber", "LeastSquares", "Loss", "PerMember", "Pinball", "Poisson"]
