"""Functions that several layers, losses and rules share: right up to ±inf, and complex-safe.

Complex-safe: a(h + iε) is a(h) + iε a'(h), because sides are chosen by the real part and |h| is written without `abs`.
So a complex step proves the derivatives to the last digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from backprop.checks import Array

FAR = 1000.0  # beyond it eʰ is 0 or inf in every type, so h may be cut there: 0 · ∞ never arises


def column(vector: Array) -> Array:
    """β (D,) as a column (D, 1), which is added to each example."""
    return vector[:, None]


def views(arrays: Mapping[str, Array], flat: Array) -> dict[str, Array]:
    """A vector (P,) that holds arrays of these shapes one after another, seen as them; of rows (N, P), each is (N, *shape)."""
    found, start = {}, 0
    for name, array in arrays.items():
        found[name] = flat[..., start : start + array.size].reshape(flat.shape[:-1] + array.shape)
        start += array.size
    return found


def positive_part(h: Array) -> Array:
    """max(h, 0)."""
    return h * (h.real > 0) if h.dtype.kind == "c" else np.maximum(h, 0)


def negative_part(h: Array) -> Array:
    """min(h, 0)."""
    return h * (h.real <= 0) if h.dtype.kind == "c" else np.minimum(h, 0)


def minus_abs(h: Array) -> Array:
    """−|h|."""
    return np.where(h.real > 0, -h, h) if h.dtype.kind == "c" else -np.abs(h)


def within(h: Array, low: float, high: float) -> Array:
    """H cut to [low, high], by the real part."""
    if h.dtype.kind == "c":
        return np.where(h.real < low, low, np.where(h.real > high, high, h))
    return np.clip(h, low, high)


def sigmoid(h: Array) -> Array:
    """σ(h) = 1/(1 + e⁻ʰ) = e^min(h, 0) / (1 + e^−|h|): both exponents are ≤ 0, so neither overflows."""
    return np.exp(negative_part(h)) / (1 + np.exp(minus_abs(h)))


def softplus_tail(h: Array) -> Array:
    """log(1 + e^−|h|) = log(1 + eʰ) − max(h, 0)."""
    return np.log1p(np.exp(minus_abs(h)))


def log_sigmoid(h: Array) -> Array:
    """Log σ(h) = min(h, 0) − log(1 + e^−|h|)."""
    return negative_part(h) - softplus_tail(h)


def norm(x: Array) -> float:
    """√(Σ x²) of a vector, without overflow on the way.

    >>> norm(np.array([3.0, 4.0]))
    5.0
    """
    if not x.size:
        return 0.0
    return float((load().snrm2 if x.dtype.char == "f" else load().dnrm2)(x))


def all_finite(x: Array) -> bool:
    """Whether every entry of a vector is finite.

    Σ x² is finite only if every term is; only when it is not (which may be mere overflow) does the exact test run.

    >>> all_finite(np.array([1e300, 0.0])), all_finite(np.array([np.inf, 0.0]))
    (True, False)
    """
    if not x.size:
        return True
    dot = load().sdot if x.dtype.char == "f" else load().ddot
    return bool(np.isfinite(dot(x, x))) or bool(np.isfinite(x).all())


@cache
def load() -> Any:
    """`scipy.linalg.blas`, loaded on first use: importing the package does not import SciPy."""
    from scipy.linalg import blas

    return blas


def named(arrays: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays by "key.name", of each part's arrays by name."""
    return {f"{key}.{name}": array for key, of_part in arrays.items() for name, array in of_part.items()}
