"""What may watch training and stop it: the protocol, and what keeps the best weights.

    start(trainer)           before the first step, once everything handed in has been checked
    step(trainer)            after each step of the optimizer, in `Trainer.fit` alone; it must be quick
    epoch(trainer, record)   after each epoch, or iteration of `minimize`; True stops training
    end(trainer)             after the last one, whatever ended it
    state(), go_on(state)    what it remembers, for `Trainer.save` and after `Trainer.resume`

All of them are called in the order of the list, those that remember something (`state`) before the others, so that a callback
that saves finds what they remember of this very step; `Checkpoints` sees an epoch last and the end first. When one `epoch`
returns True, the others of that epoch still run, and `history.stopped` names the first that did. `end` runs for every callback
whose `start` came through: after the last epoch, after a stop, after Ctrl-C, and after an error in training or in another
callback, which is raised when all of them have ended.
"""

from __future__ import annotations

import math
import os
from typing import Any, ClassVar, Protocol

from backprop import checks, notation
from backprop.checks import Array
from backprop.files.atomic import PathLike
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

    # Whether it sees an epoch when the others have seen it, and the end before they change the weights.
    outermost: ClassVar[bool] = False
    # Whether all it does is to write down what happens: of a team, rank 0 alone calls it.
    writes: ClassVar[bool] = False

    def start(self, trainer: Training) -> None:
        """Before the first epoch of a `fit`. An error here means that nothing is trained."""

    def step(self, trainer: Training) -> None:
        """After each step of the optimizer in `Trainer.fit`; costs nothing where it is not overridden."""

    def epoch(self, trainer: Training, record: Epoch) -> bool | None:
        """After each epoch; True stops training."""
        return None

    def end(self, trainer: Training) -> None:
        """After the last epoch, also when training was stopped, interrupted, or ended by an error."""

    def state(self) -> dict[str, Any]:
        """What it remembers of the `fit` that is running, numbers and arrays by name: `Trainer.save` keeps it."""
        return {}

    def go_on(self, state: dict[str, Any]) -> None:
        """After `start`, in the first `fit` after `Trainer.resume`: remember this again. The dict is yours."""


class BestWeights(Callback):
    """Keeps the weights of the best epoch, and restores them when training ends, however it ends.

    `monitor` is a column of the history; the default takes the validation loss where there is validation data, else the loss.
    `mode` is "min", or "max" for an accuracy. Running statistics go back with the weights. `best` and `best_epoch` say which.
    NaN is never the best.

    >>> BestWeights("validation_accuracy", mode="max")
    BestWeights(monitor='validation_accuracy', mode='max')
    """

    min_delta = 0.0
    __repr__ = notation.call

    def __init__(self, monitor: str | None = None, *, mode: str = "min") -> None:
        self.monitor = None if monitor is None else checks.instance(type(self).__name__, "monitor", monitor, str)
        self.mode = checks.choice(type(self).__name__, "mode", mode, ["min", "max"])
        self._reset()

    def _reset(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.best_epoch = 0
        self._weights: dict[str, Array] = {}  # φ and running statistics

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
        default = "validation_loss" if record.validation else "loss"
        name = default if self.monitor is None else self.monitor
        if name not in columns:
            raise ValueError(checks.message(type(self).__name__, f"monitor one of {list(columns)}", repr(name)))
        value = columns[name]
        gain = self.best - value if self.mode == "min" else value - self.best
        if not gain > self.min_delta:
            return False
        self.best, self.best_epoch = value, record.epoch
        self._weights = {name: array.copy() for name, array in live(trainer.net).items()}
        return True

    def end(self, trainer: Training) -> None:
        """Restore the best weights."""
        put(trainer.net, self._weights)

    def state(self) -> dict[str, Any]:
        """The best so far, and its weights."""
        return {"best": self.best, "best_epoch": self.best_epoch, **self._weights}

    def go_on(self, state: dict[str, Any]) -> None:
        """Compare with this best."""
        self.best, self.best_epoch = state.pop("best"), state.pop("best_epoch")
        self._weights = state


def live(net: Sequential) -> dict[str, Array]:
    """φ and running statistics, as the network holds them."""
    return {"phi": net.phi, **net.buffers}


def put(net: Sequential, arrays: dict[str, Array]) -> None:
    """Write arrays by these names to the network."""
    places = live(net)
    for name, array in arrays.items():
        places[name][...] = array


def path_of(who: str, path: Any) -> str:
    """The path of a file. Raises TypeError for what is none."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(checks.message(who, "path of a file", f"{path!r} ({type(path).__name__})"))
    return os.fspath(path)


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

    @property
    def over(self) -> bool:
        """Whether patience is over, as after `Trainer.resume` of a training that this has stopped."""
        return self._waited >= self.patience

    def epoch(self, trainer: Training, record: Epoch) -> bool:
        """True when patience is over. Raises ValueError for an unknown `monitor`."""
        self._waited = 0 if self.improves(trainer, record) else self._waited + 1
        return self.over

    def end(self, trainer: Training) -> None:
        """Restore the best weights, if they are wanted."""
        if self.restore_best:
            super().end(trainer)

    def state(self) -> dict[str, Any]:
        """The best so far, its weights, and the epochs since."""
        return {"waited": self._waited, **super().state()}

    def go_on(self, state: dict[str, Any]) -> None:
        """Compare with this best, and have waited as long."""
        self._waited = state.pop("waited")
        super().go_on(state)


class Checkpoints(Callback):
    """Saves training to one file while it runs, and when it ends: `Trainer.resume(path)` goes on from there.

    `every_steps` and `every_epochs` are multiples of the steps and epochs counted from the very first; without either, it is
    every epoch. Each save replaces the one before, whole or not at all. What Ctrl-C or another callback stopped is saved too;
    numbers that were not finite are not, so that the last file before them stays.

    Wherever it stands in the list, it sees an epoch after the other callbacks, and the end before they put best or mean weights
    in place. Raises TypeError in `minimize`, OSError while training where the file cannot be written.

    >>> Checkpoints("run.safetensors", every_steps=100)
    Checkpoints(path='run.safetensors', every_steps=100)
    """

    outermost = True
    __repr__ = notation.call

    def __init__(self, path: PathLike, *, every_epochs: int | None = None, every_steps: int | None = None) -> None:
        who = "Checkpoints"
        self.path = path_of(who, path)
        self.every_epochs = None if every_epochs is None else checks.integer(who, "every_epochs", every_epochs)
        self.every_steps = None if every_steps is None else checks.integer(who, "every_steps", every_steps)

    def start(self, trainer: Training) -> None:
        """Nothing is saved before the first step."""
        if not hasattr(trainer, "save"):
            raise TypeError(checks.message("Checkpoints", "Trainer.fit", type(trainer).__name__))
        self._saved = self._now(trainer)

    def step(self, trainer: Training) -> None:
        """Save if it is time."""
        if self.every_steps and self._now(trainer)[0] % self.every_steps == 0:
            self._save(trainer)

    def epoch(self, trainer: Training, record: Epoch) -> None:
        """Save if it is time."""
        every = self.every_epochs or (None if self.every_steps else 1)
        if every and record.epoch % every == 0:
            self._save(trainer)

    def end(self, trainer: Training) -> None:
        """Save what has not been saved."""
        if self._now(trainer) != self._saved and not trainer.lost:  # type: ignore[attr-defined]
            self._save(trainer)

    def _now(self, trainer: Any) -> tuple[int, tuple[int, int]]:
        return trainer.optimizer.t, trainer.position

    def _save(self, trainer: Any) -> None:
        trainer.save(self.path)
        self._saved = self._now(trainer)
