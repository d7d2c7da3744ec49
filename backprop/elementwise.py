"""Elementwise functions that several layers and losses share: stable at ±10⁴ and complex-safe.

Complex-safe: f(h + iε) is f(h) + iε f'(h), because sides are chosen by the real part and |h| is written without `abs`.
So a complex step proves the derivatives to the last digits.
"""

from __future__ import annotations

import numpy as np

from backprop.checks import Array


def positive_part(h: Array, out: Array) -> Array:
    """Write max(h, 0) to out."""
    if h.dtype.kind == "c":  # np.maximum would look at the imaginary part where the real part is 0
        return np.multiply(h, h.real > 0, out=out)
    # A row of zeros, not the scalar 0: NumPy's maximum is vectorized for two arrays only (3 times faster).
    return np.maximum(h, np.zeros(h.shape[-1:], h.dtype), out=out)


def sigmoid(h: Array, out: Array, scratch: Array) -> Array:
    """Write 1/(1 + e⁻ʰ) = e^min(h, 0) / (1 + e^−|h|) to out; both exponents are ≤ 0, so neither overflows."""
    positive_part(h, out)
    below = np.subtract(h, out, out=scratch)
    np.subtract(below, out, out=out)  # min(h, 0) − max(h, 0) = −|h|
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.exp(below, out=below)
    return np.divide(below, out, out=out)


def softplus_tail(h: Array, positive: Array, out: Array) -> Array:
    """Write log(1 + e^−|h|) = log(1 + eʰ) − max(h, 0) to out, given positive = max(h, 0)."""
    np.subtract(h, positive, out=out)
    np.subtract(out, positive, out=out)
    np.exp(out, out=out)
    return np.log1p(out, out=out)
