"""Losses of numbers: functions of the difference between outputs and targets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.functions import within
from backprop.losses.base import Loss


class _Difference(Loss):
    """A loss of d = f − y: subclasses give the value and slope of one entry."""

    measures = ("r2",)

    def ell(self, f: Array, y: Array) -> Array:
        self.d = f - y.astype(f.real.dtype)
        return self.entry(self.d).sum(axis=0)

    def dell_df(self) -> Array:
        return self.entry_slope(self.d)

    @abstractmethod
    def entry(self, d: Array) -> Array:
        """Loss of each entry."""

    @abstractmethod
    def entry_slope(self, d: Array) -> Array:
        """Its derivative."""

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """R², the share of the variance of y that f explains; none for a y that is constant up to rounding."""
        w = np.ones(y.shape[1]) if w is None else w
        f, y = f[:, w > 0].astype(float), y[:, w > 0].astype(float)
        w = w[w > 0]
        mean = np.average(y, axis=1, weights=w)[:, None]
        residual, spread = float(np.sum(w * (f - y) ** 2)), float(np.sum(w * (y - mean) ** 2))
        rounding = float(np.sum(w * (4 * np.finfo(float).eps * np.abs(y)) ** 2))
        return {"r2": 1 - residual / spread} if spread > rounding else {}


class LeastSquares(_Difference):
    """Sum of squared differences, as in the notes, without a factor ½.

        ℓ      = Σₖ (f − y)²
        ∂ℓ/∂f  = 2 (f − y)

    >>> import numpy as np, backprop as bp
    >>> loss = bp.LeastSquares()
    >>> loss.forward(np.array([[1.0, 2.0]]), np.array([0.0, 0.0])), loss.backward()
    (2.5, array([[1., 2.]]))
    """

    traced = True

    def entry(self, d: Array) -> Array:
        return d * d

    def entry_slope(self, d: Array) -> Array:
        return 2 * d


class AbsoluteError(_Difference):
    """Sum of absolute differences; its minimum is the median of y.

        ℓ      = Σₖ |f − y|
        ∂ℓ/∂f  = sign(f − y)          0 where they are equal

    >>> import numpy as np, backprop as bp
    >>> bp.AbsoluteError().forward(np.array([[1.0, -3.0]]), np.array([0.0, 0.0]))
    2.0
    """

    traced = True

    def entry(self, d: Array) -> Array:
        return d * np.sign(d.real)  # |d| would not be analytic on each side

    def entry_slope(self, d: Array) -> Array:
        return np.sign(d.real)


class Huber(_Difference):
    """Quadratic near 0, linear far away: outliers pull with a bounded force.

        ℓ      = Σₖ ½ d² if |d| ≤ δ, else δ(|d| − δ/2)          d = f − y
        ∂ℓ/∂f  = d clipped to [−δ, δ]

    Source: Huber (1964), "Robust estimation of a location parameter", Annals of Mathematical Statistics 35.

    >>> import numpy as np, backprop as bp
    >>> bp.Huber(delta=1.0).per_example(np.array([[0.5, 3.0]]), np.array([0.0, 0.0]))
    array([0.125, 2.5  ])
    """

    traced = True

    def __init__(self, delta: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = checks.number("Huber", "delta", delta, above=0)

    def entry(self, d: Array) -> Array:
        c = self.entry_slope(d)
        return c * (d - 0.5 * c)  # both branches in one

    def entry_slope(self, d: Array) -> Array:
        return within(d, -self.delta, self.delta)


class Pinball(Loss):
    """Quantile loss; several quantiles at once.

        ℓ      = Σ_q max(q d, (q − 1) d), d = y − f_q
        ∂ℓ/∂f  = −q if d > 0, 1 − q if d < 0           0 where they are equal

    For K targets and Q quantiles f has Q·K rows: all targets for the first quantile, then for the second, and so on.
    Source: Koenker and Bassett (1978), "Regression quantiles", Econometrica 46.

    >>> import numpy as np, backprop as bp
    >>> bp.Pinball([0.1, 0.9]).per_example(np.array([[0.0], [0.0]]), np.array([1.0]))
    array([1.])
    """

    traced = True

    def __init__(self, quantiles: Sequence[float] = (0.5,), *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        several = isinstance(quantiles, Sequence | np.ndarray) and getattr(quantiles, "ndim", 1) == 1
        if isinstance(quantiles, str) or not several or not len(quantiles):
            expected = "quantiles as a sequence such as [0.1, 0.5, 0.9]"
            raise TypeError(checks.message("Pinball", expected, repr(quantiles)))
        self.quantiles = tuple(checks.number("Pinball", "quantile", q, above=0, below=1) for q in quantiles)

    @property
    def outputs_per_target(self) -> int:  # type: ignore[override]
        """One for each quantile."""
        return len(self.quantiles)

    def ell(self, f: Array, y: Array) -> Array:
        real = f.real.dtype
        d = f.reshape(len(self.quantiles), *y.shape) - y.astype(real)
        q, rest = (np.array(each, real)[:, None, None] for each in (self.quantiles, [1 - q for q in self.quantiles]))
        # Each term is its slope times f − y.
        self.pull = rest * (d.real > 0) - q * (d.real < 0)
        return (self.pull * d).reshape(f.shape).sum(axis=0)

    def dell_df(self) -> Array:
        return self.pull.reshape(-1, self.pull.shape[-1])
