"""Minibatch descent: the trainer, its history and its callbacks."""

from backprop.training.callbacks import Callback, EarlyStopping
from backprop.training.history import Epoch, History
from backprop.training.trainer import Trainer

__all__ = ["Callback", "EarlyStopping", "Epoch", "History", "Trainer"]
