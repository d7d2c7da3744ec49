"""Dropout: a random mask in training, the identity afterwards."""

from __future__ import annotations

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers.activations import Identity
from backprop.layers.base import Gradients, Layer


class Dropout(Layer):
    """Sets each entry to 0 with probability `rate` and divides the rest by 1 − rate, so that the mean stays.

        f      = m ⊙ h            m = 0 with probability rate, else 1 / (1 − rate)
        ∂L/∂h  = m ⊙ ∂L/∂f

    `infer` is the identity. The trainer draws the mask from (seed, step, shard), so a run can be repeated to the bit.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), "Dropout", JMLR 15.

    >>> import numpy as np, backprop as bp
    >>> bp.Dropout(0.5).infer(np.array([1.0, 2.0]))
    array([1., 2.])
    """

    keeps_width = True
    equations = ("f = m ⊙ h, m = 0 with probability rate, else 1/(1 − rate)", "∂L/∂h = m ⊙ ∂L/∂f")

    def __init__(self, rate: float = 0.5, *, seed: int | None = None) -> None:
        self.rate = checks.number("Dropout", "rate", rate, least=0, below=1)
        self._generator = checks.generator("Dropout", seed)
        self._mask: Array | None = None

    def reseed(self, *key: int) -> None:
        """Draw the next mask from `key`."""
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    def frozen(self) -> Identity:
        """The identity."""
        return Identity()

    def forward(self, h: Array) -> Array:
        """Return m ⊙ h for a new mask m."""
        h = checks.columns(self, "forward", h)
        draw = self.empty("draw", h.shape, np.float32)
        self._generator.random(out=draw, dtype=np.float32)
        mask = self.empty("mask", h.shape, h.real.dtype)
        np.greater_equal(draw, np.float32(self.rate), out=mask, casting="unsafe")
        self._mask = np.multiply(mask, 1 / (1 - self.rate), out=mask)
        return np.multiply(mask, h, out=self.empty("f", h.shape, h.dtype))

    def infer(self, h: Array) -> Array:
        """Return a copy of h."""
        h = checks.columns(self, "infer", h)
        return np.positive(h, out=self.empty("f", h.shape, h.dtype))

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return m ⊙ dL_df and no gradients."""
        mask = self._mask
        if mask is None:
            raise checks.too_early(self)
        dL_df = checks.gradient(self, dL_df, mask.shape)
        return np.multiply(mask, dL_df, out=self.empty("dL_dh", mask.shape, np.result_type(mask, dL_df))), {}

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"
