"""Learning rates that change: α as a function of the step t = 0, 1, 2, ….

A schedule stands wherever a learning rate does: `SGD(CosineDecay(0.1, steps=1000))`. It is a function of t alone, so training can
stop and go on; `ReduceOnPlateau` also listens to the loss of each epoch. Rates never reach the optimizer as NaN or below 0.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from typing import Any

from backprop import checks, notation

__all__ = ["ConstantRate", "CosineDecay", "ExponentialDecay", "OneCycle"]
__all__ += ["ReduceOnPlateau", "Schedule", "StepDecay", "WarmUp"]


class Schedule(ABC):
    """α(t), the learning rate of step t: subclass it with `__call__`.

    >>> class Halves(Schedule):
    ...     def __call__(self, t): return 0.5 ** t
    >>> Halves()(3)
    0.125
    """

    @abstractmethod
    def __call__(self, t: int) -> float:
        """Learning rate of step t, counted from 0."""

    def observe(self, loss: float) -> None:  # noqa: B027
        """Called after each epoch with its (validation) loss; most schedules do not listen."""

    def serve(self, owner: object | None) -> None:
        """Be the schedule of one optimizer, or of none. Raises ValueError where one that listens serves another already."""
        if type(self).observe is Schedule.observe:
            return
        held = vars(self).get("_serves", lambda: None)()
        if owner is not None and held not in (None, owner):
            advice = "It remembers losses: give each optimizer a schedule of its own."
            raise ValueError(checks.message(repr(self), "one optimizer", "a second one", advice))
        vars(self)["_serves"] = (lambda: None) if owner is None else weakref.ref(owner)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_serves"}  # a copy is free

    def __repr__(self) -> str:
        return notation.call(self)


class ConstantRate(Schedule):
    """α(t) = learning_rate.

    >>> ConstantRate(0.1)(1000)
    0.1
    """

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = checks.number("ConstantRate", "learning_rate", learning_rate, above=0)

    def __call__(self, t: int) -> float:
        return self.learning_rate


class StepDecay(Schedule):
    """α(t) = learning_rate · factor^⌊t / every⌋.

    >>> StepDecay(1.0, every=10, factor=0.5)(25)
    0.25
    """

    def __init__(self, learning_rate: float, *, every: int, factor: float = 0.1) -> None:
        self.learning_rate = checks.number("StepDecay", "learning_rate", learning_rate, above=0)
        self.every = checks.integer("StepDecay", "every", every)
        self.factor = checks.number("StepDecay", "factor", factor, above=0, most=1)

    def __call__(self, t: int) -> float:
        return self.learning_rate * self.factor ** (t // self.every)


class ExponentialDecay(Schedule):
    """α(t) = learning_rate · factorᵗ.

    >>> ExponentialDecay(1.0, factor=0.5)(2)
    0.25
    """

    def __init__(self, learning_rate: float, *, factor: float) -> None:
        self.learning_rate = checks.number("ExponentialDecay", "learning_rate", learning_rate, above=0)
        self.factor = checks.number("ExponentialDecay", "factor", factor, above=0, most=1)

    def __call__(self, t: int) -> float:
        return self.learning_rate * self.factor**t


class CosineDecay(Schedule):
    """α(t) = final + ½ (learning_rate − final)(1 + cos(π t / steps)): half a cosine in `steps` steps, then constant.
    Source: Loshchilov and Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.

    >>> round(CosineDecay(0.1, steps=100)(50), 6)
    0.05
    """

    def __init__(self, learning_rate: float, *, steps: int, final: float = 0.0) -> None:
        self.learning_rate = checks.number("CosineDecay", "learning_rate", learning_rate, above=0)
        self.steps = checks.integer("CosineDecay", "steps", steps)
        self.final = checks.number("CosineDecay", "final", final, least=0)

    def __call__(self, t: int) -> float:
        share = min(t / self.steps, 1.0)
        return self.final + 0.5 * (self.learning_rate - self.final) * (1 + math.cos(math.pi * share))


class WarmUp(Schedule):
    """α(t) = after(0) · (t + 1) / (steps + 1) for t < steps, after(t − steps) from then on: a straight rise, then `after`.
    Source: Goyal et al. (2017), "Accurate, large minibatch SGD", section 2.2.

    >>> [round(WarmUp(0.4, steps=3)(t), 3) for t in range(5)]
    [0.1, 0.2, 0.3, 0.4, 0.4]
    """

    def __init__(self, after: float | Schedule, *, steps: int) -> None:
        self.after = schedule("WarmUp", after)
        self.steps = checks.integer("WarmUp", "steps", steps)

    def __call__(self, t: int) -> float:
        if t < self.steps:
            return self.after(0) * (t + 1) / (self.steps + 1)
        return self.after(t - self.steps)

    def serve(self, owner: object | None) -> None:
        self.after.serve(owner)

    def observe(self, loss: float) -> None:
        self.after.observe(loss)


class OneCycle(Schedule):
    """Up to `learning_rate` in the first `rise` of the steps, then down to almost 0, both along half a cosine.
    It starts at learning_rate / 25 and ends at learning_rate / 250,000, the defaults of PyTorch's OneCycleLR.
    Source: Smith and Topin (2018), "Super-convergence", arXiv:1708.07120.

    >>> cycle = OneCycle(1.0, steps=100)
    >>> round(cycle(0), 3), round(cycle(29), 3), cycle(99) < 1e-5
    (0.04, 1.0, True)
    """

    def __init__(self, learning_rate: float, *, steps: int, rise: float = 0.3) -> None:
        self.learning_rate = checks.number("OneCycle", "learning_rate", learning_rate, above=0)
        self.steps = checks.integer("OneCycle", "steps", steps, least=2)
        self.rise = checks.number("OneCycle", "rise", rise, above=0, below=1)

    def __call__(self, t: int) -> float:
        top, last = self.rise * self.steps - 1, self.steps - 1
        if t < top:
            share, low, high = t / top, self.learning_rate / 25, self.learning_rate
        else:
            share, low, high = min((t - top) / (last - top), 1.0), self.learning_rate, self.learning_rate / 250_000
        return high + 0.5 * (low - high) * (1 + math.cos(math.pi * share))


class ReduceOnPlateau(Schedule):
    """Multiply the rate by `factor` when the loss has not improved for more than `patience` epochs.
    An epoch improves when loss < best − |best| · threshold: the rule of PyTorch's ReduceLROnPlateau, made right below 0.
    NaN never improves.

    >>> rate = ReduceOnPlateau(1.0, factor=0.5, patience=0)
    >>> for loss in (3.0, 2.0, 2.0): rate.observe(loss)
    >>> rate(0)
    0.5
    """

    def __init__(
        self, learning_rate: float, *, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4
    ) -> None:
        self.learning_rate = checks.number("ReduceOnPlateau", "learning_rate", learning_rate, above=0)
        self.factor = checks.number("ReduceOnPlateau", "factor", factor, above=0, below=1)
        self.patience = checks.integer("ReduceOnPlateau", "patience", patience, least=0)
        self.threshold = checks.number("ReduceOnPlateau", "threshold", threshold, least=0, below=1)
        self._rate, self._best, self._waited = self.learning_rate, math.inf, 0

    def __call__(self, t: int) -> float:
        return self._rate

    def observe(self, loss: float) -> None:
        margin = 0.0 if math.isinf(self._best) else abs(self._best) * self.threshold
        if loss < self._best - margin:
            self._best, self._waited = loss, 0
        elif self._waited < self.patience:
            self._waited += 1
        else:
            self._rate, self._waited = self._rate * self.factor, 0


def schedule(who: object, learning_rate: object) -> Schedule:
    """A schedule of what was given: a number becomes `ConstantRate`. Raises TypeError or ValueError."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    return ConstantRate(checks.number(who, "learning_rate", learning_rate, above=0))
