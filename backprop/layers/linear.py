"""The linear layer: f = β + Ω h."""

from __future__ import annotations

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.initializers import HeNormal, Initializer
from backprop.layers.base import Gradients, Layer, column


class Linear(Layer):
    """Affine map of each example.

        f       = β + Ω h            (D_out, N)
        ∂L/∂β   = Σ_n ∂L/∂f_n        (D_out,)
        ∂L/∂Ω   = ∂L/∂f hᵀ           (D_out, D_in)
        ∂L/∂h   = Ωᵀ ∂L/∂f           (D_in, N)

    The product ∂L/∂f hᵀ adds up the examples by itself; β needs the sum over columns because one β serves them all.
    Ω starts from `initializer` (default He normal, which keeps the mean square of h through ReLU layers), β from 0.

    Raises TypeError or ValueError for widths that are not whole numbers ≥ 1.
    Source: Rumelhart, Hinton and Williams (1986), "Learning representations by back-propagating errors", Nature 323.

    >>> import numpy as np, backprop as bp
    >>> layer = bp.Linear(2, 1)
    >>> layer.parameters["omega"][...] = [[2, 3]]
    >>> layer.forward(np.array([1.0, 10.0]))
    array([32.])
    """

    replays = True
    reuses_output = False
    equations = ("f = β + Ω h", "∂L/∂h = Ωᵀ ∂L/∂f", "∂L/∂β = Σₙ ∂L/∂f", "∂L/∂Ω = ∂L/∂f hᵀ")

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
        self._h: Array | None = None
        # float32 takes the dtype of whatever it meets; Sequential(dtype=…) decides for a network.
        if self.bias:
            self.parameters["beta"] = np.zeros(self.out_features, np.float32)
        self.parameters["omega"] = np.empty((self.out_features, self.in_features), np.float32)
        self.initialize(checks.generator("Linear", seed))

    def initialize(self, generator: np.random.Generator) -> None:
        """Draw Ω anew and set β to 0."""
        omega = self.parameters["omega"]
        omega[...] = self.initializer(omega.shape, generator)
        if self.bias:
            self.parameters["beta"][...] = 0

    def forward(self, h: Array) -> Array:
        """Return f = β + Ω h."""
        self._h = h = checks.columns(self, "forward", h)
        return self._affine(h)

    def infer(self, h: Array) -> Array:
        """Return f = β + Ω h, without a cache."""
        return self._affine(checks.columns(self, "infer", h))

    def _affine(self, h: Array) -> Array:
        omega = self.parameters["omega"]
        f = self.empty("f", (len(omega), *h.shape[1:]), np.result_type(omega, h))
        np.dot(omega, h, out=f)  # half the cost per call of np.matmul
        if self.bias:
            f += column(self.parameters["beta"], f)
        return f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh = Ωᵀ dL_df and {"beta": Σₙ dL_df, "omega": dL_df hᵀ}."""
        h = self._h
        if h is None:
            raise checks.too_early(self)
        omega, dL_dh = self.parameters["omega"], dL_df
        dL_df = checks.gradient(self, dL_df, omega.shape[:1] + h.shape[1:])
        if self._wants_dL_dh:
            dL_dh = self.empty("dL_dh", h.shape, np.result_type(omega, dL_df))
            np.dot(omega.T, dL_df, out=dL_dh)
        # Ω may change while its gradient lands, so its last use stands above.
        gradients = {"beta": self.land("beta").sum(dL_df)} if self.bias else {}
        gradients["omega"] = self.land("omega").outer(dL_df, h)
        return dL_dh, gradients
