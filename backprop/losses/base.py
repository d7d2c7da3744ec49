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
from typing import Any, ClassVar

import numpy as np

from backprop import checks, notation
from backprop.checks import Array


class Loss(ABC):
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

    traced: ClassVar[bool] = False  # the promise that every pass makes the same NumPy calls
    reduction: str = "mean"
    outputs_per_target: int = 1
    measures: ClassVar[tuple[str, ...]] = ()  # the names `metrics` returns
    takes_labels: ClassVar[bool] = False  # y may be labels (N,) whatever the number of outputs
    equations: ClassVar[tuple[str, ...]] = ("ℓ = loss[f, y]", "∂ℓ/∂f")  # of the docstring's table; shown by `explain`
    _shape: tuple[int, ...] = ()

    def __init_subclass__(cls) -> None:
        if "equations" not in vars(cls) and (written := notation.equations(cls.__doc__)):
            cls.equations = written

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
        columns = self._columns("forward", f)
        y = np.array(self.targets(y, columns.shape, single=np.ndim(f) < 2))
        w = sample_weight
        if w is not None:
            w = checks.weights(checks.Door(self, "forward"), w, columns.shape[1])
        L: float = total(self, columns, y, share(self, columns, w)).item()
        self._shape = np.shape(f)
        return L

    def backward(self) -> Array:
        """dL_df in the shape of f: the gradient of the last `forward`. Raises RuntimeError before it."""
        if not self._shape:
            raise checks.too_early(self)
        return slope(self).reshape(self._shape)

    def per_example(self, f: Array, y: Array) -> Array:
        """ℓ_n (N,), without weights; a pending `backward` is not disturbed."""
        columns = self._columns("per_example", f)
        return copy.copy(self).ell(columns, np.array(self.targets(y, columns.shape, single=np.ndim(f) < 2)))

    def _columns(self, method: str, f: object) -> Array:
        """A copy of the outputs (K, N) of a floating or complex type; a vector (K,) is one example."""
        array = np.array(checks.floating(who := checks.Door(self, method), "f", f))
        if array.ndim not in (1, 2) or not array.size:
            raise ValueError(checks.message(who, "f with shape (K, N) or (K,)", f"shape {array.shape}"))
        return array.reshape(len(array), -1)

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """Checked targets for outputs of `shape` (K, N): here as many rows as there are outputs.

        (N,) stands for (1, N) where there is one target per example; nothing is broadcast.
        """
        K, N = shape[0] // self.outputs_per_target, shape[1]
        y = checks.numeric(self, "y", y)
        fits = y.shape == (K, N) or (K == 1 and y.shape == (N,)) or (single and y.size == K and y.ndim < 2)
        if not fits or shape[0] % self.outputs_per_target:
            raise self._misfit(y, shape, K, N)
        checks.finite(self, "y", y.T if y.ndim == 2 else y)
        self.check_values(y)
        return y.reshape(K, N)

    def _misfit(self, y: Array, shape: tuple[int, ...], K: int, N: int) -> ValueError:
        expected = f"y with shape ({K}, {N})" + (f" or ({N},)" if K == 1 else "")
        each = self.outputs_per_target
        advice = "Pass y.T." if y.shape == (N, K) else f"Each target takes {each} outputs." if each > 1 else ""
        return ValueError(checks.message(self, expected, f"shape {y.shape} for outputs of shape {shape}", advice))

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

    def check_values(self, y: Array) -> None:  # noqa: B027
        """Refuse target values that mean nothing to this loss; most take any number."""

    def metrics(self, f: Array, y: Array, w: Array | None = None) -> dict[str, float]:
        """Measures a person reads beside the loss; {} if there are none."""
        return {}

    @property
    def label(self) -> str:
        """Name of this loss in errors."""
        return repr(self)

    def __repr__(self) -> str:
        return checks.call(self)


def share(loss: Loss, f: Array, w: Array | None = None) -> Any:
    """What each example counts in L: one number for all, or s (N,) in the type of f for weights w (N,)."""
    if w is None:
        return 1 / f.shape[1] if loss.reduction == "mean" else 1.0
    return (w / w.sum(dtype=float) if loss.reduction == "mean" else w).astype(f.real.dtype)


def total(loss: Loss, f: Array, y: Array, share: Any) -> Array:
    """L = Σ_n s_n ℓ_n, an array (), of outputs f (K, N), checked targets y and shares s."""
    vars(loss)["_share"], vars(loss)["_of"] = share, f.shape
    with checks.naming(loss, "ell", f=f.shape, y=y.shape):
        ell = loss.ell(f, y)
    if np.shape(ell) != f.shape[1:]:
        raise ValueError(checks.message(f"{loss!r}.ell", f"ℓ with shape {f.shape[1:]}", f"shape {np.shape(ell)}"))
    checks.numbers_like(checks.Door(loss, "ell"), "ℓ", ell, f)
    if np.ndim(share):
        ell = np.where(share > 0, ell, 0)  # absent, even where its ℓ is inf
    return (share * ell).sum()


def slope(loss: Loss) -> Array:
    """∂L/∂f (K, N) of the last `total`."""
    share = vars(loss)["_share"]
    with checks.naming(loss, "dell_df", f=vars(loss)["_of"]):
        dell_df = loss.dell_df()
    if np.shape(dell_df) != vars(loss)["_of"]:
        expected = f"∂ℓ/∂f with the shape of f, {vars(loss)['_of']}"
        raise ValueError(checks.message(f"{loss!r}.backward", expected, f"shape {np.shape(dell_df)}"))
    if np.ndim(share):
        dell_df = np.where(share > 0, dell_df, 0)
    return share * dell_df
