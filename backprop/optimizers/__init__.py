"""The optimizers: one class each, all with the contract of `Optimizer`."""

from backprop.optimizers.adaptive import Adagrad, Adam, AdamW, RMSProp
from backprop.optimizers.base import SGD, Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSProp"]
