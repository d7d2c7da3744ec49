"""Which batch size gets there first: how many steps each needs, and how fast its examples go through."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import checks, html, pictures
from backprop.checks import Array
from backprop.losses import Loss
from backprop.optimizers import SGD, Optimizer
from backprop.schedules import ConstantRate
from backprop.sequential import Sequential
from backprop.training.data import Examples
from backprop.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backprop.pictures import Drawn

if TYPE_CHECKING:
    from backprop.gradients.noise import NoiseScale

LARGEST = 4096  # by default; also the most examples the noise is measured on
STANDSTILL = 1e-12  # a learning rate that leaves the weights where they are: all sizes are timed at the same ones

HEAD = ("batch size", "examples/s", "steps", "time")
CAVEAT = """Steps and time to the same progress, ×1 the least; times within 20 % are a tie. The noise grows as
training goes on, and each batch size wants a learning rate of its own."""


@dataclass(frozen=True, slots=True)
class BatchSizeRow:
    """One batch size: measured examples per second; predicted steps and time to the same progress, 1 being the least."""

    batch_size: int
    examples_per_second: float
    relative_steps: float
    relative_time: float


@dataclass(frozen=True, slots=True, repr=False)
class BatchSizeReport:
    """Result of `suggest_batch_size`; `str(report)` is a table, `report.plot()` a picture."""

    rows: tuple[BatchSizeRow, ...]
    noise: NoiseScale

    @property
    def batch_size(self) -> int:
        """The one with the least predicted time."""
        return min(self.rows, key=lambda row: row.relative_time).batch_size

    def __repr__(self) -> str:
        sizes = ", ".join(f"{row.batch_size}" for row in self.rows)
        return f"BatchSizeReport(batch_size={self.batch_size}, of {sizes}; noise scale {self.noise.scale:.3g})"

    def __str__(self) -> str:
        rows = [(*HEAD, ""), *self._rows()]
        lines = [f"{size:>12}{speed:>14}{steps:>10}{time:>10}{mark}" for size, speed, steps, time, mark in rows]
        return "\n".join([self._title, self._noise, *lines, CAVEAT])

    def _repr_html_(self) -> str:
        return html.table(self._title, [*HEAD, ""], self._rows(), self._noise, CAVEAT, names=0)

    @property
    def _title(self) -> str:
        return f"Suggested batch size: {self.batch_size:,}"

    @property
    def _noise(self) -> str:
        return f"Gradient noise scale: {self.noise.scale:,.3g} examples, estimated from {self.noise.examples:,}"

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for row in self.rows:
            mark = "  ← least time" if row.batch_size == self.batch_size else ""
            times = _times(row.relative_steps), _times(row.relative_time)
            rows.append((f"{row.batch_size:,}", f"{row.examples_per_second:,.0f}", *times, mark))
        return rows

    def plot(self, ax: Axes | None = None) -> Drawn:
        """Draw steps and time over the batch size into `ax`, or a new figure, and return the axes. Needs matplotlib."""
        ax = pictures.axes(ax)
        x = [row.batch_size for row in self.rows]
        steps, seconds = [row.relative_steps for row in self.rows], [row.relative_time for row in self.rows]
        ax.plot(x, steps, color=pictures.INK, linestyle="--", marker="o", markerfacecolor="white", label="steps")
        ax.plot(x, seconds, color=pictures.INK, marker="o", label="time")
        ax.plot(self.batch_size, 1, color=pictures.ACCENT, marker="o", markersize=12, zorder=0, linestyle="")
        if x[0] <= self.noise.scale <= x[-1]:
            ax.axvline(self.noise.scale, color=pictures.SOFT, zorder=0, label="noise scale")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.yaxis.set_major_formatter("×{x:,.0f}")
        ax.set(xlabel="batch size", ylabel="to the same progress", title=self._title)
        ax.legend(frameon=False)
        return ax


def suggest_batch_size(
    net: Sequential,
    loss: Loss,
    X: Any,
    y: Any,
    *,
    optimizer: Optimizer | None = None,
    batch_sizes: Iterable[int] | None = None,
    seconds: float = 2.0,
) -> BatchSizeReport:
    """The batch size that should need the least time on this machine, for this network, at its present weights.

        steps(B) ∝ 1 + scale / B               scale: `gradient_noise_scale`, from at most 4,096 of the examples
        time(B)  = steps(B) · B / speed(B)     speed: examples per second of `Trainer`, measured

    A small batch wastes the machine, a large one wastes examples. Rows X (N, D), targets y (N,) or (N, K). `optimizer` is the one
    to be timed (default `SGD`). `batch_sizes` are the candidates (default the powers of 2 up to N, at most 4,096), and they share
    `seconds`. All runs are made on copies; Ctrl-C ends them and nothing of yours has changed.

    The noise scale grows as training goes on, so ask again later, and steps(B) supposes a learning rate that suits B: one that
    grows with B while B is below the scale. Raises TypeError or ValueError as `gradient_noise_scale` and `Trainer`.
    Source: McCandlish, Kaplan and Amodei (2018), arXiv:1812.06162.

    >>> import numpy as np, backprop as bp
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> net = bp.Sequential(bp.Linear(1, 8), bp.Tanh(), bp.Linear(8, 1), seed=0)
    >>> report = suggest_batch_size(net, bp.LeastSquares(), X, X[:, 0] ** 2, seconds=0.1)
    >>> [row.batch_size for row in report.rows], report.batch_size in range(1, 65)
    ([1, 2, 4, 8, 16, 32, 64], True)
    """
    who = "suggest_batch_size"
    checks.instance(who, "net", net, Sequential)
    checks.instance(who, "loss", loss, Loss)
    optimizer = checks.instance(who, "optimizer", SGD(STANDSTILL) if optimizer is None else optimizer, Optimizer)
    seconds = checks.number(who, "seconds", seconds, above=0)
    n = Examples(who, net, loss, X, y).n
    sizes = _sizes(who, batch_sizes, n)
    X, y = np.asarray(X), np.asarray(y)
    some = slice(None) if n <= LARGEST else np.sort(np.random.default_rng(0).choice(n, LARGEST, replace=False))
    from backprop.gradients.noise import noise_scale

    noise = noise_scale(who, net, loss, X[some], y[some])
    speeds = _speeds(net, loss, optimizer, X, y, sizes, seconds / len(sizes))
    return BatchSizeReport(_rows(sizes, speeds, noise.scale), noise)


def _sizes(who: str, batch_sizes: Iterable[int] | None, n: int) -> list[int]:
    """The candidates, in order."""
    if batch_sizes is None:
        return [2**k for k in range(min(n, LARGEST).bit_length())]
    sizes = batch_sizes if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else [batch_sizes]
    found = sorted({checks.integer(who, "batch_sizes", size) for size in sizes})
    if not found or found[-1] > n:
        got = f"{found[-1]:,}" if found else "none"
        raise ValueError(checks.message(who, f"batch_sizes from 1 to {n:,}, the number of examples", got))
    return found


def _speeds(
    net: Sequential, loss: Loss, optimizer: Optimizer, X: Array, y: Array, sizes: list[int], seconds: float
) -> list[float]:
    """Examples per second of a trainer at each batch size, on a copy."""
    from tqdm.auto import tqdm

    net, speeds = net.copy(), []
    for size in tqdm(sizes, desc="batch sizes", delay=3, leave=False, dynamic_ncols=True):
        twin = copy.deepcopy(optimizer)
        twin.t, twin.state = 0, {}  # it may have trained another network
        twin.schedule = ConstantRate(STANDSTILL)
        trainer = Trainer(net, loss, twin, batch_size=size)
        trainer._advisor.quiet = True  # it is not there to learn
        speeds.append(_speed(trainer, X, y, size, seconds))
    return speeds


def _speed(trainer: Trainer, X: Array, y: Array, size: int, seconds: float) -> float:
    """The best of several runs of about a fifth of the time each: what disturbs a run only makes it slower."""
    steps, best, runs, end = 1, 0.0, 0, time.perf_counter() + seconds
    while runs < 3 or time.perf_counter() < end:
        (epoch,) = trainer.epochs(X[: steps * size], y[: steps * size], 1)
        if runs:  # the first run makes arrays and writes its calls down
            best = max(best, epoch.examples_per_second)
        affordable = int(steps * seconds / 5 / epoch.seconds)
        steps, runs = max(1, min(affordable, len(X) // size)), runs + 1
    return best


def _rows(sizes: list[int], speeds: list[float], scale: float) -> tuple[BatchSizeRow, ...]:
    """Steps and time from scale and speed; with an infinite scale, steps ∝ 1 / B."""
    steps = [1 / size if math.isinf(scale) else 1 + scale / size for size in sizes]
    times = [s * size / speed for s, size, speed in zip(steps, sizes, speeds, strict=True)]
    columns = zip(sizes, speeds, steps, times, strict=True)
    return tuple(BatchSizeRow(size, speed, s / min(steps), t / min(times)) for size, speed, s, t in columns)


def _times(factor: float) -> str:
    return f"×{factor:,.{2 if factor < 10 else 1 if factor < 100 else 0}f}"
