"""Losses: how far the outputs f (K, N) are from the targets y, one example per column.

    L      = Σ_n s_n ℓ_n            share s_n = w_n / Σ w      reduction="mean"        or s_n = w_n      reduction="sum"
    ∂L/∂f  = s_n · ∂ℓ_n/∂f_n

Each class gives ℓ_n and, right below, ∂ℓ_n/∂f_n; `Loss` does the weights, the checks and the reduction, so the gradient
is the gradient of exactly the number that `forward` returns. Without sample weights w_n = 1. An example of weight 0 is absent,
whatever its ℓ; one of weight 2 is there twice.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from backprop import checks, notation
from backprop.around import targets
from backprop.checks import Array
from backprop.functions import within


class Loss(notation.Part, ABC):
    """Subclass it with `ell` and `dell_df`; `ell` keeps on self what `dell_df` needs.

    Raises ValueError for an unknown reduction; `forward` raises TypeError or ValueError for targets that do not fit.

    >>> class Cubic(Loss):
    ...     def ell(self, f, y):
    ...         self.d = f - y
    ...         return (self.d**3).sum(axis=0)
    ...     def dell_df(self):
    ...         return 3 * self.d**2
    >>> loss = Cubic()
    >>> loss.forward(np.array([[2.0, 1.0]]), np.array([[0.0, 0.0]])), loss.backward()
    (4.5, array([[6. , 1.5]]))
    """

    equations: ClassVar[tuple[str, ...]] = ("ℓ = loss[f, y]", "∂ℓ/∂f")  # of the docstring's table; shown by `explain`
    reduction: str = "mean"
    outputs_per_target: int = 1
    measures: ClassVar[tuple[str, ...]] = ()  # the names `metrics` returns
    takes_labels: ClassVar[bool] = False  # y may be labels (N,) whatever the number of outputs
    _shape: tuple[int, ...] = ()

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = checks.choice(type(self).__name__, "reduction", reduction, ["mean", "sum"])

    @abstractmethod
    def ell(self, f: Array, y: Array) -> Array:
        """ℓ_n (N,) for outputs f (K, N) and targets y, (K, N) or labels (N,)."""

    @abstractmethod
    def dell_df(self) -> Array:
        """∂ℓ_n/∂f_n (K, N) of the last `ell`."""

    def forward(self, f: Array, y: Array, sample_weight: Array | None = None) -> float:
        """L of outputs f (K, N) and targets y: labels (N,) or (K, N). Keeps what `backward` needs.

        A vector f (K,) is one example with K outputs; pass f[None] for N examples with one output each.
        """
        columns, y = self._copies("forward", f, y)
        if sample_weight is not None:
            sample_weight = checks.weights(checks.Door(self, "forward"), sample_weight, columns.shape[1])
        L = total(self, columns, y, share(self, columns, sample_weight))
        self._shape = np.shape(f)
        return L.item()

    def backward(self) -> Array:
        """dL_df in the shape of f: the gradient of the last `forward`. Raises RuntimeError before it."""
        if not self._shape:
            raise checks.too_early(self)
        return slope(self).reshape(self._shape)

    def per_example(self, f: Array, y: Array) -> Array:
        """ℓ_n (N,), without weights; a pending `backward` is not disturbed."""
        return copy.copy(self).ell(*self._copies("per_example", f, y))

    def _copies(self, method: str, f: object, y: object) -> tuple[Array, Array]:
        """Checked copies of f, floating or complex columns (K, N) or (K,) for one example, and of the targets."""
        array = np.array(checks.floating(who := checks.Door(self, method), "f", f))
        if array.ndim not in (1, 2) or not array.size:
            raise ValueError(checks.message(who, "f with shape (K, N) or (K,)", f"shape {array.shape}"))
        columns = array.reshape(len(array), -1)
        return columns, np.array(self.targets(y, columns.shape, single=array.ndim == 1))

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """Checked targets for outputs of `shape` (K, N): here as many rows as there are outputs.

        (N,) stands for (1, N) where there is one target per example; nothing is broadcast.
        """
        each = self.outputs_per_target
        K, N = shape[0] // each, shape[1]
        y = checks.numeric(self, "y", y)
        fits = y.shape == (K, N) or (K == 1 and y.shape == (N,)) or (single and y.size == K and y.ndim < 2)
        if not fits or shape[0] % each:
            raise targets.misfit(self, y, shape, f"y with shape ({K}, {N})" + (f" or ({N},)" if K == 1 else ""))
        checks.finite(self, "y", y.T)
        self.check_values(y)
        return y.reshape(K, N)

    def from_rows(self, who: str, y: object, K: int, N: int) -> Array:
        """Targets as a person has them, rows (N,) or (N, K), checked and turned into the columns of `targets`."""
        return self.targets(targets.rows(self, who, y, K, N).T, (K, N))

    def check_values(self, y: Array) -> None:
        """Refuse target values that mean nothing to this loss; most take any number."""

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Measures a person reads beside the loss; {} if there are none."""
        return {}

    @property
    def label(self) -> str:
        """Name of this loss in errors."""
        return repr(self)

    def __repr__(self) -> str:
        return notation.call(self)


def share(loss: Loss, f: Array, w: Array | None = None) -> Any:
    """What each example counts in L: one number for all, or s (N,) in the type of f for weights w (N,)."""
    if w is None:
        return 1 / f.shape[1] if loss.reduction == "mean" else 1.0
    return (w / w.sum(dtype=float) if loss.reduction == "mean" else w).astype(f.real.dtype)


def total(loss: Loss, f: Array, y: Array, share: Any) -> Array:
    """L = Σ_n s_n ℓ_n, an array (), of outputs f (K, N), checked targets y and shares s."""
    vars(loss).update(_share=share, _of=f.shape)
    with checks.naming(loss, "ell", f=f.shape, y=y.shape):
        ell = loss.ell(f, y)
    if np.shape(ell) != f.shape[1:]:
        raise ValueError(checks.message(f"{loss!r}.ell", f"ℓ with shape {f.shape[1:]}", f"shape {np.shape(ell)}"))
    checks.numbers(checks.Door(loss, "ell"), "ℓ", ell, "fiubc" if f.dtype.kind == "c" else "fiub")
    if np.ndim(share):
        ell = np.where(share > 0, ell, 0)  # absent, even where its ℓ is inf
    return (share * ell).sum()


def slope(loss: Loss) -> Array:
    """∂L/∂f (K, N) of the last `total`."""
    share, shape = vars(loss)["_share"], vars(loss)["_of"]
    with checks.naming(loss, "dell_df", f=shape):
        dell_df = loss.dell_df()
    if np.shape(dell_df) != shape:
        expected = f"∂ℓ/∂f with the shape of f, {shape}"
        raise ValueError(checks.message(f"{loss!r}.backward", expected, f"shape {np.shape(dell_df)}"))
    if np.ndim(share):
        dell_df = np.where(share > 0, dell_df, 0)
    return share * dell_df


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

    >>> loss = LeastSquares()
    >>> loss.forward(np.array([[1.0, 2.0]]), np.array([0.0, 0.0])), loss.backward()
    (2.5, array([[1., 2.]]))
    """

    def entry(self, d: Array) -> Array:
        return d * d

    def entry_slope(self, d: Array) -> Array:
        return 2 * d


class AbsoluteError(_Difference):
    """Sum of absolute differences; its minimum is the median of y.

        ℓ      = Σₖ |f − y|
        ∂ℓ/∂f  = sign(f − y)          0 where they are equal

    >>> AbsoluteError().forward(np.array([[1.0, -3.0]]), np.array([0.0, 0.0]))
    2.0
    """

    def entry(self, d: Array) -> Array:
        return d * np.sign(d.real)  # |d| would not be analytic on each side

    def entry_slope(self, d: Array) -> Array:
        return np.sign(d.real)


class Huber(_Difference):
    """Quadratic near 0, linear far away: outliers pull with a bounded force.

        ℓ      = Σₖ ½ d² if |d| ≤ δ, else δ(|d| − δ/2)          d = f − y
        ∂ℓ/∂f  = d clipped to [−δ, δ]

    Source: Huber (1964), "Robust estimation of a location parameter", Annals of Mathematical Statistics 35.

    >>> Huber(delta=1.0).per_example(np.array([[0.5, 3.0]]), np.array([0.0, 0.0]))
    array([0.125, 2.5  ])
    """

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

    >>> Pinball([0.1, 0.9]).per_example(np.array([[0.0], [0.0]]), np.array([1.0]))
    array([1.])
    """

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
