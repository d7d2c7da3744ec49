"""Activations: the same function a of every entry, h = a[f] in the notes.

Each class states its value and, two lines below, its slope; `Activation` does the rest:

    f      = a[h]                 same shape as h
    ∂L/∂h  = a'[h] ⊙ ∂L/∂f        the Jacobian is diagonal, so it multiplies pointwise

All of them are complex-safe: they treat h + iε as an analytic function would, and choose sides by the real part. At ±inf they
give the limit, and far out the slope is taken from h, where 1 − f has lost all its digits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from backprop import checks
from backprop.autodiff import Value
from backprop.checks import Array
from backprop.functions import FAR, minus_abs, negative_part, positive_part, sigmoid, softplus_tail, within
from backprop.layers.base import Gradients, Layer


class Activation(Layer):
    """An elementwise layer; subclasses give `value` and `slope`.

    >>> import numpy as np
    >>> class Bell(Activation):
    ...     def value(self, h): return np.exp(-h * h)
    ...     def slope(self, h, f): return -2 * h * f
    >>> Bell().forward(np.array([0.0]))
    array([1.])
    """

    keeps_width = True

    @abstractmethod
    def value(self, h: Array) -> Array:
        """a[h]."""

    @abstractmethod
    def slope(self, h: Array, f: Array) -> Array:
        """a'[h], from h or from f = a[h], whichever is cheaper."""

    def forward(self, h: Array) -> Array:
        self.h, self.f = h, self.value(h)
        return self.f

    def infer(self, h: Array) -> Array:
        return self.value(h)

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        return self.slope(self.h, self.f) * dL_df, {}


class ReLU(Activation):
    """Rectified linear unit.

        f      = max(h, 0)
        ∂L/∂h  = 𝕀[h > 0] ⊙ ∂L/∂f       the slope at 0 is taken as 0

    Source: Nair and Hinton (2010), "Rectified linear units improve restricted Boltzmann machines".

    >>> ReLU().forward(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """

    def value(self, h: Array) -> Array:
        return positive_part(h)

    def slope(self, h: Array, f: Array) -> Array:
        return f.real > 0  # exactly where h is


class LeakyReLU(Activation):
    """ReLU that lets a little through below 0.

        f      = h for h > 0, c·h otherwise                           c: negative_slope
        ∂L/∂h  = (1 for h > 0, c otherwise) ⊙ ∂L/∂f

    Source: Maas, Hannun and Ng (2013), "Rectifier nonlinearities improve neural network acoustic models".

    >>> LeakyReLU(0.1).forward(np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = checks.number("LeakyReLU", "negative_slope", negative_slope, least=0)

    def value(self, h: Array) -> Array:
        f = positive_part(h)
        return f + self.negative_slope * negative_part(h) if self.negative_slope else f  # 0 · −∞ is no number

    def slope(self, h: Array, f: Array) -> Array:
        return self.negative_slope + (1 - self.negative_slope) * (h.real > 0).astype(h.real.dtype)


class ELU(Activation):
    """Exponential linear unit.

        f      = h for h > 0, α(eʰ − 1) otherwise
        ∂L/∂h  = (1 for h > 0, α exp(h) otherwise) ⊙ ∂L/∂f

    Source: Clevert, Unterthiner and Hochreiter (2016), "Fast and accurate deep network learning by ELUs".

    >>> ELU().forward(np.array([0.0, 2.0]))
    array([0., 2.])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = checks.number("ELU", "alpha", alpha, above=0)

    def value(self, h: Array) -> Array:
        # The exponential never sees a large positive h.
        return positive_part(h) + self.alpha * np.expm1(negative_part(h))

    def slope(self, h: Array, f: Array) -> Array:
        # Not f + α, which loses its digits to cancellation.
        below = np.exp(negative_part(h))
        return below if self.alpha == 1 else below * (self.alpha + (1 - self.alpha) * (h.real > 0).astype(h.real.dtype))


class Sigmoid(Activation):
    """Logistic function.

        f      = 1 / (1 + exp(−h))
        ∂L/∂h  = f (1 − f) ⊙ ∂L/∂f

    Computed as e^min(h, 0) / (1 + e^−|h|), exact to the last digits on both sides.

    >>> Sigmoid().forward(np.array([0.0]))
    array([0.5])
    """

    def value(self, h: Array) -> Array:
        return sigmoid(h)

    def slope(self, h: Array, f: Array) -> Array:
        # e^−|h| / (1 + e^−|h|)²: far out 1 − f has no digits left.
        e = np.exp(minus_abs(h))
        return e / ((1 + e) * (1 + e))


class Tanh(Activation):
    """Hyperbolic tangent.

        f      = tanh(h)
        ∂L/∂h  = (1 − f²) ⊙ ∂L/∂f

    >>> Tanh().forward(np.array([0.0]))
    array([0.])
    """

    def value(self, h: Array) -> Array:
        return np.tanh(h)

    def slope(self, h: Array, f: Array) -> Array:
        # 1 / cosh²: far out 1 − f² has no digits left. 0 where cosh overflows.
        far = 0.99 * float(np.log(np.finfo(h.dtype).max))
        root = 1 / np.cosh(within(h, -far, far))
        return root * root


class SiLU(Activation):
    """Sigmoid linear unit, also called swish.

        f      = h σ(h)
        ∂L/∂h  = σ(h) (1 + h σ(−h)) ⊙ ∂L/∂f

    Source: Elfwing, Uchibe and Doya (2018), "Sigmoid-weighted linear units for neural network function approximation".

    >>> SiLU().forward(np.array([0.0]))
    array([0.])
    """

    def value(self, h: Array) -> Array:
        h = within(h, -FAR, np.inf)
        return h * sigmoid(h)

    def slope(self, h: Array, f: Array) -> Array:
        h = within(h, -FAR, FAR)
        return sigmoid(h) * (1 + h * sigmoid(-h))


class GELU(Activation):
    """Gaussian error linear unit, exact (no tanh approximation).

        f      = h Φ(h)                              Φ: standard normal distribution function
        ∂L/∂h  = (Φ(h) + h φ(h)) ⊙ ∂L/∂f             φ: its density, exp(−h²/2)/√(2π)

    Source: Hendrycks and Gimpel (2016), "Gaussian error linear units", arXiv:1606.08415.

    >>> GELU().forward(np.array([0.0]))
    array([0.])
    """

    def value(self, h: Array) -> Array:
        from scipy.special import ndtr  # here, so that importing the package does not import SciPy

        h = within(h, -FAR, np.inf)
        return h * ndtr(h)

    def slope(self, h: Array, f: Array) -> Array:
        from scipy.special import ndtr

        h = within(h, -FAR, FAR)
        return ndtr(h) + h * np.exp(h * h * -0.5) * (2 * np.pi) ** -0.5


class Softplus(Activation):
    """Smooth ReLU.

        f      = log(1 + exp(h))
        ∂L/∂h  = σ(h) ⊙ ∂L/∂f

    Computed as max(h, 0) + log(1 + e^−|h|), which does not overflow.
    Source: Dugas, Bengio, Bélisle, Nadeau and Garcia (2001), "Incorporating second-order functional knowledge".

    >>> Softplus().forward(np.array([1e4]))
    array([10000.])
    """

    def value(self, h: Array) -> Array:
        return positive_part(h) + softplus_tail(h)

    def slope(self, h: Array, f: Array) -> Array:
        return sigmoid(h)


class Sin(Activation):
    """Sine, as in the notes' toy network and in networks that fit signals.

        f      = sin(h)
        ∂L/∂h  = cos(h) ⊙ ∂L/∂f

    Source: Sitzmann, Martel, Bergman, Lindell and Wetzstein (2020), "Implicit neural representations".

    >>> Sin().forward(np.array([0.0]))
    array([0.])
    """

    def value(self, h: Array) -> Array:
        return np.sin(h)

    def slope(self, h: Array, f: Array) -> Array:
        return np.cos(h)


class Cos(Activation):
    """Cosine.

        f      = cos(h)
        ∂L/∂h  = −sin(h) ⊙ ∂L/∂f

    >>> Cos().forward(np.array([0.0]))
    array([1.])
    """

    def value(self, h: Array) -> Array:
        return np.cos(h)

    def slope(self, h: Array, f: Array) -> Array:
        return -np.sin(h)


class Exp(Activation):
    """Exponential; it is its own slope.

        f      = exp(h)
        ∂L/∂h  = f ⊙ ∂L/∂f

    >>> Exp().forward(np.array([0.0]))
    array([1.])
    """

    def value(self, h: Array) -> Array:
        return np.exp(h)

    def slope(self, h: Array, f: Array) -> Array:
        return f


class Identity(Activation):
    """A place holder, and the branch of a fan-out that passes h on.

        f      = h
        ∂L/∂h  = ∂L/∂f

    >>> Identity().forward(np.array([3.0]))
    array([3.])
    """

    def value(self, h: Array) -> Array:
        return h

    def slope(self, h: Array, f: Array) -> Array:
        return np.ones_like(h)

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        return dL_df, {}


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

    traced = False  # nobody knows what the function does

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
