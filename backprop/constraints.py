"""Constraints: what a parameter satisfies after each step, kept by projection: φ ← nearest point that satisfies it.

`Trainer(net, loss, optimizer, constraints={"*.omega": MaxNorm(3)})` projects every parameter whose name the pattern matches,
after the optimizer's step. The gradient and the optimizer's state are not touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from backprop import checks, notation
from backprop.checks import Array

__all__ = ["Constraint", "MaxNorm", "NonNegative"]


class Constraint(ABC):
    """A set that a parameter stays in: subclass it with `project`.

    >>> class Symmetric(Constraint):
    ...     def project(self, parameter): parameter[...] = (parameter + parameter.T) / 2
    >>> omega = np.array([[1.0, 4.0], [0.0, 1.0]])
    >>> Symmetric().project(omega)
    >>> omega.tolist()
    [[1.0, 2.0], [2.0, 1.0]]
    """

    @abstractmethod
    def project(self, parameter: Array) -> None:
        """Move `parameter`, an array in its own shape, to the nearest point of the set, in place."""

    def __repr__(self) -> str:
        return notation.call(self)


class MaxNorm(Constraint):
    """Ω_k ← Ω_k · min(1, limit / |Ω_k|): norms of at most `limit`, longer vectors are shortened, their direction kept.

    With axis 1 Ω_k is a row of Ω (D_out, D_in), the weights into unit k; with axis 0 a column, the weights out of one. The limit
    holds up to rounding. Raises ValueError for a parameter without that axis, such as β (D_out,), which has only axis 0.
    Sources: Srebro and Shraibman (2005), "Rank, trace-norm and max-norm"; Srivastava et al. (2014), "Dropout", section 5.1.

    >>> omega = np.array([[3.0, 4.0], [0.3, 0.4]])
    >>> MaxNorm(1).project(omega)
    >>> omega.round(3).tolist()
    [[0.6, 0.8], [0.3, 0.4]]
    """

    def __init__(self, limit: float, axis: int = 1) -> None:
        self.limit = checks.number("MaxNorm", "limit", limit, above=0)
        self.axis = checks.integer("MaxNorm", "axis", axis, least=0)

    def project(self, parameter: Array) -> None:
        """Shorten what is too long, in place."""
        if self.axis >= parameter.ndim:
            expected, got = f"a parameter with an axis {self.axis}", f"shape {parameter.shape}"
            raise ValueError(checks.message("MaxNorm", expected, got, 'The pattern "*.omega" leaves β out.'))
        vectors = parameter.swapaxes(self.axis, -1)
        squares = np.vecdot(vectors, vectors)
        if np.maximum.reduce(squares, axis=None) > self.limit * self.limit:  # mostly not: then nothing is written
            factors = np.minimum(1, self.limit / np.sqrt(np.maximum(squares, np.finfo(squares.dtype).tiny)))
            np.multiply(vectors, factors[..., None], out=vectors)


class NonNegative(Constraint):
    """No entry below 0: φ ← max(φ, 0).
    With `Linear` layers and monotone activations, weights ≥ 0 make each output a non-decreasing function of each input.

    >>> omega = np.array([[3.0, -4.0]])
    >>> NonNegative().project(omega)
    >>> omega
    array([[3., 0.]])
    """

    def project(self, parameter: Array) -> None:
        """Set what is negative to 0, in place."""
        np.maximum(parameter, 0, out=parameter)
