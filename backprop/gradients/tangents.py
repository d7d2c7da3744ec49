"""Tangents: how f, the loss and its gradient change while φ moves along v, carried through the layers' own passes.

Each array holds value + iε·tangent, and complex arithmetic is the product rule, because ε² vanishes beside every number:

    (a + iεa') (b + iεb') = ab + iε (ab' + a'b)

The layers are complex-safe, so a forward and a backward pass of the network with φ + iεv give f + iε ∂f/∂φ v and ∂L/∂φ + iε H v,
exact to rounding, and no layer states a second derivative. Two kinds of layers are replaced for speed alone: `TangentLinear`
multiplies real matrices, `TangentActivation` evaluates real functions. `Complex` gives any other layer complex parameters.

Sources: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6; Squire and Trapp (1998), "Using
complex variables to estimate derivatives of real functions", SIAM Review 40.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.elementwise import sigmoid
from backprop.gradients.numeric import BESIDE, sizes, takes_complex
from backprop.gradients.problem import Problem
from backprop.layers import GELU, Activation, Composite, Cos, Layer, Linear, SiLU, Sin, Softplus
from backprop.layers.base import Gradients
from backprop.losses import Loss
from backprop.memory import replays

# ε of each type. Powers of two, so that scaling rounds nothing; not smaller, so that neither ε times a tangent nor, in
# float32, ε² leaves the range in which a processor is quick.
EPSILON = {np.dtype(np.float32): 2.0**-50, np.dtype(np.float64): 2.0**-100}

Moved = Callable[[complex], list[complex]]


class Tangents:
    """A replica of a problem's network and loss that carries tangents. It shares φ with the network.

    Raises ValueError for a layer or a loss of one's own whose tangents are wrong.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, phi = problem, problem.net.phi
        self.epsilon = EPSILON[phi.dtype]
        self.v, self.scale, self.product = np.zeros_like(phi), 1.0, np.empty_like(phi)
        self.net, self.loss = problem.net.replica(), problem.loss.replica()
        self._carry(self.net, 0)
        f = self._outputs().real
        if not replays(self.loss) and not _confirmed(_moving_loss(problem, f)):
            raise _loses_tangents(problem.who, problem.loss, "ell and dell_df")

    def forward(self, v: Array) -> Array:
        """Outputs f + iε f' (K, N) for a finite v (P,), which counts in units of `scale`: whatever its size, it does no harm."""
        self.scale = 2.0 ** max(math.frexp(max(v.max(), -v.min()))[1] - 1, -1000)
        np.multiply(v, 1 / self.scale, out=self.v, casting="unsafe")
        return self._outputs()

    def _outputs(self) -> Array:
        self.net.reseed(0)
        return self.net.forward(self.problem.h)

    def slope(self, f: Array, y: Array | None = None) -> Array:
        """∂L/∂f + iε (∂L/∂f)' (K, N) for targets y, by default those of the problem."""
        self.loss.total(f, self.problem.y if y is None else y, self.problem.w)
        return self.loss.slope()

    def tangent(self, array: Array) -> Array:
        """The tangent in an array, in units of `scale`."""
        return array.imag * (1 / self.epsilon)

    def backward(self, dL_df: Array) -> Array:
        """(∂L/∂φ)' (P,) for ∂L/∂f + iε (∂L/∂f)'."""
        self.net.backward(dL_df)
        return self.product * self.scale

    def _carry(self, layer: Layer, start: int) -> Layer:
        """What stands in the place of a layer of the replica whose parameters begin at φ[start]."""
        if isinstance(layer, Composite) and replays(layer):
            for key, child in layer.layers.items():
                size = child.size
                layer.layers[key] = self._carry(child, start)
                start += size
            return layer
        part = slice(start, start + layer.size)
        phi, v, product = self.problem.net.phi[part], self.v[part], self.product[part]
        if type(layer) is Linear:
            return TangentLinear(layer, v, product)
        if isinstance(layer, Activation) and replays(layer):
            return TangentActivation(layer)
        if replays(layer) and not layer.size:
            return layer
        return Complex(layer, phi, v, product)


class TangentLinear(Layer):
    """f = β + Ω h in real products. With real numbers for pairs, a complex (D, N) is a real (D, 2N), so one product serves both:

        f       = β + Ω h
        f'      = β' + Ω' h + Ω h'
        ∂L/∂h'  = Ω'ᵀ ∂L/∂f + Ωᵀ ∂L/∂f'
        ∂L/∂Ω'  = ∂L/∂f' hᵀ + ∂L/∂f h'ᵀ

    where ' is the tangent, Ω' and β' the entries of v. A real h, such as the data, has no tangent.
    """

    def __init__(self, layer: Linear, v: Array, product: Array) -> None:
        self.phi, self.v, self.product = layer.parameters, layer.views(v), layer.views(product)
        self._wants_dL_dh = layer._wants_dL_dh
        self.real, self.complex, self.epsilon = v.dtype, np.result_type(v, np.complex64), EPSILON[v.dtype]
        self._arrays = {}

    def forward(self, h: Array) -> Array:
        """Return f with its tangent."""
        omega, v = self.phi["omega"], self.v
        f = self.empty("f", (len(omega), h.shape[1]), self.complex)
        if h.dtype.kind == "c":
            h = np.ascontiguousarray(h, self.complex)
            np.dot(omega, pairs(h), out=pairs(f))
            f.imag += self._product("tangent", v["omega"], self._value("h", h))
        else:
            f.real = self._product("value", omega, h, 1.0)
            f.imag = self._product("tangent", v["omega"], h)
        if "beta" in v:
            f += (self.phi["beta"] + 1j * self.epsilon * v["beta"])[:, None]
        self._h = h
        return f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh with its tangent; the tangents of the gradients go into H v."""
        h, dL_dh = self._h, dL_df
        dL_df = np.ascontiguousarray(dL_df, self.complex)
        if self._wants_dL_dh:
            dL_dh = self.empty("dL_dh", h.shape, self.complex)
            np.dot(self.phi["omega"].T, pairs(dL_df), out=pairs(dL_dh))
            dL_dh.imag += self._product("through", self.v["omega"].T, self._value("dL_df", dL_df))
        tangent = self.empty("dL_df'", dL_df.shape, self.real)
        np.multiply(dL_df.imag, 1 / self.epsilon, out=tangent)
        if h.dtype.kind == "c":
            turned = self.empty("turned", h.shape, self.complex)  # (h', h / ε) meets (∂L/∂f, ε ∂L/∂f')
            np.multiply(h.imag, 1 / self.epsilon, out=turned.real)
            np.multiply(h.real, 1 / self.epsilon, out=turned.imag)
            np.dot(pairs(dL_df), pairs(turned).T, out=self.product["omega"])
        else:
            np.dot(tangent, h.T, out=self.product["omega"])
        if "beta" in self.product:
            np.add.reduce(tangent, axis=1, out=self.product["beta"])
        return dL_dh, {}

    def _value(self, name: str, array: Array) -> Array:
        """The values in a complex array, one after another in memory, as BLAS likes them."""
        return np.positive(array.real, out=self.empty(name, array.shape, self.real))

    def _product(self, name: str, A: Array, B: Array, scale: float | None = None) -> Array:
        """The product scale · A B, by default ε · A B."""
        AB = np.dot(A, B, out=self.empty(name, (len(A), B.shape[1]), self.real))
        return np.multiply(AB, self.epsilon, out=AB) if scale is None else AB


def pairs(array: Array) -> Array:
    """A complex (D, N) as the real (D, 2N) that it is in memory."""
    return array.view(array.real.dtype)


class TangentActivation(Layer):
    """f = a[h] from real functions, which are evaluated again only if h is not that of the last pass.

        f'      = a'[h] ⊙ h'
        ∂L/∂h'  = a'[h] ⊙ ∂L/∂f' + a''[h] ⊙ h' ⊙ ∂L/∂f

    The layer's own slope gives a', and on complex numbers a'': Im a'[h + iε] / ε. Where complex functions are slow,
    `SECOND_SLOPES` has a'' in real ones.
    """

    def __init__(self, layer: Activation) -> None:
        self.layer, self._arrays, self._value = layer, {}, np.empty(0)
        layer._arrays = None  # what it returns is kept

    def forward(self, h: Array) -> Array:
        """Return f with its tangent."""
        self._h = h
        if not np.array_equal(h.real, self._value):
            self._value = h.real.copy()
            self._f = self.layer.value(self._value, np.empty_like(self._value))
            self._slope = self.layer.slope(self._value, self._f)
            self._second: Array | None = None  # a''[h], which a Jacobian-vector product does without
        if h.dtype.kind == "f":
            return self._f
        f = self.empty("f", h.shape, h.dtype)
        f.real = self._f
        np.multiply(self._slope, h.imag, out=f.imag)
        return f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return dL_dh with its tangent."""
        dL_dh = self.empty("dL_dh", dL_df.shape, np.result_type(self._h, dL_df))
        np.multiply(self._slope, dL_df, out=dL_dh)
        if self._h.dtype.kind == "c":
            if self._second is None:
                second = SECOND_SLOPES.get(type(self.layer), self._by_complex_step)
                self._second = second(self._value, self._f, self._slope)
            dL_dh.imag += self._second * self._h.imag * dL_df.real
        return dL_dh, {}

    def _by_complex_step(self, h: Array, f: Array, slope: Array) -> Array:
        epsilon = EPSILON[h.dtype]
        return np.imag(self.layer.slope(h + 1j * epsilon, f + 1j * epsilon * slope)) * (1 / epsilon)


def _second_slope_of_silu(h: Array, f: Array, slope: Array) -> Array:
    s = sigmoid(h, np.empty_like(h), np.empty_like(h))
    return s * (1 - s) * (2 + h * (1 - 2 * s))


# a''[h] from h, f = a[h] and a'[h], for activations whose slope would need a complex exponential, sine or error function.
SECOND_SLOPES: dict[type[Layer], Callable[[Array, Array, Array], Array]] = {
    Sin: lambda h, f, slope: -f,
    Cos: lambda h, f, slope: -f,
    Softplus: lambda h, f, slope: slope * (1 - slope),
    SiLU: _second_slope_of_silu,
    GELU: lambda h, f, slope: (2 - h * h) * np.exp(-0.5 * h * h) * (2 * np.pi) ** -0.5,
}


class Complex(Layer):
    """Any other layer, as it is, with the complex parameters φ + iεv. One of one's own is checked in its first pass."""

    def __init__(self, layer: Layer, phi: Array, v: Array, product: Array) -> None:
        self.original, self.phi, self.v, self.epsilon = layer, phi, v, EPSILON[v.dtype]
        self.layer, self.product = layer.copy(), layer.views(product)
        self.moved = phi.astype(np.result_type(phi, np.complex64))
        self.layer.bind(self.moved)
        self.checked = replays(layer)

    def reseed(self, *key: int) -> None:
        """Hand the key on."""
        self.original.reseed(*key)
        self.layer.reseed(*key)

    def forward(self, h: Array) -> Array:
        """Return the layer's f."""
        # Beside h, too: where several entries stand at a kink, as many zeros do, no difference confirms anything.
        if not self.checked:
            places = (h.real, h.real + BESIDE * _random(h.shape, 5) * sizes(h.real))
            if not any(_confirmed(_moving_layer(self.original, self.phi, at)) for at in places):
                raise _loses_tangents(self.original.label, self.original, "forward and backward")
            self.checked = True
        self.moved.real = self.phi
        np.multiply(self.v, self.epsilon, out=self.moved.imag)
        f = np.array(self.layer.forward(h))
        # Products of two tangents leave some ε² beside a value of 0, and must not choose the side of a kink.
        f.real[np.abs(f.real) < self.epsilon**1.5] = 0
        return f

    def backward(self, dL_df: Array) -> tuple[Array, Gradients]:
        """Return the layer's dL_dh; the tangents of its gradients go into H v."""
        dL_dh, gradients = checks.backward_result(self.layer, self.layer.backward(dL_df))
        if not self.layer.children:
            gradients = self.layer.take(gradients)
        for name, gradient in gradients.items():
            np.multiply(np.imag(gradient), 1 / self.epsilon, out=self.product[name])
        return dL_dh, {}


def _confirmed(moved: Moved) -> bool:
    """Whether differences confirm each tangent. A large step may reach over a bend, a small one drown in rounding."""

    def agrees(i: int, unit: float) -> bool:
        def along(t: complex) -> complex:
            return moved(t * unit)[i]

        return takes_complex(along, along, along(0.0).real)

    return all(agrees(i, 1.0) or agrees(i, 1e-3) for i in range(len(moved(0.0))))


def _moving_layer(layer: Layer, phi: Array, h: Array) -> Moved:
    """What a layer returns, forward and backward, as a function of t, all of its inputs moving by t: a number for each array."""

    @cache
    def moved(t: complex) -> list[complex]:
        twin, there = layer.copy(), np.empty(phi.size, type(t))
        twin.bind(there)
        there[...] = phi + t * _direction(phi, 0)
        f = twin.forward(h + t * _direction(h, 1))
        dL_df = _random(f.shape, 2) + t * _random(f.shape, 3)
        dL_dh, gradients = checks.backward_result(twin, twin.backward(dL_df))
        return [complex(np.sum(_random(np.shape(a), 4) * a)) for a in (f, dL_dh, *gradients.values())]

    return moved


def _moving_loss(problem: Problem, f: Array) -> Moved:
    """The slope of a loss as a function of t, f moving by t."""

    @cache
    def moved(t: complex) -> list[complex]:
        loss = copy.copy(problem.loss)
        loss.total(f + t * _direction(f, 0), problem.y, problem.w)
        return [complex(np.sum(_random(f.shape, 1) * loss.slope()))]

    return moved


def _random(shape: tuple[int, ...], seed: int) -> Array:
    """Numbers between ½ and 1½ of either sign: none so small that an error could hide behind it."""
    generator = np.random.default_rng(seed)
    return generator.uniform(0.5, 1.5, shape) * generator.choice([-1.0, 1.0], shape)


def _direction(array: Array, seed: int) -> Array:
    """A direction to move an array in, of its own size."""
    size = float(np.sqrt(np.mean(np.square(array, dtype=float)))) if array.size else 0.0
    return _random(array.shape, seed) * (size or 1.0)


def _loses_tangents(who: str, part: Layer | Loss, methods: str) -> ValueError:
    expected = f"{methods} of {part.label} to take complex numbers, in which tangents are carried"
    advice = "Without abs, casts and np.real; compare real parts: h.real > 0. check_gradients needs none of this."
    return ValueError(checks.message(who, expected, "an error, or tangents that no difference confirms", advice))
