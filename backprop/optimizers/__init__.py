"""The optimizers: one class each, all with the contract of `Optimizer`."""

from backprop.optimizers.adaptive import Adagrad, Adam, AdamW, RMSProp
from backprop.optimizers.base import PIECE, Optimizer
from backprop.optimizers.sgd import SGD

__all__ = [
    "PIECE",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSProp",
]
