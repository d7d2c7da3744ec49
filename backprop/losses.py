"""Losses: how far the outputs f (K, N) are from the targets y, one example per column.

    L      = Σ_n w_n ℓ_n / Σ_n w_n      reduction="mean"        or Σ_n w_n ℓ_n      reduction="sum"
    ∂L/∂f  = w_n / Σ w · ∂ℓ_n/∂f_n

Each class gives ℓ_n and, right below, ∂ℓ_n/∂f_n; `Loss` does the weights, the checks and the reduction, so the gradient
is the gradient of exactly the number that `forward` returns. Without sample weights w_n = 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.elementwise import positive_part, sigmoid, softplus_tail
from backprop.memory import Recycling, shallow

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "GaussianNLL",
    "Huber",
    "LeastSquares",
    "Loss",
    "Pinball",
    "Poisson",
]


class Loss(Recycling, ABC):
    """Subclass it with `ell` and `dell_df`; `ell` keeps on self what `dell_df` needs.

    Raises ValueError for an unknown reduction; `forward` raises TypeError or ValueError for targets that do not fit.

    >>> import numpy as np, backprop as bp
    >>> class Cubic(bp.Loss):
    ...     def ell(self, f, y):
    ...         self.d = f - y
    ...         return (self.d**3).sum(axis=0)
    ...     def dell_df(self):
    ...         return 3 * self.d**2
    >>> loss = Cubic()
    >>> loss.forward(np.array([[2.0, 1.0]]), np.array([[0.0, 0.0]])), loss.backward()
    (4.5, array([[6. , 1.5]]))
    """

    outputs_per_target: int = 1
    measures: ClassVar[tuple[str, ...]] = ()  # the names `metrics` returns
    takes_labels: ClassVar[bool] = False  # y may be labels (N,) whatever the number of outputs
    equations: ClassVar[tuple[str, str]] = ("ℓ = loss[f, y]", "∂ℓ/∂f")

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = checks.choice(type(self).__name__, "reduction", reduction, ["mean", "sum"])

    reduction: str = "mean"
    divisor: float = 0.0  # of the last forward pass: N, Σ w, or 1; 0 before it
    _weights: Array | None = None
    _shape: tuple[int, ...] = ()

    @abstractmethod
    def ell(self, f: Array, y: Array) -> Array:
        """ℓ_n (N,) for outputs f (K, N) and targets y, (K, N) or labels (N,)."""

    @abstractmethod
    def dell_df(self) -> Array:
        """∂ℓ_n/∂f_n (K, N) of the last `ell`."""

    def forward(self, f: Array, y: Array, sample_weight: Array | None = None) -> float:
        """L of outputs f (K, N) and targets y: labels (N,) or (K, N). Caches what `backward` needs.

        A vector f (K,) is one example with K outputs; pass f[None] for N examples with one output each.
        """
        columns = self._columns("forward", f)
        y = self.targets(y, columns.shape, single=np.ndim(f) < 2)
        if sample_weight is not None:
            sample_weight = checks.weights(f"{self!r}.forward", sample_weight, columns.shape[1])
        L = self.value(columns, y, sample_weight)
        self._shape = np.shape(f)
        return L

    def backward(self) -> Array:
        """dL_df in the shape of f: the gradient of the last `forward`. Raises RuntimeError before it."""
        dL_df = self.slope()
        if dL_df.shape != (self._shape[0], math.prod(self._shape[1:])):
            expected = f"∂ℓ/∂f with the shape of f, {self._shape}"
            raise ValueError(checks.message(f"{self!r}.backward", expected, f"shape {dL_df.shape}"))
        return dL_df.reshape(self._shape)

    def per_example(self, f: Array, y: Array) -> Array:
        """ℓ_n (N,), without weights; a pending `backward` is not disturbed."""
        columns = self._columns("per_example", f)
        return shallow(self).ell(columns, self.targets(y, columns.shape, single=np.ndim(f) < 2))

    def _columns(self, method: str, f: object) -> Array:
        """Outputs (K, N) of a floating or complex type; a vector (K,) is one example."""
        array = checks.floating(f"{self!r}.{method}", "f", f)
        if array.ndim not in (1, 2) or not array.size:
            raise ValueError(
                checks.message(f"{self!r}.{method}", "f with shape (K, N) or (K,)", f"shape {array.shape}")
            )
        return array.reshape(len(array), -1)

    def value(self, f: Array, y: Array, w: Array | None) -> float:
        """L of checked columns."""
        total: float = self.total(f, y, w).item()
        return total / self.divisor

    def total(self, f: Array, y: Array, w: Array | None, divisor: float | None = None) -> Array:
        """Σ_n w_n ℓ_n, an array (1,), from checked columns; L is this over `divisor`. A shard passes that of its whole batch."""
        ell = self.ell(f, y)
        if divisor is None:
            divisor = 1.0 if self.reduction == "sum" or w is not None else float(ell.shape[0])
            if w is not None and self.reduction == "mean":
                w = w / w.sum(dtype=float)
        if w is not None:
            w = w.astype(ell.real.dtype, copy=False)
            ell = ell * w
        self._weights, self.divisor = w, divisor
        return np.add.reduce(ell, axis=0, keepdims=True, out=self.empty("total", (1,), ell.dtype))

    def slope(self) -> Array:
        """dL_df (K, N) of the last `total`."""
        if not self.divisor:
            raise checks.too_early(self)
        share = 1 / self.divisor if self._weights is None else self._weights * (1 / self.divisor)
        dell_df = self.dell_df()
        return np.multiply(dell_df, share, out=self.empty("dL_df", dell_df.shape, dell_df.dtype))

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """Checked targets for outputs of `shape` (K, N): here as many rows as there are outputs.

        (N,) stands for (1, N) where there is one target per example; nothing is broadcast.
        """
        K, N = shape[0] // self.outputs_per_target, shape[1]
        y = checks.numeric(f"{self!r}", "y", y)
        expected = f"y with shape ({K}, {N})" + (f" or ({N},)" if K == 1 else "")
        fits = y.shape == (K, N) or (K == 1 and y.shape == (N,)) or (single and y.size == K and y.ndim < 2)
        if not fits or shape[0] % self.outputs_per_target:
            advice = "Pass y.T." if y.shape == (N, K) else ""
            if self.outputs_per_target > 1 and not advice:
                advice = f"Each target takes {self.outputs_per_target} outputs."
            got = f"shape {y.shape} for outputs of shape {shape}"
            raise ValueError(checks.message(repr(self), expected, got, advice))
        checks.finite(f"{self!r}", "y", y.T if y.ndim == 2 else y)
        self.check_values(y)
        return y.reshape(K, N)

    def from_rows(self, who: str, y: object, K: int, N: int) -> Array:
        """Targets as a person has them, rows (N,) or (N, K), checked and turned into the columns of `targets`."""
        y = checks.numeric(who, "y", y)
        width = K // self.outputs_per_target
        shapes: list[tuple[int, ...]] = [(N,)] if self.takes_labels or width == 1 else []
        shapes += [(N, width)] if width > 1 or not self.takes_labels else []
        if y.shape not in shapes:
            advice = "y takes one row per row of X."
            if y.T.shape in shapes:
                advice = "Pass y.T."
            elif y.shape == (N, 1) and (N,) in shapes:
                advice = "Pass y.ravel()."
            elif y.ndim and len(y) == N:
                advice = f"The network has {K} outputs; {self!r} takes {self.outputs_per_target} per target."
            expected = f"y with shape {' or '.join(map(str, shapes))} for {N} rows of X and {K} outputs"
            raise ValueError(checks.message(who, expected, f"shape {y.shape}", advice))
        checks.finite(who, "y", y)
        return self.targets(y.T, (K, N))

    def check_values(self, y: Array) -> None:
        """Refuse target values that mean nothing to this loss; most take any number."""

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Measures a person reads beside the loss; {} if there are none."""
        return {}

    def replica(self) -> Self:
        """The same loss for the trainer, with caches and recycled arrays of its own."""
        return self.recycled()

    @property
    def label(self) -> str:
        """Name of this loss in errors."""
        return repr(self)

    def __repr__(self) -> str:
        return checks.call(self)


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
        """C (d − ½ c) with c = d clipped, which is both branches in one."""
        clipped = self.entry_slope(d)
        return clipped * (d - 0.5 * clipped)

    def entry_slope(self, d: Array) -> Array:
        """D clipped to [−δ, δ], by the real part."""
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


class Poisson(Loss):
    """Counts with mean eᶠ, up to log y!, which does not depend on f.

        ℓ      = Σ_k (e^{f_k} − y_k f_k)
        ∂ℓ/∂f  = eᶠ − y

    f is the logarithm of the expected count. Raises ValueError for negative y.
    Source: Nelder and Wedderburn (1972), "Generalized linear models".

    >>> import numpy as np, backprop as bp
    >>> bp.Poisson().forward(np.array([[0.0]]), np.array([2.0]))
    1.0
    """

    replays = True
    equations = ("ℓ = Σₖ exp(f) − y f", "∂ℓ/∂f = exp(f) − y")

    def check_values(self, y: Array) -> None:
        """Counts are ≥ 0."""
        checks.values_between(repr(self), "y", y, 0, math.inf)

    def ell(self, f: Array, y: Array) -> Array:
        """Σ_k (eᶠ − y f)."""
        y = y.astype(f.real.dtype, copy=False)
        self._y, self._exp = y, np.exp(f)
        return np.add.reduce(self._exp - y * f, axis=0)

    def dell_df(self) -> Array:
        """eᶠ − y."""
        return self._exp - self._y


class GaussianNLL(Loss):
    """Negative log-likelihood of a normal distribution whose mean and variance are both outputs.

        ℓ      = Σ_k ½ (s_k + (y_k − μ_k)² e^{−s_k} + log 2π),   variance σ² = eˢ
        ∂ℓ/∂μ  = (μ − y) e^{−s}
        ∂ℓ/∂s  = ½ (1 − (y − μ)² e^{−s})

    For K targets f has 2K rows: K means μ, then K log-variances s. The logarithm lets a network output any number.
    Source: Nix and Weigend (1994), "Estimating the mean and variance of the target probability distribution".

    >>> import numpy as np, backprop as bp
    >>> round(bp.GaussianNLL().forward(np.array([[0.0], [0.0]]), np.array([0.0])), 4)
    0.9189
    """

    replays = True
    outputs_per_target = 2
    equations = ("ℓ = Σₖ ½(s + (y − μ)² e⁻ˢ + log 2π)", "∂ℓ/∂μ = (μ − y)e⁻ˢ, ∂ℓ/∂s = ½(1 − (y − μ)²e⁻ˢ)")

    def ell(self, f: Array, y: Array) -> Array:
        """½ (s + z² + log 2π), z² = (y − μ)² e^{−s}."""
        mean, s = f[: len(y)], f[len(y) :]
        difference = np.subtract(mean, y, dtype=f.dtype)
        precision = np.exp(-s)
        self._dmean = difference * precision
        self._z2 = self._dmean * difference
        return np.add.reduce(0.5 * (s + self._z2 + math.log(2 * math.pi)), axis=0)

    def dell_df(self) -> Array:
        """Rows for μ, then rows for s."""
        return np.concatenate([self._dmean, 0.5 * (1 - self._z2)])


class CrossEntropy(Loss):
    """Negative log-probability of the right class; the softmax is inside.

        p_k    = e^{f_k} / Σ_j e^{f_j}
        ℓ      = log Σ_j e^{f_j} − Σ_k y_k f_k        y one-hot; for a label y: log Σ_j e^{f_j} − f_y
        ∂ℓ/∂f  = p − y

    y is labels (N,) in 0 … K−1, or one-hot columns (K, N), or probabilities that sum to 1. All exponents are ≤ 0 after
    the largest f of each example is subtracted, so logits of ±10⁴ neither overflow nor lose the answer.
    Source: Bridle (1990), "Probabilistic interpretation of feedforward classification network outputs".

    >>> import numpy as np, backprop as bp
    >>> loss = bp.CrossEntropy()
    >>> round(loss.forward(np.zeros((2, 1)), np.array([1])), 4), loss.backward().T
    (0.6931, array([[ 0.5, -0.5]]))
    """

    replays = True
    takes_labels = True
    measures = ("accuracy",)
    equations = ("ℓ = log Σⱼ exp(fⱼ) − f_y", "∂ℓ/∂f = softmax(f) − onehot(y)")

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """Labels (N,) as whole numbers 0 … K−1, or columns (K, N) of probabilities."""
        K, N = shape
        y = checks.numeric(repr(self), "y", y)
        if single and y.shape == (K,) and (K > 1 or y.dtype.kind == "f"):
            y = y.reshape(K, 1)
        elif y.shape == (N,) or (single and y.shape == ()):
            return checks.labels(repr(self), y.reshape(N), K)
        if y.shape != (K, N):
            advice = "Pass y.T." if y.shape == (N, K) else "Pass y.ravel()." if y.shape == (N, 1) else ""
            expected = f"labels with shape ({N},) or one-hot columns with shape ({K}, {N})"
            raise ValueError(checks.message(repr(self), expected, f"shape {y.shape}", advice))
        checks.finite(repr(self), "y", y.T)
        checks.values_between(repr(self), "y", y, 0, 1)
        off = np.abs(y.sum(axis=0, dtype=float) - 1) > 1e-5
        if off.any():
            got = f"a sum of {y[:, np.argmax(off)].sum():g} for example {np.argmax(off)}"
            raise ValueError(checks.message(repr(self), "one-hot columns that sum to 1", got))
        return y

    def ell(self, f: Array, y: Array) -> Array:
        """Log Σ e^z − Σ y z with z = f − max f."""
        K, N = f.shape
        largest = np.maximum.reduce(f.real, axis=0, out=self.empty("largest", (N,), f.real.dtype))
        z = np.subtract(f, largest, out=self.empty("z", f.shape, f.dtype))
        self._p = np.exp(z, out=self.empty("p", f.shape, f.dtype))
        total = np.add.reduce(self._p, axis=0, out=self.empty("normalizer", (N,), f.dtype))
        np.divide(self._p, total, out=self._p)
        self._y = self.empty("y", f.shape, f.real.dtype)
        if y.ndim == 1:
            np.equal(np.arange(K)[:, None], y, out=self._y, casting="unsafe")
        else:
            np.copyto(self._y, y, casting="unsafe")
        np.multiply(z, self._y, out=z)
        right = np.add.reduce(z, axis=0, out=self.empty("right", (N,), f.dtype))
        np.log(total, out=total)
        return np.subtract(total, right, out=total)

    def dell_df(self) -> Array:
        """P − y."""
        return np.subtract(self._p, self._y, out=self.empty("slope", self._p.shape, self._p.dtype))

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Share of examples whose largest output is the right class."""
        right = y if y.ndim == 1 else np.argmax(y, axis=0)
        return {"accuracy": float(np.average(np.argmax(f, axis=0) == right, weights=w))}


class BinaryCrossEntropy(Loss):
    """Negative log-probability of yes/no answers; the sigmoid is inside. One output per question (multi-label).

        p      = σ(f)
        ℓ      = Σ_k log(1 + e^{f_k}) − y_k f_k
        ∂ℓ/∂f  = σ(f) − y

    y is 0 or 1 (or a probability between), (K, N); (N,) for one output.
    Source: Cox (1958), "The regression analysis of binary sequences".

    >>> import numpy as np, backprop as bp
    >>> loss = bp.BinaryCrossEntropy()
    >>> loss.forward(np.array([[1e4, -1e4]]), np.array([1, 0])), loss.backward()
    (0.0, array([[0., 0.]]))
    """

    replays = True
    measures = ("accuracy",)
    equations = ("ℓ = Σₖ log(1 + exp(f)) − y f", "∂ℓ/∂f = σ(f) − y")

    def check_values(self, y: Array) -> None:
        """Probabilities."""
        checks.values_between(repr(self), "y", y, 0, 1)

    def ell(self, f: Array, y: Array) -> Array:
        """max(f, 0) − y f + log(1 + e^−|f|), in which no two large numbers cancel to a wrong one."""
        self._f, self._y = f, y.astype(f.real.dtype, copy=False)
        scratch, entry = self.empty("scratch", f.shape, f.dtype), self.empty("entry", f.shape, f.dtype)
        tail = softplus_tail(f, positive_part(f, entry), self.empty("tail", f.shape, f.dtype))
        np.subtract(entry, np.multiply(self._y, f, out=scratch), out=entry)
        np.add(entry, tail, out=entry)
        return np.add.reduce(entry, axis=0)

    def dell_df(self) -> Array:
        """σ(f) − y."""
        f = self._f
        p = sigmoid(f, self.empty("p", f.shape, f.dtype), self.empty("scratch", f.shape, f.dtype))
        return np.subtract(p, self._y, out=p)

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Share of right answers at probability ½."""
        return {"accuracy": float(np.average(((f > 0) == (y > 0.5)).mean(axis=0), weights=w))}
