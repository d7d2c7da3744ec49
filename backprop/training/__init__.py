"""Minibatch descent, second-order training, their history and their callbacks."""

from backprop.training.advice import TrainingAdvice
from backprop.training.averaging import WeightAverage
from backprop.training.callbacks import BestWeights, Callback, Checkpoints, EarlyStopping
from backprop.training.history import Epoch, History
from backprop.training.loggers import CSVLogger, JSONLLogger, MLflowLogger, TensorBoardLogger
from backprop.training.minimize import minimize
from backprop.training.range_test import LearningRateReport, learning_rate_range_test
from backprop.training.suggest import BatchSizeReport, suggest_batch_size
from backprop.training.trainer import Trainer

__all__ = [
    "BatchSizeReport",
    "BestWeights",
    "CSVLogger",
    "Callback",
    "Checkpoints",
    "EarlyStopping",
    "Epoch",
    "History",
    "JSONLLogger",
    "LearningRateReport",
    "MLflowLogger",
    "TensorBoardLogger",
    "Trainer",
    "TrainingAdvice",
    "WeightAverage",
    "learning_rate_range_test",
    "minimize",
    "suggest_batch_size",
]
