"""Losses of numbers: functions of the difference between outputs and targets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.losses.base import Loss


class _Difference(Loss):
    """A loss of d = f − y: subclasses give the value and slope of one entry."""

    measures = ("r2",)

    def ell(self, f: Array, y: Array) -> Array:
        """Σ_k of the entries."""
        dtype = np.result_type(f, np.float32)
        self._d = np.subtract(f, y, out=self.empty("d", f.shape, dtype), dtype=dtype)
        return np.add.reduce(self.entry(self._d), axis=0)

    def dell_df(self) -> Array:
        """Slope of the entries."""
        return self.entry_slope(self._d)

    @abstractmethod
    def entry(self, d: Array) -> Array:
        """Loss of each entry."""

    @abstractmethod
    def entry_slope(self, d: Array) -> Array:
        """Its derivative."""

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """R², the share of the variance of y that f explains."""
        w = np.ones(y.shape[1]) if w is None else w
        mean = np.average(y, axis=1, weights=w)[:, None]
        residual, spread = float(np.sum(w * (f - y) ** 2)), float(np.sum(w * (y - mean) ** 2))
        return {"r2": 1 - residual / spread} if spread > 0 else {}


class LeastSquares(_Difference):
    """Sum of squared differences, as in the notes, without a factor ½.

        ℓ      = Σ_k (f_k − y_k)²
        ∂ℓ/∂f  = 2 (f − y)

    >>> import numpy as np, backprop as bp
    >>> loss = bp.LeastSquares()
    >>> loss.forward(np.array([[1.0, 2.0]]), np.array([0.0, 0.0])), loss.backward()
    (2.5, array([[1., 2.]]))
    """

    replays = True
    equations = ("ℓ = Σₖ (f − y)²", "∂ℓ/∂f = 2 (f − y)")

    def entry(self, d: Array) -> Array:
        """d²."""
        return np.multiply(d, d, out=self.empty("entry", d.shape, d.dtype))

    def entry_slope(self, d: Array) -> Array:
        """2 d."""
        return np.multiply(d, 2, out=self.empty("slope", d.shape, d.dtype))


class AbsoluteError(_Difference):
    """Sum of absolute differences; its minimum is the median of y.

        ℓ      = Σ_k |f_k − y_k|
        ∂ℓ/∂f  = sign(f − y)          0 where they are equal

    >>> import numpy as np, backprop as bp
    >>> bp.AbsoluteError().forward(np.array([[1.0, -3.0]]), np.array([0.0, 0.0]))
    2.0
    """

    replays = True
    equations = ("ℓ = Σₖ |f − y|", "∂ℓ/∂f = sign(f − y)")

    def entry(self, d: Array) -> Array:
        """|d| as d · sign(d), which is analytic on each side."""
        return np.multiply(d, np.sign(d.real))

    def entry_slope(self, d: Array) -> Array:
        """sign(d)."""
        return np.sign(d.real)


class Huber(_Difference):
    """Quadratic near 0, linear far away: outliers pull with a bounded force.

        ℓ      = Σ_k ½ d_k²                  where |d_k| ≤ δ, d = f − y
                 Σ_k δ (|d_k| − δ/2)         elsewhere
        ∂ℓ/∂f  = d clipped to [−δ, δ]

    Source: Huber (1964), "Robust estimation of a location parameter", Annals of Mathematical Statistics 35.

    >>> import numpy as np, backprop as bp
    >>> bp.Huber(delta=1.0).per_example(np.array([[0.5, 3.0]]), np.array([0.0, 0.0]))
    array([0.125, 2.5  ])
    """

    replays = True
    equations = ("ℓ = Σₖ ½ d² if |d| ≤ δ, else δ(|d| − δ/2)", "∂ℓ/∂f = d clipped to [−δ, δ]")

    def __init__(self, delta: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = checks.number("Huber", "delta", delta, above=0)

    def entry(self, d: Array) -> Array:
        """Return c (d − ½ c) with c = d clipped, which is both branches in one."""
        clipped = self.entry_slope(d)
        return clipped * (d - 0.5 * clipped)

    def entry_slope(self, d: Array) -> Array:
        """Return d clipped to [−δ, δ], by the real part."""
        if d.dtype.kind == "c":
            return np.where(np.abs(d.real) <= self.delta, d, self.delta * np.sign(d.real))
        return np.minimum(np.maximum(d, -self.delta), self.delta)


class Pinball(Loss):
    """Quantile loss; several quantiles at once.

        ℓ      = Σ_q max(q d, (q − 1) d),   d = y − f_q
        ∂ℓ/∂f  = −q for d > 0, 1 − q for d < 0          0 where they are equal

    For K targets and Q quantiles f has Q·K rows: all targets for the first quantile, then for the second, and so on.
    Source: Koenker and Bassett (1978), "Regression quantiles", Econometrica 46.

    >>> import numpy as np, backprop as bp
    >>> bp.Pinball([0.1, 0.9]).per_example(np.array([[0.0], [0.0]]), np.array([1.0]))
    array([1.])
    """

    replays = True
    equations = ("ℓ = Σ_q max(q d, (q − 1) d), d = y − f_q", "∂ℓ/∂f = −q if d > 0, 1 − q if d < 0")

    def __init__(self, quantiles: Sequence[float] = (0.5,), *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if isinstance(quantiles, str) or not isinstance(quantiles, Sequence | np.ndarray) or not len(quantiles):
            raise TypeError(
                checks.message("Pinball", "quantiles as a sequence such as [0.1, 0.5, 0.9]", repr(quantiles))
            )
        self.quantiles = tuple(checks.number("Pinball", "quantile", q, above=0, below=1) for q in quantiles)
        self.outputs_per_target = len(self.quantiles)

    def ell(self, f: Array, y: Array) -> Array:
        """Σ over quantiles and targets, each as slope · (f − y)."""
        difference = f.reshape(len(self.quantiles), *y.shape) - y
        q = np.array(self.quantiles, f.real.dtype)[:, None, None]
        above, below = difference.real > 0, difference.real < 0
        self._slope = (1 - q) * above - q * below
        return np.add.reduce((self._slope * difference).reshape(f.shape), axis=0)

    def dell_df(self) -> Array:
        """−q or 1 − q."""
        return self._slope.reshape(-1, self._slope.shape[-1])
