"""Weight averaging: a callback that ends training at the mean of the weights it went through."""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop import checks, notation
from backprop.checks import Array
from backprop.engine.blas import axpy
from backprop.sequential import Sequential
from backprop.training.callbacks import Callback, Training, live, put
from backprop.training.history import Epoch


class WeightAverage(Callback):
    """Puts an average φ̄ of the weights into the network when training ends.

        n ← n + 1,   φ̄ ← φ̄ + w (φ − φ̄)

        decay None    w = 1/n                      after each epoch: the mean of the weights at the ends of epochs (SWA)
        decay d       w = max(1/n, 1 − d)          after each step: the mean at first, then an exponential average (EMA)

    The maximum keeps the weights before training, which d alone would remember for 1/(1 − d) steps, out of the average.
    Averaging begins in epoch `start_epoch`; when training ends before it, the network is left alone. Training itself does not
    change: histories are those of φ, not of φ̄.

    Running statistics of BatchNorm are averaged like the weights. That is near those of φ̄ but not the same, and a callback does
    not have the data: docs/train/regularization.md has three lines that compute them anew.

    The weights training ended with are kept: `put_last(net)` brings them back, `put_average(net)` the average. A further `fit`
    with the same callback goes on from them where it finds one of the two in the network, so 4 + 6 epochs are 10, to the bit;
    else it starts afresh. In a list of callbacks the last one decides: `[EarlyStopping(), WeightAverage()]` leaves the average.

    Raises TypeError or ValueError for numbers out of range, TypeError in `minimize` with a decay, for there are no steps.
    Sources: Polyak and Juditsky (1992), "Acceleration of stochastic approximation by averaging"; Izmailov et al. (2018),
    arXiv:1803.05407; Tarvainen and Valpola (2017), arXiv:1703.01780, for the maximum.

    >>> import numpy as np, backprop as bp
    >>> net = bp.Sequential(bp.Linear(1, 1, bias=False, initializer=bp.Constant(0.0)), dtype="float64")
    >>> trainer, average = bp.Trainer(net, bp.LeastSquares(), bp.SGD(0.25), batch_size=1), bp.WeightAverage()
    >>> history = trainer.fit(np.ones((1, 1)), np.ones(1), epochs=2, verbose=0, callbacks=[average])
    >>> net.phi  # the mean of ½ and ¾
    array([0.625])
    """

    __repr__ = notation.call

    def __init__(self, decay: float | None = None, *, start_epoch: int = 1) -> None:
        self.decay = None if decay is None else checks.number("WeightAverage", "decay", decay, above=0, below=1)
        self.start_epoch = checks.integer("WeightAverage", "start_epoch", start_epoch)
        self._reset()

    def _reset(self) -> None:
        self.n = 0  # weights in the average
        self._average: dict[str, Array] = {}
        self._last: dict[str, Array] = {}

    def start(self, trainer: Training) -> None:
        """Go on with the average if the network holds it, or the weights that were last; start afresh otherwise."""
        if self.decay is not None and not hasattr(trainer, "after_step"):
            advice = "There are no steps here to average over: leave decay out."
            expected = f"Trainer.fit with decay={self.decay:g}"
            raise TypeError(checks.message("WeightAverage", expected, type(trainer).__name__, advice))
        self._live = live_arrays(trainer.net)
        self._difference = {name: np.empty_like(array) for name, array in self._live.items()}
        if same(self._live, self._average) or same(self._live, self._last):
            put(trainer.net, self._last)
        else:
            self._reset()

    def step(self, trainer: Training) -> None:
        """With a decay: let the weights after this step into the average."""
        if self.decay is not None and trainer.epochs_done + 1 >= self.start_epoch:  # type: ignore[attr-defined]
            self._take(1 - self.decay)

    def epoch(self, trainer: Training, record: Epoch) -> None:
        """Without a decay: let the weights after this epoch into the average."""
        if self.decay is None and record.epoch >= self.start_epoch:
            self._take(0.0)

    def _take(self, least: float) -> None:
        if not self.n:
            self._average = {name: array.copy() for name, array in self._live.items()}
        weight = max(1 / (self.n + 1), least)
        for name, average in self._average.items():
            # One change of the average, at the end: a second Ctrl-C may come between any two lines.
            axpy(weight, np.subtract(self._live[name], average, out=self._difference[name]), average)
        self.n += 1

    def end(self, trainer: Training) -> None:
        """Keep the weights as they are, and put the average in their place."""
        if self.n:
            self._last = {name: array.copy() for name, array in self._live.items()}
            put(trainer.net, self._average)
        del self._live, self._difference

    def state(self) -> dict[str, Any]:
        """The average, and the number of weights in it."""
        return {"n": self.n, **self._average}

    def go_on(self, state: dict[str, Any]) -> None:
        """Go on with this average."""
        self.n = state.pop("n")
        self._average = state

    def put_average(self, net: Sequential) -> None:
        """Write the average as it stands to a network, the trained one or a copy. Raises RuntimeError if there is none."""
        self._put(net, self._average, "put_average")

    def put_last(self, net: Sequential) -> None:
        """Write the weights that training ended with to a network. Raises RuntimeError before the end of a training."""
        self._put(net, self._last, "put_last")

    def _put(self, net: Sequential, arrays: dict[str, Array], method: str) -> None:
        if not arrays:
            got = f"{self.n} weights averaged" if self.n else "no weights averaged yet"
            raise RuntimeError(checks.message(f"WeightAverage.{method}", "a training that has averaged", got))
        if not alike(live_arrays(net), arrays):
            expected = f"a network with P = {arrays['phi'].size}, like the one that was trained"
            raise ValueError(checks.message(f"WeightAverage.{method}", expected, f"P = {net.phi.size}"))
        put(net, arrays)


def live_arrays(net: Sequential) -> dict[str, Array]:
    """What is averaged, as the network holds it: φ and running statistics."""
    return {name: array for name, array in live(net).items() if array.dtype.kind == "f"}


def alike(a: dict[str, Array], b: dict[str, Array]) -> bool:
    """Whether the names and shapes are the same."""
    return {name: array.shape for name, array in a.items()} == {name: array.shape for name, array in b.items()}


def same(a: dict[str, Array], b: dict[str, Array]) -> bool:
    """Whether names and numbers are the same."""
    return alike(a, b) and all(np.array_equal(array, b[name]) for name, array in a.items())
