"""Dropout: a random mask in training, the identity afterwards."""

from __future__ import annotations

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers.activations import Identity
from backprop.layers.base import Gradients, Layer


class Dropout(Layer):
    """Sets each entry to 0 with probability `rate` and divides the rest by 1 − rate, so that the mean stays.

        f      = m ⊙ h, m = 0 with probability rate, else 1/(1 − rate)
        ∂L/∂h  = m ⊙ ∂L/∂f

    `infer` is the identity. The trainer draws the mask from (seed, step, shard), so a run can be repeated to the bit.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), "Dropout", JMLR 15.

    >>> Dropout(0.5).infer(np.array([1.0, 2.0]))
    array([1., 2.])
    """

    keeps_width = True

    def __init__(self, rate: float = 0.5, *, seed: int | None = None) -> None:
        self.rate = checks.number("Dropout", "rate", rate, least=0, below=1)
        self.generator = checks.generator("Dropout", seed)

    def frozen(self) -> Identity:
        """The identity."""
        return Identity()

    def forward(self, h: Array) -> Array:
        draw = self.generator.random(h.shape, dtype=np.float32)
        scale = np.asarray(1 / (1 - self.rate), h.real.dtype)
        self.mask = (draw >= np.float32(self.rate)) * scale
        return self.mask * h

    def infer(self, h: Array) -> Array:
        return h

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        return self.mask * dL_df, {}

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"
