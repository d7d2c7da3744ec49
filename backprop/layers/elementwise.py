"""An activation from a formula: its slope comes from a computation graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backprop import checks
from backprop.autodiff import Value
from backprop.checks import Array
from backprop.layers.activations import Activation


class Elementwise(Activation):
    """The activation a given by `function`, which takes a `Value` and returns one of the same shape. Nobody writes a derivative.

        f      = a[h]
        ∂L/∂h  = a'[h] ⊙ ∂L/∂f

    a'[h] is ∂(Σ f)/∂h by `Value.backward`: entries do not mix, so each gets its own slope.
    `function` must treat every entry on its own: a mean or a softmax has no slope per entry. This is tested with the first
    h of each shape: weights w on the entries of f must come back as w ⊙ a'[h]. Each pass computes the graph anew, so a layer
    with a hand-written slope is several times faster.

    Raises TypeError if `function` is not callable, returns no Value, or complex numbers for real h; ValueError if it returns
    another shape or mixes entries.

    >>> import numpy as np, backprop as bp
    >>> def swish(v): return v * v.sigmoid()
    >>> net = bp.Sequential(bp.Linear(2, 8), bp.Elementwise(swish), bp.Linear(8, 1), seed=0)
    >>> net[1], bp.check_gradients(net, bp.LeastSquares(), np.eye(2), np.ones(2)).passed
    (Elementwise(swish), True)
    """

    def __init__(self, function: Callable[[Value], Value]) -> None:
        if not callable(function):
            raise TypeError(checks.message("Elementwise", "a function of a Value", repr(function)))
        self.function = function
        self._tested: set[tuple[int, ...]] = set()  # shapes

    def value(self, h: Array) -> Array:
        v, result = self._graph(h)
        if h.shape not in self._tested:
            self._test(v, result)
            self._tested.add(h.shape)
        return result.data.astype(h.dtype, copy=False)

    def slope(self, h: Array, f: Array) -> Array:
        v, result = self._graph(h)
        result.sum().backward()
        return v.grad

    def _graph(self, h: Array) -> tuple[Value, Value]:
        """Values of h and of function(h)."""
        v = Value(h, "h")
        result = self.function(v)
        if not isinstance(result, Value):
            advice = "Build it from the operations and methods of Value."
            raise TypeError(checks.message(self.label, "a function that returns a Value", repr(result), advice))
        if result.shape != h.shape:
            expected = f"a function that returns the shape of its argument, {h.shape}"
            raise ValueError(checks.message(self.label, expected, f"shape {result.shape}"))
        if not np.can_cast(result.data.dtype, h.dtype, "same_kind"):
            raise TypeError(checks.message(self.label, f"a function that returns {h.dtype}", f"{result.data.dtype}"))
        return v, result

    def _test(self, v: Value, result: Value) -> None:
        """Refuse a function in which one entry of f depends on several of h."""
        result.sum().backward()
        slope = v.grad
        v.grad = np.zeros_like(slope)
        # Powers of 2 scale without rounding, so that what is left is a mixture of entries.
        w = 2.0 ** np.random.default_rng(0).integers(0, 8, v.shape)
        (result * w).sum().backward()
        if not np.allclose(v.grad, w * slope, rtol=1e-4, atol=1e-30, equal_nan=True):
            advice = "Means, sums, products and softmax mix entries: write a Layer for them."
            raise ValueError(
                checks.message(self.label, "a function of each entry alone", "one that mixes entries", advice)
            )

    def __repr__(self) -> str:
        return f"Elementwise({getattr(self.function, '__name__', repr(self.function))})"
