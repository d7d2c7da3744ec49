"""What goes on beside training: metrics, validation, the progress bar, callbacks, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from backprop import checks
from backprop.checks import Array
from backprop.losses import Loss
from backprop.sequential import Sequential
from backprop.training.callbacks import Callback, Training
from backprop.training.data import Examples
from backprop.training.history import Epoch, History

Metric = Callable[[Array, Array], float]

HIDDEN = {"epoch", "seconds", "examples_per_second", "learning_rate"}  # what the progress bar leaves out


class Watch:
    """The history of one call as it grows, with its progress bar and its callbacks."""

    def __init__(self, trainer: Training, callbacks: Sequence[Callback], bar: Any) -> None:
        self.trainer, self.callbacks, self.bar = trainer, callbacks, bar
        self.history = History()

    def note(self, record: Epoch) -> bool:
        """Keep and show a record; True when a callback stops training, which `history.stopped` then names."""
        self.history.epochs.append(record)
        shown = {name: f"{value:.4g}" for name, value in record.flat().items() if name not in HIDDEN}
        self.bar.set_postfix(shown, refresh=False)
        stops = [type(callback).__name__ for callback in self.callbacks if callback.epoch(self.trainer, record)]
        self.history.stopped = stops[0] if stops else ""
        return bool(stops)


@contextmanager
def watching(
    trainer: Training, callbacks: Sequence[Callback], total: int, unit: str, progress: bool
) -> Iterator[Watch]:
    """A watch with a progress bar of `total` units, from the callbacks' start to their end; Ctrl-C inside ends the block."""
    from tqdm.auto import tqdm  # draws in a terminal or a notebook

    for callback in callbacks:
        callback.start(trainer)
    with tqdm(total=total, disable=not progress, unit=unit, unit_scale=True, dynamic_ncols=True) as bar:
        watch = Watch(trainer, callbacks, bar)
        try:
            yield watch
        except KeyboardInterrupt:
            watch.history.stopped = "Ctrl-C"
    for callback in callbacks:
        callback.end(trainer)


def check_callbacks(who: str, callbacks: object) -> None:
    """Refuse what is not a list of callbacks."""
    for callback in callbacks if isinstance(callbacks, Sequence) else [None]:
        if not isinstance(callback, Callback):
            advice = f"Write {callback.__name__}(…)." if isinstance(callback, type) else ""
            raise TypeError(checks.message(who, "a list of callbacks", repr(callbacks), advice))


def check_metrics(who: str, loss: Loss, metrics: Sequence[str | Metric]) -> None:
    """Refuse what is neither a function nor the name of one of the loss's own measures."""
    if isinstance(metrics, str):
        raise TypeError(checks.message(who, "metrics as a list", repr(metrics), f"Pass [{metrics!r}]."))
    for metric in metrics:
        if not callable(metric):
            checks.choice(who, "metric", metric, loss.measures)


def validation_examples(who: str, net: Sequential, loss: Loss, data: tuple[Array, ...] | None) -> Examples | None:
    """The examples of validation_data, (X, y) or (X, y, sample_weight)."""
    if data is None:
        return None
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        got = f"{type(data).__name__}" + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
        raise TypeError(checks.message(who, "validation_data as (X, y) or (X, y, sample_weight)", got))
    return Examples(f"{who}, validation_data", net, loss, *data)


def measure(
    net: Sequential, loss: Loss, examples: Examples, metrics: Sequence[str | Metric], *, own: bool = True
) -> dict[str, float]:
    """The loss and measures of some examples; without `own`, only those that are asked for."""
    f = examples.predictions(net)
    y = examples.y.T
    measured = {k: v for k, v in loss.metrics(f, y, examples.w).items() if own or k in metrics}
    for metric in metrics:
        if not isinstance(metric, str):
            measured[getattr(metric, "__name__", type(metric).__name__)] = float(metric(f.T, y.T))
    if own:
        measured = {"loss": loss.replica().value(f, y, examples.w)} | measured
    return measured
