"""What every question about a gradient is asked of: a network, a loss and examples, checked and copied."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.nesting import reseed
from backprop.checks import Array
from backprop.gradients.numeric import random_direction, sizes
from backprop.layers import Gradients, Identity, Layer
from backprop.losses import Loss
from backprop.losses.base import share
from backprop.sequential import Sequential


class Problem:
    """L of a network and its examples: h (D, N), y and w in columns, nothing of the caller's changed.

    The pass is that of training: BatchNorm takes the statistics of these examples, and Dropout one mask, the same in each
    call. `dtype` None keeps the type of the network. `lent` spares the copy, for a caller that plays passes of `problem.net`
    and never runs it. Raises TypeError or ValueError for what does not fit, in the name of `who`.
    """

    inputs = "X"  # the name of ∂L/∂X among the gradients
    rounding: Mapping[str, float] = MappingProxyType({})  # how far each may be off by rounding, where that is known

    def __init__(
        self, who: str, net: Layer, loss: Loss, X: Any, y: Any, w: Any = None, *, dtype: Any = None, lent: bool = False
    ) -> None:
        checks.instance(who, "net", net, Layer)
        checks.instance(who, "loss", loss, Loss)
        self.who, self.net = who, net if lent and isinstance(net, Sequential) else independent(net, dtype)
        self.loss = copy.copy(loss)
        self.dtype = self.net.phi.dtype
        X = np.asarray(checks.rows(who, X, net.in_features))
        checks.finite(who, "X", X, dtype=self.dtype)
        self.h = np.array(X.T, dtype=self.dtype)
        K = self.net.out_features or len(boundary.infer(self.net, self.h[:, :1]))
        self.y = np.array(self.loss.from_rows(who, y, K, self.n))  # a loss of one's own may write to it
        checks.finite(who, "y", self.y.T, dtype=self.dtype)
        if self.y.dtype.kind == "f":
            self.y = self.y.astype(self.dtype, copy=False)
        self.w = None if w is None else checks.weights(who, w, self.n)

    def present(self) -> Problem:
        """The same with examples of weight 0 replaced by one that counts: absent ones may overflow on their way."""
        if self.w is not None and not self.net.couples_examples and not self.w.all():
            there = np.where(self.w > 0, np.arange(self.n), np.argmax(self.w > 0))
            self.h, self.y = self.h[:, there], self.y[..., there]
        return self

    @property
    def n(self) -> int:
        """Number of examples."""
        return int(self.h.shape[1])

    def shares(self, f: Array) -> Any:
        """What each example counts in L."""
        return share(self.loss, f, self.w)

    def fresh(self) -> Problem:
        """The same problem with a network and a loss of its own, which know nothing of each other's passes."""
        twin = copy.copy(self)
        twin.net, twin.loss, twin.h = self.net.copy(), copy.deepcopy(self.loss), self.h.copy()
        return twin

    def beside(self, generator: np.random.Generator) -> Problem:
        """The same problem with φ and h moved a little, away from every kink; numbers that are not 0 keep their sign."""
        twin = self.fresh()
        for array in (twin.net.phi, twin.h):
            array += 1e-3 * generator.uniform(-1, 1, array.shape) * sizes(array)
        return twin

    def decoy(self) -> Array:
        """Other inputs (D, N) of the same kind, to see whether an earlier or later pass leaves traces."""
        return 0.75 * self.h + 0.25 * self.h[:, ::-1] if self.n > 1 else 0.9 * self.h

    def of_layer(self, layer: Layer, h: Array) -> Problem:
        """The same for one layer alone with inputs h, under L = Σ c ⊙ f."""
        alone = copy.copy(self)
        alone.net, alone.h, alone.loss, alone.w = independent(layer, self.dtype), h, Projection(), None
        alone.inputs = "X"
        alone.y = np.zeros(alone.fresh().forward().shape)
        return alone

    def of_loss(self) -> Problem:
        """The same for the loss alone: its inputs are the outputs of the network."""
        alone = copy.copy(self)
        alone.net, alone.h, alone.inputs = independent(Identity(), self.dtype), self.fresh().forward(), "f"
        return alone

    def without_the_last(self) -> Problem:
        """The same with one example less."""
        fewer = copy.copy(self)
        fewer.h, fewer.y = self.h[:, :-1].copy(), self.y[..., :-1]
        # Where only the last one counts, the others do without weights: all 0 is no mean.
        fewer.w = None if self.w is None or not self.w[:-1].any() else self.w[:-1]
        return fewer

    def visits(self, into: Callable[[Layer], bool] = lambda layer: True) -> list[tuple[str, Layer, Array]]:
        """(path, a copy of the layer, its inputs h) for each layer in a forward pass, the innermost first.

        `into` says which layers are looked into.
        """
        found: list[tuple[str, Layer, Array]] = []

        def watch(layer: Layer, untouched: Layer, path: str) -> None:
            run = layer.forward

            def forward(h: Array) -> Array:
                before = np.array(h, dtype=float)
                f = run(h)
                found.append((path, untouched, before.reshape(len(before), -1)))
                return f

            if path:
                vars(layer)["forward"] = forward
            if into(layer):
                for key, child in layer.children.items():
                    watch(child, untouched.children[key], f"{path}.{key}".lstrip("."))

        fresh = self.fresh()
        watch(fresh.net, self.net.copy(), "")
        fresh.forward()
        return found

    def forward(self) -> Array:
        """Outputs f (K, N)."""
        return run(self.net, self.h)

    def value(self) -> float:
        """L; complex where φ or h is."""
        return self.loss.forward(self.forward(), self.y, self.w)

    def backward(self, dL_df: Array) -> Gradients:
        """∂L/∂φ by name, and ∂L/∂X (N, D), of the last pass."""
        dL_dh, gradients = boundary.backward(self.net, dL_df)
        named = {**gradients, self.inputs: np.asarray(dL_dh).T}
        return {name: np.array(g, dtype=self.dtype) for name, g in named.items()}

    def gradients(self) -> Gradients:
        """The same of L, after a pass."""
        self.value()
        return self.backward(self.loss.backward())


def run(layer: Layer, h: Array) -> Array:
    """F of a forward pass whose randomness starts anew."""
    reseed(layer, 0)
    return boundary.forward(layer, h)


def independent(net: Layer, dtype: Any = None) -> Sequential:
    """A copy of a network, or a network of a copy of this layer (in float64), with φ in `dtype`."""
    own = net.copy() if isinstance(net, Sequential) else Sequential(net.copy(), dtype="float64")
    if dtype is not None and own.phi.dtype != dtype:
        own.bind(np.empty(own.size, dtype))
    return own


class Projection(Loss):
    """L = Σ c ⊙ f with fixed random c between ½ and 1½ of either sign: ∂L/∂f = c, so a layer can be looked at alone.

    Targets play no part.
    """

    def __init__(self) -> None:
        super().__init__("sum")

    def from_rows(self, who: str, y: object, K: int, N: int) -> Array:
        """Zeros in the place of targets."""
        return np.zeros((K, N))

    def targets(self, y: object, shape: tuple[int, ...], *, single: bool = False) -> Array:
        """Zeros in the place of targets."""
        return np.zeros(shape)

    def ell(self, f: Array, y: Array) -> Array:
        """Σ_k c f."""
        self._c = random_direction(f.shape, 0).astype(f.real.dtype)
        return (self._c * f).sum(axis=0)

    def dell_df(self) -> Array:
        """Return c."""
        return self._c.copy()
