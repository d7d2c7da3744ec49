"""Activations: the same function a of every entry, h = a[f] in the notes.

Each class states its value and, two lines below, its slope; `Activation` does the rest:

    f      = a[h]                 same shape as h
    ∂L/∂h  = a'[h] ⊙ ∂L/∂f        the Jacobian is diagonal, so it multiplies pointwise

All of them are complex-safe: they treat h + iε as an analytic function would, and choose sides by the real part.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.elementwise import positive_part, sigmoid, softplus_tail
from backprop.layers.base import Gradients, Layer


class Activation(Layer):
    """An elementwise layer; subclasses give `value` and `slope`."""

    keeps_width = True

    def __init__(self) -> None:
        self._h: Array | None = None
        self._f: Array | None = None

    @abstractmethod
    def value(self, h: Array, f: Array) -> Array:
        """Write a[h] to f and return it."""

    @abstractmethod
    def slope(self, h: Array, f: Array) -> Array:
        """a'[h], from h or from f = a[h], whichever is cheaper."""

    def forward(self, h: Array) -> Array:
        """Return f = a[h], entry by entry."""
        self._h = h = checks.columns(self, "forward", h)
        self._f = self.value(h, self.empty("f", h.shape, h.dtype))
        return self._f

    def infer(self, h: Array) -> Array:
        """Return f = a[h], without a cache."""
        h = checks.columns(self, "infer", h)
        return self.value(h, self.empty("f", h.shape, h.dtype))

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return a'[h] ⊙ dL_df and no gradients."""
        h, f = self._h, self._f
        if h is None or f is None:
            raise checks.too_early(self)
        dL_df = checks.gradient(self, dL_df, f.shape)
        slope = self.slope(h, f)
        return np.multiply(slope, dL_df, out=self.empty("dL_dh", f.shape, np.result_type(slope, dL_df))), {}

    def scratch(self, like: Array, name: str = "scratch") -> Array:
        """An array like `like` for a step on the way."""
        return self.empty(name, like.shape, like.dtype)


class ReLU(Layer):
    """Rectified linear unit.

        f      = max(h, 0)
        ∂L/∂h  = 𝕀[h > 0] ⊙ ∂L/∂f       the slope at 0 is taken as 0

    Backward reads the indicator off f, which is positive exactly where h is.
    Source: Nair and Hinton (2010), "Rectified linear units improve restricted Boltzmann machines".

    >>> import numpy as np, backprop as bp
    >>> bp.ReLU().forward(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """

    replays = True
    keeps_width = True
    equations = ("f = max(h, 0)", "∂L/∂h = 𝕀[h > 0] ⊙ ∂L/∂f")

    def __init__(self) -> None:
        self._f: Array | None = None

    def forward(self, h: Array) -> Array:
        """Return f = max(h, 0)."""
        h = checks.columns(self, "forward", h)
        # A replica may write over the h that a Linear made for nobody else: one array less through the cache.
        f = h if self._may_overwrite_h else self.empty("f", h.shape, h.dtype)
        self._f = positive_part(h, f)
        return self._f

    def infer(self, h: Array) -> Array:
        """Return f = max(h, 0), without a cache."""
        h = checks.columns(self, "infer", h)
        return positive_part(h, self.empty("f", h.shape, h.dtype))

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return 𝕀[h > 0] ⊙ dL_df and no gradients."""
        f = self._f
        if f is None:
            raise checks.too_early(self)
        dL_df = checks.gradient(self, dL_df, f.shape)
        indicator = np.greater(f.real, 0, out=self.empty("indicator", f.shape, np.bool_))
        return np.multiply(dL_df, indicator, out=self.empty("dL_dh", f.shape, dL_df.dtype)), {}


class LeakyReLU(Activation):
    """ReLU that lets a little through below 0.

        f      = h for h > 0, negative_slope · h otherwise
        a'[h]  = 1 for h > 0, negative_slope otherwise

    Source: Maas, Hannun and Ng (2013), "Rectifier nonlinearities improve neural network acoustic models".

    >>> import numpy as np, backprop as bp
    >>> bp.LeakyReLU(0.1).forward(np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """

    replays = True
    equations = ("f = h for h > 0, c·h otherwise", "∂L/∂h = (1 for h > 0, c otherwise) ⊙ ∂L/∂f")

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = checks.number("LeakyReLU", "negative_slope", negative_slope, least=0)

    def value(self, h: Array, f: Array) -> Array:
        """Slope times h."""
        return np.multiply(self.slope(h, f), h, out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """1 or the negative slope."""
        below = np.multiply(h.real <= 0, self.negative_slope, out=self.scratch(h.real))
        return np.add(below, h.real > 0, out=self.scratch(h.real, "slope"))


class ELU(Activation):
    """Exponential linear unit.

        f      = h for h > 0, α(eʰ − 1) otherwise
        a'[h]  = 1 for h > 0, f + α otherwise

    Source: Clevert, Unterthiner and Hochreiter (2016), "Fast and accurate deep network learning by ELUs".

    >>> import numpy as np, backprop as bp
    >>> bp.ELU().forward(np.array([0.0, 2.0]))
    array([0., 2.])
    """

    replays = True
    equations = ("f = h for h > 0, α(eʰ − 1) otherwise", "∂L/∂h = (1 for h > 0, f + α otherwise) ⊙ ∂L/∂f")

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = checks.number("ELU", "alpha", alpha, above=0)

    def value(self, h: Array, f: Array) -> Array:
        """H or α expm1(h); the exponential never sees a large positive h."""
        positive_part(h, f)
        below = np.subtract(h, f, out=self.scratch(h))
        np.expm1(below, out=below)
        np.multiply(below, self.alpha, out=below)
        return np.add(f, below, out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """1 or f + α."""
        slope = np.add(f, self.alpha, out=self.scratch(f, "slope"))
        np.multiply(slope, h.real <= 0, out=slope)
        return np.add(slope, h.real > 0, out=slope)


class Sigmoid(Activation):
    """Logistic function.

        f      = 1 / (1 + e⁻ʰ)
        a'[h]  = f (1 − f)

    Computed as e^min(h, 0) / (1 + e^−|h|), exact to the last digits on both sides.

    >>> import numpy as np, backprop as bp
    >>> bp.Sigmoid().forward(np.array([0.0]))
    array([0.5])
    """

    replays = True
    equations = ("f = 1 / (1 + exp(−h))", "∂L/∂h = f (1 − f) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """e^min(h, 0) / (1 + e^−|h|)."""
        return sigmoid(h, f, self.scratch(h))

    def slope(self, h: Array, f: Array) -> Array:
        """Return f (1 − f)."""
        slope = np.subtract(1, f, out=self.scratch(f, "slope"))
        return np.multiply(slope, f, out=slope)


class Tanh(Activation):
    """Hyperbolic tangent.

        f      = tanh(h)
        a'[h]  = 1 − f²

    >>> import numpy as np, backprop as bp
    >>> bp.Tanh().forward(np.array([0.0]))
    array([0.])
    """

    replays = True
    equations = ("f = tanh(h)", "∂L/∂h = (1 − f²) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """tanh(h)."""
        return np.tanh(h, out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """1 − f²."""
        slope = np.multiply(f, f, out=self.scratch(f, "slope"))
        return np.subtract(1, slope, out=slope)


class SiLU(Activation):
    """Sigmoid linear unit, also called swish.

        f      = h σ(h)
        a'[h]  = σ(h) + f (1 − σ(h))

    Source: Elfwing, Uchibe and Doya (2018), "Sigmoid-weighted linear units for neural network function approximation".

    >>> import numpy as np, backprop as bp
    >>> bp.SiLU().forward(np.array([0.0]))
    array([0.])
    """

    replays = True
    equations = ("f = h σ(h)", "∂L/∂h = (σ(h) + f (1 − σ(h))) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """Return h σ(h)."""
        return np.multiply(h, sigmoid(h, self.scratch(h), self.scratch(h, "more")), out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """σ + f (1 − σ)."""
        s = sigmoid(h, self.scratch(h), self.scratch(h, "more"))
        slope = np.subtract(1, s, out=self.scratch(h, "slope"))
        np.multiply(slope, f, out=slope)
        return np.add(slope, s, out=slope)


class GELU(Activation):
    """Gaussian error linear unit, exact (no tanh approximation).

        f      = h Φ(h)                       Φ: standard normal distribution function
        a'[h]  = Φ(h) + h exp(−h²/2)/√(2π)

    Source: Hendrycks and Gimpel (2016), "Gaussian error linear units", arXiv:1606.08415.

    >>> import numpy as np, backprop as bp
    >>> bp.GELU().forward(np.array([0.0]))
    array([0.])
    """

    replays = True
    equations = ("f = h Φ(h)", "∂L/∂h = (Φ(h) + h φ(h)) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """Return h Φ(h)."""
        return np.multiply(h, self._distribution(h), out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """Φ(h) + h φ(h)."""
        slope = np.multiply(h, h, out=self.scratch(h, "slope"))
        np.multiply(slope, -0.5, out=slope)
        np.exp(slope, out=slope)
        np.multiply(slope, h, out=slope)
        np.multiply(slope, (2 * np.pi) ** -0.5, out=slope)
        return np.add(slope, self._distribution(h), out=slope)

    def _distribution(self, h: Array) -> Array:
        from scipy.special import ndtr  # here, so that importing the package does not import SciPy

        distribution: Array = ndtr(h, out=self.scratch(h))
        return distribution


class Softplus(Activation):
    """Smooth ReLU.

        f      = log(1 + eʰ)
        a'[h]  = σ(h)

    Computed as max(h, 0) + log(1 + e^−|h|), which does not overflow.
    Source: Dugas, Bengio, Bélisle, Nadeau and Garcia (2001), "Incorporating second-order functional knowledge".

    >>> import numpy as np, backprop as bp
    >>> bp.Softplus().forward(np.array([1e4]))
    array([10000.])
    """

    replays = True
    equations = ("f = log(1 + exp(h))", "∂L/∂h = σ(h) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """max(h, 0) + log1p(e^−|h|)."""
        positive_part(h, f)
        return np.add(f, softplus_tail(h, f, self.scratch(h)), out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """σ(h)."""
        return sigmoid(h, self.scratch(h, "slope"), self.scratch(h))


class Sin(Activation):
    """Sine, as in the notes' toy network and in networks that fit signals.

        f      = sin(h)
        a'[h]  = cos(h)

    Source: Sitzmann, Martel, Bergman, Lindell and Wetzstein (2020), "Implicit neural representations".

    >>> import numpy as np, backprop as bp
    >>> bp.Sin().forward(np.array([0.0]))
    array([0.])
    """

    replays = True
    equations = ("f = sin(h)", "∂L/∂h = cos(h) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """sin(h)."""
        return np.sin(h, out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """cos(h)."""
        return np.cos(h, out=self.scratch(h, "slope"))


class Cos(Activation):
    """Cosine.

        f      = cos(h)
        a'[h]  = −sin(h)

    >>> import numpy as np, backprop as bp
    >>> bp.Cos().forward(np.array([0.0]))
    array([1.])
    """

    replays = True
    equations = ("f = cos(h)", "∂L/∂h = −sin(h) ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """cos(h)."""
        return np.cos(h, out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """−sin(h)."""
        slope = np.sin(h, out=self.scratch(h, "slope"))
        return np.negative(slope, out=slope)


class Exp(Activation):
    """Exponential; it is its own slope.

        f      = eʰ
        a'[h]  = f

    >>> import numpy as np, backprop as bp
    >>> bp.Exp().forward(np.array([0.0]))
    array([1.])
    """

    replays = True
    equations = ("f = exp(h)", "∂L/∂h = f ⊙ ∂L/∂f")

    def value(self, h: Array, f: Array) -> Array:
        """exp(h)."""
        return np.exp(h, out=f)

    def slope(self, h: Array, f: Array) -> Array:
        """Return f itself."""
        return f


class Identity(Layer):
    """f = h: a place holder, and the branch of a fan-out that passes h on.

    >>> import numpy as np, backprop as bp
    >>> bp.Identity().forward(np.array([3.0]))
    array([3.])
    """

    replays = True
    keeps_width = True
    equations = ("f = h", "∂L/∂h = ∂L/∂f")

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None

    def forward(self, h: Array) -> Array:
        """Return a copy of h: what a caller gets is the caller's own."""
        f = self._same(checks.columns(self, "forward", h))
        self._shape = f.shape
        return f

    def infer(self, h: Array) -> Array:
        """Return a copy of h, without a cache."""
        return self._same(checks.columns(self, "infer", h))

    def _same(self, h: Array) -> Array:
        return np.positive(h, out=self.empty("f", h.shape, h.dtype))

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_df and no gradients."""
        dL_df = checks.gradient(self, dL_df, self._shape)
        return np.positive(dL_df, out=self.empty("dL_dh", dL_df.shape, dL_df.dtype)), {}
