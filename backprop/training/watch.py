"""What goes on beside training: the progress bar, callbacks, validation data, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine.team import Team
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.training.callbacks import Callback, Training
from backprop.training.data import Examples, knows_target
from backprop.training.history import Epoch, History

HIDDEN = {"epoch", "seconds", "examples_per_second", "learning_rate"}  # what the progress bar leaves out


class Watch:
    """The history of one call as it grows, with its progress bar and its callbacks."""

    def __init__(self, trainer: Training, callbacks: Sequence[Callback], bar: Any, heading: str) -> None:
        self.trainer, self.callbacks, self.bar, self.heading = trainer, callbacks, bar, heading
        self.history = History()

    def note(self, record: Epoch) -> bool:
        """Keep and show a record; True when a callback stops training, which `history.stopped` then names."""
        self.history.epochs.append(record)
        shown = {name: f"{value:.4g}" for name, value in record.flat().items() if name not in HIDDEN}
        self.bar.set_postfix(shown, refresh=False)
        if self.heading:
            numbers = ", ".join(f"{name} {value}" for name, value in shown.items())
            sys.stderr.write(f"{self.heading} {record.epoch}: {numbers}, {record.seconds:.2f} s\n")
            sys.stderr.flush()
        stops = [type(callback).__name__ for callback in self.callbacks if callback.epoch(self.trainer, record)]
        self.history.stopped = stops[0] if stops else ""
        return bool(stops)


class NoBar:
    """Where no bar is wanted: tqdm's has a lock that all processes share, which a fork or a kill may leave closed."""

    def update(self, n: int) -> None:
        """Show nothing."""

    def set_postfix(self, numbers: object, refresh: bool) -> None:
        """Show nothing."""


def progress_bar(total: int, unit: str) -> Any:
    """A bar in a terminal or a notebook."""
    from tqdm.auto import tqdm

    # Without the rate, whose place the losses need.
    line = "{l_bar}{bar}| {n_fmt}/{total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"
    return tqdm(total=total, unit=unit, unit_scale=True, dynamic_ncols=True, bar_format=line)


@contextmanager
def watching(
    trainer: Training, callbacks: Sequence[Callback], verbose: int, total: int, unit: str, heading: str
) -> Iterator[Watch]:
    """A watch from the callbacks' start to their end; Ctrl-C inside ends the block.

    `verbose` 1 draws a progress bar of `total` units, 2 writes a line for each record, which begins with `heading`.
    """
    callbacks = sorted(callbacks, key=lambda callback: (callback.outermost, type(callback).state is Callback.state))
    beside = running(trainer, callbacks) if callbacks else nullcontext()
    with beside, progress_bar(total, unit) if verbose == 1 else nullcontext(NoBar()) as bar:
        watch = Watch(trainer, callbacks, bar, heading if verbose == 2 else "")
        try:
            yield watch
        except KeyboardInterrupt:
            watch.history.stopped = "Ctrl-C"


@contextmanager
def running(trainer: Training, callbacks: Sequence[Callback]) -> Iterator[None]:
    """From the `start` of callbacks to the `end` of each that was started, the outermost first, whatever happens between."""
    started: list[Callback] = []
    steps: list[Callable[[], None]] = []
    after_step = getattr(trainer, "after_step", [])  # a search of `minimize` has none
    users = list(after_step)
    try:
        try:
            for callback in callbacks:
                callback.start(trainer)
                started.append(callback)
                if type(callback).step is not Callback.step:
                    steps.append(partial(callback.step, trainer))
                    after_step.append(steps[-1])
            after_step[:] = after_step[len(users) :] + users  # last, for they may save what the callbacks remember
            yield
        finally:
            for step in steps:
                after_step.remove(step)
            phi = trainer.net.phi.copy()
            in_order = sorted(started, key=lambda callback: not callback.outermost)
            with ExitStack() as ends:  # calls all of them, also those after one that raises; the last one first
                for callback in reversed(in_order):
                    ends.callback(callback.end, trainer)
    except Exception as error:
        if not np.array_equal(trainer.net.phi, phi):  # what the error says of the weights is no longer so
            error.add_note("Afterwards a callback changed the weights, as BestWeights does when training ends.")
        raise


def described(callback: Callback) -> str:
    """Its class and what it was told, as ranks compare it; of one's own the class, which may know its rank."""
    if not type(callback).__module__.startswith("backprop."):
        return type(callback).__name__
    plain = {name: value for name, value in vars(callback).items() if isinstance(value, str | int | float | None)}
    told = {name: value for name, value in plain.items() if name[0] != "_" and name != "path"}
    return f"{type(callback).__name__}({', '.join(f'{name}={value!r}' for name, value in sorted(told.items()))})"


def of_rank(team: Team, callbacks: Sequence[Callback]) -> Sequence[Callback]:
    """The callbacks that run on this rank."""
    return [callback for callback in callbacks if not callback.writes] if team.rank else callbacks


def check_verbose(who: str, verbose: object) -> int:
    """0, 1 or 2; False and True are 0 and 1."""
    if not isinstance(verbose, int | np.integer | np.bool_):
        raise TypeError(checks.message(who, "verbose 0, 1 or 2", f"{verbose!r} ({type(verbose).__name__})"))
    if verbose not in (0, 1, 2):
        advice = "0 is silent, 1 a progress bar, 2 a line per epoch."
        raise ValueError(checks.message(who, "verbose 0, 1 or 2", repr(verbose), advice))
    return int(verbose)


def check_callbacks(who: str, callbacks: object) -> None:
    """Refuse what is not a list of callbacks."""
    for callback in callbacks if isinstance(callbacks, Sequence) else [None]:
        if not isinstance(callback, Callback):
            advice = f"Write {callback.__name__}(…)." if isinstance(callback, type) else ""
            raise TypeError(checks.message(who, "a list of callbacks", repr(callbacks), advice))


def validation_examples(who: str, net: Sequential, loss: Loss, data: tuple[Array, ...] | None) -> Examples | None:
    """The examples of validation_data, (X, y) or (X, y, sample_weight), or rows that know their target."""
    if data is None:
        return None
    if knows_target(data):
        data = (data, None)  # type: ignore[assignment]
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        got = f"{type(data).__name__}" + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
        raise TypeError(checks.message(who, "validation_data as (X, y) or (X, y, sample_weight)", got))
    return Examples(f"{who}, validation_data", net, loss, *data)
