"""What may watch `fit` and stop it."""

from __future__ import annotations

import math
from typing import Protocol

from backprop import checks
from backprop.checks import Array
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.training.history import Epoch


class Training(Protocol):
    """What a callback may look at: the `Trainer`, or the like of it in `minimize`."""

    net: Sequential
    loss: Loss


class Callback:
    """Override what you need; all of them do nothing here. `trainer` has the network as `trainer.net`.

    >>> class Printer(Callback):
    ...     def epoch(self, trainer, record):
    ...         print(record.epoch, record.loss)
    """

    def start(self, trainer: Training) -> None:
        """Before the first epoch of a `fit`."""

    def epoch(self, trainer: Training, record: Epoch) -> bool | None:
        """After each epoch; True stops training."""
        return None

    def end(self, trainer: Training) -> None:
        """After the last epoch, also when training was stopped."""


class EarlyStopping(Callback):
    """Stops when `monitor` has not improved for `patience` epochs, and restores the best weights.

    `monitor` is a column of the history; the default takes the validation loss where there is validation data, else the loss.
    An epoch improves when it is better than the best by more than `min_delta`; `mode` is "min", or "max" for an accuracy.
    Weights and running statistics go back to the best epoch unless `restore_best` is False.

    >>> EarlyStopping(patience=3)
    EarlyStopping(patience=3)
    """

    def __init__(
        self,
        monitor: str | None = None,
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "min",
        restore_best: bool = True,
    ) -> None:
        self.monitor = monitor
        self.patience = checks.integer("EarlyStopping", "patience", patience)
        self.min_delta = checks.number("EarlyStopping", "min_delta", min_delta, least=0)
        self.mode = checks.choice("EarlyStopping", "mode", mode, ["min", "max"])
        self.restore_best = checks.boolean("EarlyStopping", "restore_best", restore_best)
        self._reset()

    def _reset(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.best_epoch = 0
        self._waited = 0
        self._weights: tuple[Array, dict[str, Array]] | None = None

    def start(self, trainer: Training) -> None:
        """Forget the training before."""
        self._reset()

    def epoch(self, trainer: Training, record: Epoch) -> bool:
        """Keep the best weights; True when patience is over. Raises ValueError for an unknown `monitor`."""
        columns = record.flat()
        name = self.monitor or ("validation_loss" if record.validation else "loss")
        if name not in columns:
            raise ValueError(checks.message("EarlyStopping", f"monitor one of {list(columns)}", repr(name)))
        value = columns[name]
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.best_epoch, self._waited = value, record.epoch, 0
            net = trainer.net
            self._weights = net.phi.copy(), {k: buffer.copy() for k, buffer in net.buffers.items()}
        else:
            self._waited += 1
        return self._waited >= self.patience

    def end(self, trainer: Training) -> None:
        """Restore the best weights."""
        if self.restore_best and self._weights is not None:
            phi, buffers = self._weights
            trainer.net.phi[...] = phi
            for name, buffer in trainer.net.buffers.items():
                buffer[...] = buffers[name]

    def __repr__(self) -> str:
        return checks.call(self)
