"""What may watch training and stop it: the protocol, and what keeps the best weights.

    start(trainer)           before the first step, once everything handed in has been checked
    step(trainer)            after each step of the optimizer, in `Trainer.fit` alone; it must be quick
    epoch(trainer, record)   after each epoch, or iteration of `minimize`; True stops training
    end(trainer)             after the last one, whatever ended it

All of them are called in the order of the list. When one `epoch` returns True, the others of that epoch still run, and
`history.stopped` names the first that did. `end` runs for every callback whose `start` came through: after the last epoch, after
a stop, after Ctrl-C, and after an error in training or in another callback, which is raised when all of them have ended.
"""

from __future__ import annotations

import math
from typing import Protocol

from backprop import checks
from backprop.checks import Array
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.training.history import Epoch


class Training(Protocol):
    """What a callback is given: the `Trainer` (which also has `optimizer`, `epochs_done`, …), or the search of `minimize`."""

    net: Sequential
    loss: Loss


class Callback:
    """Override what you need; all of them do nothing here. `trainer` has at least `net`, as the epoch left it, and `loss`.

    The order of calls, and what ends with what, stands at the head of this module and in the page on training.

    >>> class Printer(Callback):
    ...     def epoch(self, trainer, record):
    ...         print(record.epoch, record.loss)
    """

    def start(self, trainer: Training) -> None:
        """Before the first epoch of a `fit`. An error here means that nothing is trained."""

    def step(self, trainer: Training) -> None:
        """After each step of the optimizer in `Trainer.fit`; costs nothing where it is not overridden."""

    def epoch(self, trainer: Training, record: Epoch) -> bool | None:
        """After each epoch; True stops training."""
        return None

    def end(self, trainer: Training) -> None:
        """After the last epoch, also when training was stopped, interrupted, or ended by an error."""


class BestWeights(Callback):
    """Keeps the weights of the best epoch, and restores them when training ends, however it ends.

    `monitor` is a column of the history; the default takes the validation loss where there is validation data, else the loss.
    `mode` is "min", or "max" for an accuracy. Running statistics go back with the weights. `best` and `best_epoch` say which.
    NaN is never the best.

    >>> BestWeights("validation_accuracy", mode="max")
    BestWeights(monitor='validation_accuracy', mode='max')
    """

    min_delta = 0.0

    def __init__(self, monitor: str | None = None, *, mode: str = "min") -> None:
        self.monitor = monitor
        self.mode = checks.choice(type(self).__name__, "mode", mode, ["min", "max"])
        self._reset()

    def _reset(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.best_epoch = 0
        self._weights: tuple[Array, dict[str, Array]] | None = None

    def start(self, trainer: Training) -> None:
        """Forget the training before."""
        self._reset()

    def epoch(self, trainer: Training, record: Epoch) -> bool | None:
        """Keep the weights if they are the best so far. Raises ValueError for an unknown `monitor`."""
        self.improves(trainer, record)
        return None

    def improves(self, trainer: Training, record: Epoch) -> bool:
        """Whether this epoch is the best so far; its weights are then kept."""
        columns = record.flat()
        name = self.monitor or ("validation_loss" if record.validation else "loss")
        if name not in columns:
            raise ValueError(checks.message(type(self).__name__, f"monitor one of {list(columns)}", repr(name)))
        value = columns[name]
        gain = self.best - value if self.mode == "min" else value - self.best
        if not gain > self.min_delta:
            return False
        net = trainer.net
        self.best, self.best_epoch = value, record.epoch
        self._weights = net.phi.copy(), {name: buffer.copy() for name, buffer in net.buffers.items()}
        return True

    def end(self, trainer: Training) -> None:
        """Restore the best weights."""
        if self._weights is not None:
            phi, buffers = self._weights
            trainer.net.phi[...] = phi
            for name, buffer in trainer.net.buffers.items():
                buffer[...] = buffers[name]

    def __repr__(self) -> str:
        return checks.call(self)


class EarlyStopping(BestWeights):
    """Stops when `monitor` has not improved for `patience` epochs, and restores the best weights.

    `BestWeights` with patience: an epoch improves when it is better than the best by more than `min_delta`. With `restore_best`
    False the last weights stay.

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
        super().__init__(monitor, mode=mode)
        self.patience = checks.integer("EarlyStopping", "patience", patience)
        self.min_delta = checks.number("EarlyStopping", "min_delta", min_delta, least=0)
        self.restore_best = checks.boolean("EarlyStopping", "restore_best", restore_best)

    def _reset(self) -> None:
        super()._reset()
        self._waited = 0

    def epoch(self, trainer: Training, record: Epoch) -> bool:
        """True when patience is over. Raises ValueError for an unknown `monitor`."""
        self._waited = 0 if self.improves(trainer, record) else self._waited + 1
        return self._waited >= self.patience

    def end(self, trainer: Training) -> None:
        """Restore the best weights, if they are wanted."""
        if self.restore_best:
            super().end(trainer)
