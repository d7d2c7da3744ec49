"""The learning-rate range test: one short run in which the rate grows from step to step until the loss diverges."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
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

SHARE = 1 / 3  # of the rate where the loss is lowest; docs/train/training.md compares it with other rules


@dataclass(frozen=True, slots=True, repr=False)
class LearningRateReport:
    """Result of `learning_rate_range_test`; `str(report)` is a table, `report.plot()` a picture.

    `rates` (S,) and `losses` (S,) are those of the steps taken, each loss measured before its step; `smoothed` (S,) is the loss
    averaged over neighbouring steps. `lowest` is the rate where `smoothed` is lowest, `diverged` the one at which the loss left
    for good, inf if it never did.
    """

    rates: Array
    losses: Array
    smoothed: Array
    diverged: float

    @property
    def lowest(self) -> float:
        """The rate where the smoothed loss is lowest."""
        return float(self.rates[np.argmin(self.smoothed)])

    @property
    def learning_rate(self) -> float:
        """The suggestion: a third of `lowest`."""
        return SHARE * self.lowest

    def __repr__(self) -> str:
        return f"LearningRateReport(learning_rate={self.learning_rate:.2g}, {len(self.rates)} steps)"

    def __str__(self) -> str:
        rows = [("rate", "loss"), *self._rows()]
        return "\n".join([self._title, *self._findings(), *(f"{rate:>12}{loss:>12}" for rate, loss in rows)])

    def _repr_html_(self) -> str:
        return html.table(self._title, ["rate", "loss"], self._rows(), *self._findings(), names=0)

    @property
    def _title(self) -> str:
        return f"Suggested learning rate: {self.learning_rate:.2g}"

    def _rows(self) -> list[tuple[str, str]]:
        """Rate and smoothed loss where a decade begins."""
        decades = np.floor(np.log10(self.rates) + 1e-9)
        shown = np.flatnonzero(np.diff(decades, prepend=-np.inf))
        return [(f"{self.rates[i]:.2g}", f"{self.smoothed[i]:.4g}") for i in shown]

    def _findings(self) -> list[str]:
        end = "never diverged" if math.isinf(self.diverged) else f"diverged at {self.diverged:.2g}"
        return [f"The loss was lowest at {self.lowest:.2g}, three times that, and {end}.", *self._doubts()]

    def _doubts(self) -> list[str]:
        """What speaks against the suggestion."""
        margin = len(self.rates) // 20
        if np.argmin(self.smoothed) <= margin:
            return ["It only rose, so this is a guess: begin with a lower rate (low)."]
        if math.isinf(self.diverged) and np.argmin(self.smoothed) >= len(self.rates) - 1 - margin:
            return ["It was still falling at the end: go on to a higher rate (high)."]
        opening = self.losses[: opening_of(len(self.losses))]
        if np.median(opening) - self.smoothed.min() < 3 * np.std(opening):
            return ["Batches differ almost as much as the loss fell: take a larger batch_size, or more steps."]
        return []

    def plot(self, ax: Axes | None = None) -> Drawn:
        """Draw the losses over the rate into `ax`, or a new figure, and return the axes. Needs matplotlib."""
        ax = pictures.axes(ax)
        height = float(np.interp(math.log(self.learning_rate), np.log(self.rates), self.smoothed))
        ax.plot(self.rates, self.losses, color=pictures.SOFT, marker=".", linestyle="", label="loss of a batch")
        ax.plot(self.rates, self.smoothed, color=pictures.INK, label="smoothed")
        ax.plot(self.learning_rate, height, color=pictures.ACCENT, marker="o", markersize=9, linestyle="")
        if math.isfinite(self.diverged):
            ax.axvline(self.diverged, color=pictures.INK, linestyle=":", label="diverged")
        low, high = float(self.losses.min()), float(self.smoothed.max())  # what diverges would flatten all the rest
        margin = 0.1 * (high - low) or 1.0
        ax.set(xscale="log", ylim=(low - margin, high + margin))
        ax.set(xlabel="learning rate, growing from step to step", ylabel="loss before the step", title=self._title)
        ax.legend(frameon=False)
        return ax


def learning_rate_range_test(
    net: Sequential,
    loss: Loss,
    X: Any,
    y: Any,
    *,
    optimizer: Optimizer | None = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
) -> LearningRateReport:
    """Suggest a learning rate from one short run in which it grows from `low` to `high`.

        α_i = low · (high / low)^(i / (steps − 1))          step i, on a batch of its own
        suggested: ⅓ α, α where the smoothed loss is lowest

    At low rates nothing happens, then the loss falls, then it rises. The run ends where the loss diverges: where it is not
    finite, or the median of three steps is as far above the first losses as the lowest was below them, and clear of their noise.

    Rows X (N, D), targets y (N,) or (N, K). `optimizer` is the one to be tuned, with the state it has (default `SGD`); its own
    rate or schedule plays no part. Copies are trained; nothing of yours has changed. Raises TypeError or ValueError for what does
    not fit, FloatingPointError if the loss is not finite before the first step.
    Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.3, arXiv:1506.01186.

    >>> import numpy as np, backprop as bp
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> net = bp.Sequential(bp.Linear(1, 1), seed=0)
    >>> report = bp.learning_rate_range_test(net, bp.LeastSquares(), X, 2 * X[:, 0] + 1)
    >>> 0.1 < report.learning_rate < bp.learning_rate_ceiling(net, bp.LeastSquares(), X, 2 * X[:, 0] + 1)
    True
    """
    who = "learning_rate_range_test"
    checks.instance(who, "net", net, Sequential)
    checks.instance(who, "loss", loss, Loss)
    optimizer = checks.instance(who, "optimizer", SGD(1.0) if optimizer is None else optimizer, Optimizer)
    low = checks.number(who, "low", low, above=0)
    high = checks.number(who, "high", high, above=low)
    rates = np.geomspace(low, high, checks.integer(who, "steps", steps, least=10))
    size = checks.integer(who, "batch_size", batch_size)
    seed = checks.integer(who, "seed", seed, least=0)
    examples = Examples(who, net, loss, X, y)
    net, optimizer = copy.deepcopy((net, optimizer))  # together: they may belong to each other
    trainer = Trainer(net, loss, optimizer, seed=seed)
    return _sweep(trainer, np.asarray(X), np.asarray(y), rates, _batches(examples, min(size, examples.n), seed))


def _batches(examples: Examples, size: int, seed: int) -> Iterator[Array]:
    """Rows of full batches, epoch after epoch."""
    for epoch in count():
        order = examples.order(seed, epoch)
        for start in range(0, examples.n - size + 1, size):
            yield order[start : start + size]


def _sweep(trainer: Trainer, X: Array, y: Array, rates: Array, batches: Iterator[Array]) -> LearningRateReport:
    """Take a step with each rate until the loss diverges."""
    losses: list[float] = []
    opening = opening_of(len(rates))
    lowest = limit = diverged = math.inf
    for rate, rows in zip(rates, batches, strict=False):
        trainer.optimizer.schedule = ConstantRate(float(rate))
        try:
            losses.append(trainer.step(X[rows], y[rows]))
        except FloatingPointError:
            if not losses:
                raise
            diverged = float(rate)
            break
        recent = float(np.median(losses[-3:]))  # one odd batch is no divergence
        lowest = min(lowest, recent)
        if len(losses) >= opening:
            start, noise = float(np.median(losses[:opening])), float(np.std(losses[:opening]))
            limit = start + max(start - lowest, 4 * noise)
        if recent > limit:
            diverged = float(rate)
            break
    found = np.array(losses)
    return LearningRateReport(rates[: len(found)], found, _smooth(np.minimum(found, limit), len(rates) // 20), diverged)


def opening_of(steps: int) -> int:
    """How many of the first steps have rates at which the loss stays where it is."""
    return max(5, steps // 10)


def _smooth(values: Array, width: int) -> Array:
    """Mean over neighbours at most `width` away, the nearer the more; unlike a running mean it lags on neither side."""
    kernel = np.bartlett(2 * width + 3)[1:-1]
    padded = np.pad(values, width), np.pad(np.ones(len(values)), width)
    total, weight = (np.convolve(x, kernel, "valid") for x in padded)
    return total / weight
