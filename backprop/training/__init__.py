"""Minibatch descent, second-order training, their history and their callbacks."""

from backprop.training.callbacks import Callback, EarlyStopping
from backprop.training.history import Epoch, History
from backprop.training.minimize import minimize
from backprop.training.suggest import BatchSizeReport, suggest_batch_size
from backprop.training.trainer import Trainer

__all__ = [
    "BatchSizeReport",
    "Callback",
    "EarlyStopping",
    "Epoch",
    "History",
    "Trainer",
    "minimize",
    "suggest_batch_size",
]
