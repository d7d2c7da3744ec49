"""The linear layer: f = β + Ω h."""

from __future__ import annotations

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.functions import column
from backprop.initializers import HeNormal, Initializer
from backprop.layers.base import Gradients, Layer


class Linear(Layer):
    """Affine map of each example.

        f       = β + Ω h            (D_out, N)
        ∂L/∂h   = Ωᵀ ∂L/∂f           (D_in, N)
        ∂L/∂β   = Σₙ ∂L/∂f           (D_out,)
        ∂L/∂Ω   = ∂L/∂f hᵀ           (D_out, D_in)

    The product ∂L/∂f hᵀ adds up the examples by itself; β needs the sum over columns because one β serves them all.
    Ω starts from `initializer` (default He normal, which keeps the mean square of h through ReLU layers), β from 0.

    Raises TypeError or ValueError for widths that are not whole numbers ≥ 1.
    Source: Rumelhart, Hinton and Williams (1986), "Learning representations by back-propagating errors", Nature 323.

    >>> layer = Linear(2, 1)
    >>> layer.omega = np.array([[2, 3]])
    >>> layer.forward(np.array([1.0, 10.0]))
    array([32.])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        initializer: Initializer | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.in_features = checks.integer("Linear", "in_features", in_features)
        self.out_features = checks.integer("Linear", "out_features", out_features)
        self.bias = checks.boolean("Linear", "bias", bias)
        self.initializer = HeNormal() if initializer is None else initializer
        if not isinstance(self.initializer, Initializer):
            raise TypeError(checks.message("Linear", "an initializer such as HeNormal()", repr(initializer)))
        # float32 takes the dtype of whatever it meets; Sequential(dtype=…) decides for a network.
        if self.bias:
            self.parameters["beta"] = np.zeros(self.out_features, np.float32)
        self.parameters["omega"] = np.empty((self.out_features, self.in_features), np.float32)
        self.initialize(checks.generator("Linear", seed))

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw Ω anew and set β to 0."""
        self.omega[...] = self.initializer(self.omega.shape, generator)
        if self.bias:
            self.beta[...] = 0

    def forward(self, h: Array) -> Array:
        self.h = h
        f = self.omega @ h
        return f + column(self.beta) if self.bias else f

    def infer(self, h: Array) -> Array:
        f = self.omega @ h
        return f + column(self.beta) if self.bias else f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        dL_dh = self.omega.T @ dL_df
        dL_dbeta = dL_df.sum(axis=1)
        dL_domega = dL_df @ self.h.T
        return dL_dh, {"beta": dL_dbeta, "omega": dL_domega} if self.bias else {"omega": dL_domega}
