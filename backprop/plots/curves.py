"""Numbers of training over epochs, and over batch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.pictures import ACCENT, INK
from backprop.plots import canvas
from backprop.training import Epoch, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

MOST_MARKERS = 30
STYLES: dict[str, dict[str, Any]] = {  # told apart without color
    "training": {"color": INK, "linestyle": "-", "marker": "o", "markersize": 4, "markerfacecolor": INK},
    "validation": {"color": INK, "linestyle": "--", "marker": "s", "markersize": 4, "markerfacecolor": "white"},
}


def learning_curves(history: History | Sequence[Epoch], metric: str = "loss", *, ax: Axes | None = None) -> Drawn:
    """A column of the history over the epochs, of the training and of the validation data. Returns the axes.

    `history` is what `fit` or `minimize` returns, or a list of records; `metric` is "loss" or a metric that was measured. The
    loss of an epoch is a mean in which each batch was measured before its own step, so it lags behind that of the validation
    data. The epoch with the lowest validation loss is marked.

    Raises TypeError for what is no history, ValueError for an empty one, for an unknown metric, and where no number is finite.

    >>> from backprop import Epoch, History
    >>> ax = learning_curves(History([Epoch(1, 0.5, 1.0, 100.0, 0.1), Epoch(2, 0.25, 1.0, 100.0, 0.1)]))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('epoch', 'loss')
    """
    who = "learning_curves"
    history = _checked(who, history)
    epochs, found = history["epoch"], _columns(who, history, metric)
    ax = canvas.axes(who, ax, 6.0, 3.8)
    for name, values in found.items():
        ax.plot(epochs, values, label=name, markevery=-(-len(epochs) // MOST_MARKERS), **STYLES[name])
    if metric == "loss" and "validation" in found:
        best = int(np.nanargmin(found["validation"]))
        place, label = (epochs[best], found["validation"][best]), f"lowest, epoch {epochs[best]:g}"
        ax.plot(*place, "o", ms=11, mfc="none", mec=ACCENT, mew=2, label=label)
    canvas.logarithmic(ax, np.concatenate([*found.values()]))
    canvas.whole_numbers(ax.xaxis)
    ax.set(xlabel="epoch", ylabel=metric)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")
    return ax


def batch_size_tradeoff(histories: Mapping[int, History], metric: str = "loss", *, ax: Any = None) -> Array:
    """What the batch size does: left, examples per second; right, the loss that was reached. Returns both axes (2,).

    `histories` holds a history for each batch size, as made by training the same network with each of them; the speed is the
    median over epochs. `ax` may be two axes. The picture of a prediction is `suggest_batch_size(…).plot()`.

    Raises TypeError for what is no such dict, ValueError as `learning_curves`, and for batch sizes below 1.

    >>> from backprop import Epoch, History
    >>> ax = batch_size_tradeoff({8: History([Epoch(1, 0.5, 1.0, 100.0, 0.1)]), 64: History([Epoch(1, 0.7, 0.5, 200.0, 0.1)])})
    >>> [each.get_title() for each in ax]
    ['speed', 'loss after 1 epoch']
    """
    who = "batch_size_tradeoff"
    if not isinstance(histories, Mapping):
        advice = "Write {32: history, 64: other_history}."
        raise TypeError(checks.message(who, "a dict of batch size to History", f"a {type(histories).__name__}", advice))
    if not histories:
        raise ValueError(checks.message(who, "at least one history", "none"))
    sizes = sorted(checks.integer(who, "batch size", size) for size in histories)
    runs = [_checked(who, histories[size]) for size in sizes]
    reached = [{name: values[-1] for name, values in _columns(who, run, metric).items()} for run in runs]
    both = canvas.panels(who, ax, 2, 4.5, 3.6)
    left, right = both
    speeds = np.array([np.median(run["examples_per_second"]) for run in runs])
    left.plot(sizes, speeds, **STYLES["training"])
    for name, style in STYLES.items():
        if any(name in each for each in reached):
            right.plot(sizes, [each.get(name, np.nan) for each in reached], label=name, **style)
    epochs = {len(run) for run in runs}
    after = f"after {min(epochs)} epoch{'s' * (min(epochs) > 1)}" if len(epochs) == 1 else "at the end"
    left.yaxis.set_major_formatter("{x:,.0f}")
    canvas.logarithmic(left, speeds)
    canvas.logarithmic(right, np.array([value for each in reached for value in each.values()]))
    left.set(title="speed", ylabel="examples per second")
    right.set(title=f"{metric} {after}", ylabel=metric)
    right.legend(frameon=False, fontsize="small")
    for each in (left, right):
        _batch_sizes(each, sizes)
        each.grid(alpha=0.3)
    return both


def _checked(who: str, history: Any) -> History:
    """A history with at least one record."""
    if not isinstance(history, Sequence) or not all(isinstance(record, Epoch) for record in history):
        raise TypeError(checks.message(who, "a History, or a list of Epoch", f"a {type(history).__name__}"))
    if not len(history):
        raise ValueError(checks.message(who, "a history with at least one epoch", "an empty one"))
    return history if isinstance(history, History) else History(history)


def _columns(who: str, history: History, metric: str) -> dict[str, Array]:
    """Values of the training and of the validation data, those of the two there are; NaN where they are not finite."""
    both = {"training": metric, "validation": f"validation_{metric}"}
    columns = {"validation": metric} if metric.startswith("validation_") else both
    there_are = {name: column for name, column in columns.items() if column in history.names()}
    if not there_are:
        raise ValueError(checks.message(who, f"metric one of {history.names()}", repr(metric)))
    found = {}
    for name, column in there_are.items():
        values = np.array([record.flat().get(column, np.nan) for record in history], dtype=float)
        if np.isfinite(values).any():
            found[name] = np.where(np.isfinite(values), values, np.nan)
    if not found:
        raise ValueError(checks.message(who, f"a finite {metric} in at least one epoch", "none"))
    return found


def _batch_sizes(ax: Any, sizes: list[int]) -> None:
    """The batch sizes themselves as ticks, on a logarithmic axis."""
    from matplotlib.ticker import NullLocator

    ax.set_xscale("log", base=2)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45 if len(sizes) > 6 else 0)
    ax.set_xlabel("batch size")
