"""Where training starts: how the weights Ω (D_out, D_in) are drawn, as a function of the shape and a generator.

The scale keeps the variance of activations, and of gradients, from growing or shrinking layer after layer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from backprop import checks, notation
from backprop.checks import Array

__all__ = ["Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Initializer"]
__all__ += ["LeCunNormal", "LeCunUniform", "Normal", "Orthogonal"]


class Initializer(ABC):
    """Draws an array of the given shape, (D_out, D_in), in float64: subclass it with `__call__`."""

    @abstractmethod
    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        """Return a new array of `shape`."""

    def __repr__(self) -> str:
        return notation.call(self)


class _Normal(Initializer):
    """Normal with mean 0 and a variance that depends on the widths."""

    @abstractmethod
    def variance_of(self, fan_out: int, fan_in: int) -> float:
        """Variance of one weight, from D_out and D_in."""

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return generator.normal(0.0, math.sqrt(self.variance_of(*shape)), shape)


class _Uniform(_Normal):
    """Uniform on ±√(3 variance), which has that variance."""

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        bound = math.sqrt(3.0 * self.variance_of(*shape))
        return generator.uniform(-bound, bound, shape)


class _He(_Normal):
    def variance_of(self, fan_out: int, fan_in: int) -> float:
        return 2.0 / fan_in


class _Glorot(_Normal):
    def variance_of(self, fan_out: int, fan_in: int) -> float:
        return 2.0 / (fan_in + fan_out)


class _LeCun(_Normal):
    def variance_of(self, fan_out: int, fan_in: int) -> float:
        return 1.0 / fan_in


class HeNormal(_He):
    """Normal with variance 2 / D_in: a ReLU drops half of the mean square, the 2 brings it back.
    Source: He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers", eq. 10.

    >>> round(float(HeNormal()((200, 50), np.random.default_rng(0)).var()), 3)
    0.04
    """


class HeUniform(_Uniform, _He):
    """Uniform with variance 2 / D_in. Source: He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers".

    >>> round(float(HeUniform()((200, 50), np.random.default_rng(0)).var()), 3)
    0.04
    """


class GlorotNormal(_Glorot):
    """Normal with variance 2 / (D_in + D_out), a compromise between the forward and the backward pass.
    Source: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks".

    >>> round(float(GlorotNormal()((150, 50), np.random.default_rng(0)).var()), 3)
    0.01
    """


class GlorotUniform(_Uniform, _Glorot):
    """Uniform with variance 2 / (D_in + D_out), for Tanh. Source: Glorot and Bengio (2010), as of `GlorotNormal`.

    >>> round(float(GlorotUniform()((150, 50), np.random.default_rng(0)).var()), 3)
    0.01
    """


class LeCunNormal(_LeCun):
    """Normal with variance 1 / D_in: a linear layer keeps the mean square of its input.
    Source: LeCun, Bottou, Orr and Müller (1998), "Efficient BackProp", section 4.6.

    >>> round(float(LeCunNormal()((200, 50), np.random.default_rng(0)).var()), 3)
    0.02
    """


class LeCunUniform(_Uniform, _LeCun):
    """Uniform with variance 1 / D_in. Source: LeCun, Bottou, Orr and Müller (1998), "Efficient BackProp", section 4.6.

    >>> round(float(LeCunUniform()((200, 50), np.random.default_rng(0)).var()), 3)
    0.02
    """


class Normal(_Normal):
    """Normal with mean 0 and variance σ² = `variance`, whatever the widths: what goes wrong without the scales above.

    Raises TypeError or ValueError for a variance < 0. Source: Prince (2023), "Understanding Deep Learning", section 7.5.

    >>> round(float(Normal(0.01)((100, 100), np.random.default_rng(0)).var()), 3)
    0.01
    """

    def __init__(self, variance: float) -> None:
        self.variance = checks.number("Normal", "variance", variance, least=0)

    def variance_of(self, fan_out: int, fan_in: int) -> float:
        return self.variance


class Orthogonal(Initializer):
    """Rows (or columns, whichever are fewer) orthonormal, times `gain`.

    The sign of each column follows the diagonal of R; without it the Q of a QR factorization is not uniformly distributed.
    Source: Saxe, McClelland and Ganguli (2014), "Exact solutions to the nonlinear dynamics of learning"; Mezzadri (2007).

    >>> omega = Orthogonal()((3, 5), np.random.default_rng(0))
    >>> bool(np.allclose(omega @ omega.T, np.eye(3)))
    True
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = checks.number("Orthogonal", "gain", gain)

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        q, r = np.linalg.qr(generator.standard_normal((max(shape), min(shape))))
        q *= np.sign(np.diagonal(r))
        return self.gain * (q if shape[0] >= shape[1] else q.T)


class Constant(Initializer):
    """Every weight the same. All units of a layer then stay equal for ever: for tests and for teaching.
    Source: Rumelhart, Hinton and Williams (1986), "Learning internal representations by error propagation", on breaking symmetry.

    >>> Constant(0.5)((1, 2), np.random.default_rng(0))
    array([[0.5, 0.5]])
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = checks.number("Constant", "value", value)

    def __call__(self, shape: tuple[int, int], generator: np.random.Generator) -> Array:
        return np.full(shape, self.value)
