"""What every question about a gradient is asked of: a network, a loss and examples, checked and copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.sequential import FlatGradients, Sequential


class Problem:
    """L of a network and its examples: h (D, N), y and w in columns, nothing of the caller's changed.

    The pass is that of training: BatchNorm takes the statistics of these examples, and Dropout one mask, the same in each
    call. `dtype` None keeps the type of the network. Raises TypeError or ValueError for what does not fit, in the name of `who`.
    """

    def __init__(
        self, who: str, net: Layer, loss: Loss, X: Any, y: Any, sample_weight: Any = None, *, dtype: Any = None
    ) -> None:
        checks.instance(who, "net", net, Layer)
        checks.instance(who, "loss", loss, Loss)
        self.who, self.net = who, independent(net, dtype)
        self.loss = loss.replica()
        self.loss._arrays = None
        self.dtype = self.net.phi.dtype
        X = np.asarray(checks.rows(who, X, net.in_features))
        checks.finite(who, "X", X, dtype=self.dtype)
        self.h = np.array(X.T, dtype=self.dtype)
        self.y = self.loss.from_rows(who, y, *self.forward().shape)
        checks.finite(who, "y", self.y.T, dtype=self.dtype)
        if self.y.dtype.kind == "f":
            self.y = self.y.astype(self.dtype, copy=False)
        self.w = None if sample_weight is None else checks.weights(who, sample_weight, self.h.shape[1])

    @property
    def n(self) -> int:
        """Number of examples."""
        return int(self.h.shape[1])

    def forward(self) -> Array:
        """Outputs f (K, N)."""
        self.net.reseed(0)
        return self.net.forward(self.h)

    def value(self) -> float:
        """L; complex where φ or h is."""
        return self.loss.forward(self.forward(), self.y, self.w)

    def gradient(self) -> tuple[float, Array, FlatGradients]:
        """L, ∂L/∂h (D, N), and the gradients of all parameters with `dL_dphi` (P,)."""
        L = self.value()
        dL_dh, gradients = self.net.backward(self.loss.backward())
        return L, dL_dh, gradients  # type: ignore[return-value]


def independent(net: Layer, dtype: Any = None) -> Sequential:
    """A copy of a network, or a network of a copy of this layer (in float64), with φ in `dtype`."""
    copy = net.copy() if isinstance(net, Sequential) else Sequential(net.copy(), dtype="float64")
    if dtype is not None and copy.phi.dtype != dtype:
        copy.bind(copy.phi.astype(dtype))
    return copy
