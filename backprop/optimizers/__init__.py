"""The optimizers: one class each, all with the contract of `Optimizer`."""

from backprop.optimizers.adaptive import Adagrad, Adam, AdamW, RMSProp
from backprop.optimizers.base import Optimizer
from backprop.optimizers.sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSProp",
]
