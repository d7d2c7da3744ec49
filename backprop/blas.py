"""Products that end where they are needed: C ← scale · A B + keep · C."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backprop.checks import Array


@dataclass(slots=True)
class Landing:
    """Where a gradient goes: target ← scale · gradient + keep · target.

    With target Ω, scale −α and keep 1 the gradient product is the SGD update; with a velocity, scale 1 and keep μ it is
    momentum; with keep 0 the gradient is stored. A target of None stands for a new array.

    >>> import numpy as np
    >>> omega = np.ones((2, 2))
    >>> update = Landing(omega, scale=-0.1, keep=1.0)
    >>> _ = update.outer(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    >>> omega
    array([[0.9, 1. ],
           [0.8, 1. ]])
    """

    target: Array | None = None
    scale: float = 1.0
    keep: float = 0.0

    def outer(self, dL_df: Array, h: Array) -> Array:
        """Land dL_df hᵀ, summed over examples; (D_out, N) and (D_in, N), or two vectors."""
        if h.ndim == 1:
            dL_df, h = dL_df[:, None], h[:, None]
        if self.target is None or self.keep or self.scale != 1:
            return self.add(dL_df @ h.T)
        return np.matmul(dL_df, h.T, out=self.target)

    def sum(self, dL_df: Array) -> Array:
        """Land dL_df (D, N) summed over examples, or the vector (D,) itself."""
        if dL_df.ndim == 1:
            return self.add(dL_df.copy() if self.target is None else dL_df)
        if self.target is None or self.keep or self.scale != 1:
            return self.add(np.add.reduce(dL_df, axis=1))
        return np.add.reduce(dL_df, axis=1, out=self.target)

    def add(self, gradient: Array) -> Array:
        """Land a gradient that is already formed."""
        if self.target is None:
            return gradient
        if gradient is self.target:
            return gradient
        if self.keep == 0:
            return np.multiply(gradient, self.scale, out=self.target)
        if self.keep != 1:
            np.multiply(self.target, self.keep, out=self.target)
        axpy(self.scale, gradient, self.target)
        return self.target


FRESH = Landing()


def axpy(a: float, x: Array, y: Array) -> None:
    """Y ← a x + y, in place and without an array on the way; y contiguous.

    >>> import numpy as np
    >>> y = np.ones(2)
    >>> axpy(2.0, np.array([1.0, 10.0]), y)
    >>> y
    array([ 3., 21.])
    """
    from scipy.linalg import blas  # here, so that importing the package does not import SciPy

    if x.dtype == y.dtype and y.dtype.char in "fd" and y.flags.c_contiguous:
        function = blas.saxpy if y.dtype.char == "f" else blas.daxpy
        function(np.ravel(x), y.reshape(-1), a=a)
    else:
        np.add(y, a * x, out=y)
