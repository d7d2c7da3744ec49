"""Products with second derivatives: how f, the loss and its gradient change while φ moves along v.

The list of operations of both passes is made longer by its tangents (`engine.tangent`), planned and played:

    (φ, v) → f, ∂f/∂φ v → L → ∂L/∂φ, H v

so no layer states a second derivative, and what is not needed for the product is not computed. With a layer or a loss of one's own,
which is no list, the plain passes carry tangents as imaginary parts, φ + iεv, because ε² vanishes beside every number.
Sources: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6; Squire and Trapp (1998), "Using
complex variables to estimate derivatives of real functions", SIAM Review 40.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine.plan import Land, make
from backprop.engine.play import Bound, part_at
from backprop.engine.step import remembered
from backprop.engine.tangent import tangents
from backprop.engine.trace import Op, Trace, Value
from backprop.engine.twins import slope_of, total_of, twin
from backprop.gradients.numeric import BESIDE, sizes, takes_complex
from backprop.gradients.per_example import kept_arrays
from backprop.gradients.problem import Problem
from backprop.layers import Layer, boundary
from backprop.layers.boundary import is_traced
from backprop.layers.nesting import reseed, views
from backprop.losses import Loss
from backprop.losses.base import slope, total
from backprop.sequential import Sequential

# ε of each type. Powers of two, so that scaling rounds nothing; not smaller, so that neither ε times a tangent nor, in
# float32, ε² leaves the range in which a processor is quick.
EPSILON = {np.dtype(np.float32): 2.0**-50, np.dtype(np.float64): 2.0**-100}

Moved = Callable[[complex], list[complex]]


def products(problem: Problem) -> Products:
    """Products for a problem: on the list of its operations, or, with layers or a loss of one's own, by complex passes.

    Raises ValueError for a layer or a loss of one's own whose tangents are wrong.
    """
    traced = is_traced(problem.loss) and all(map(is_traced, _inside(problem.net)))
    return OnTheList(problem) if traced else ByComplexNumbers(problem)


class Products:
    """Products of a vector v (P,) with H, G and F at the φ that the problem's network has now."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def hessian(self, v: Array) -> Array:
        """H v."""
        raise NotImplementedError

    def gauss_newton(self, v: Array) -> Array:
        """Jᵀ (∂²L/∂f²) J v."""
        raise NotImplementedError

    def gaussian_fisher(self, v: Array) -> Array:
        """G v, its ∂²L/∂f² the mean over targets one standard deviation to either side of the mean.

        ∂²ℓ/∂f² is of second degree in y, so two points average to its expectation.
        """
        raise NotImplementedError

    def empirical_fisher(self, v: Array) -> Array:
        """Σ_n s_n g_n g_nᵀ v; from g_nᵀ v = ∂ℓ_n/∂f_n J v no g_n need be formed."""
        raise NotImplementedError


class OnTheList(Products):
    """Each product is a plan of its own, bound when it is first asked for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.v, self.product = (np.zeros_like(problem.net.phi) for _ in range(2))
        self.bound: dict[str, Bound] = {}

    def hessian(self, v: Array) -> Array:
        """H v."""
        return self._play("hessian", v)

    def gauss_newton(self, v: Array) -> Array:
        """G v."""
        return self._play("gauss_newton", v)

    def gaussian_fisher(self, v: Array) -> Array:
        """F v of GaussianNLL."""
        return self._play("gaussian_fisher", v)

    def empirical_fisher(self, v: Array) -> Array:
        """F v for the targets at hand."""
        return self._play("empirical_fisher", v)

    def _play(self, kind: str, v: Array) -> Array:
        if kind not in self.bound:
            self.bound[kind] = self._bind(kind)
        self.v[...] = v
        with np.errstate(all="ignore"):
            for call in self.bound[kind].calls:
                call()
        return self.product.copy()

    def _bind(self, kind: str) -> Bound:
        problem, net = self.problem, self.problem.net
        shape = problem.h.shape, problem.y.shape, problem.y.dtype, problem.w is None, problem.dtype

        def planned() -> Any:
            plan = self._plan(kind)
            return plan, plan.settings, False

        plan = remembered((kind, shape), net, problem.loss, None, planned)
        part = partial(part_at, net, problem.loss)
        arrays = net.parameters | {name: buffer.copy() for name, buffer in net.buffers.items()}
        arrays |= {
            "X": np.ascontiguousarray(problem.h.T),
            "y": problem.y,
            "share": np.asarray(problem.shares(problem.h)),
        }
        arrays["share"] = arrays["share"].astype(problem.dtype)
        for prefix, vector in (("v", self.v), ("product", self.product)):
            arrays |= {f"{prefix} {name}": view for name, view in views(net, vector).items()}
        arrays |= {name: getattr(part(path), key) for path, key, name in kept_arrays(plan)}
        bound = Bound(plan, arrays, part=part)
        bound.generators.key = (0,)  # as Problem.forward starts them
        return bound

    def _plan(self, kind: str) -> Any:
        problem, trace = self.problem, Trace()
        own, its = twin(problem.net, trace), twin(problem.loss, trace, "loss.")
        h = trace.view(trace.input("X", problem.h.shape[::-1], problem.dtype), ("T",))
        y = trace.input("y", problem.y.shape, problem.y.dtype)
        share = trace.input("share", () if problem.w is None else (problem.n,), problem.dtype)
        f: Any = boundary.forward(own, h)  # type: ignore[arg-type]
        seeds = {}
        for op in list(trace.ops):
            if op.kind == "input" and op.function in problem.net.parameters:
                seeds[op] = trace.input(f"v {op.function}", op.shape, op.dtype)
        moved = getattr(self, f"_{kind}")(trace, own, its, f, y, share, seeds)
        lands = []
        for name, parameter in problem.net.parameters.items():
            value = moved.get(name)
            value = trace.constant(np.zeros(parameter.shape, problem.dtype)) if value is None else value
            lands.append(Land(f"product {name}", parameter.shape, trace.now(value)))
        plan = make(None, lands, {})
        plan.generators, plan.settings = trace.places, trace.settings
        return plan

    @staticmethod
    def _hessian(
        trace: Trace, own: Any, its: Any, f: Any, y: Value, share: Value, seeds: dict[Op, Value]
    ) -> dict[str, Any]:
        total_of(its, f, y, share)
        _, gradients = boundary.backward(own, slope_of(its))  # type: ignore[arg-type]
        ops = {name: trace.now(gradient) for name, gradient in gradients.items()}
        moved = tangents(trace, ops.values(), seeds)
        return {name: moved.get(op) for name, op in ops.items()}

    @staticmethod
    def _gauss_newton(trace: Trace, own: Any, its: Any, f: Any, y: Value, share: Value, seeds: Any) -> dict[str, Any]:
        return _pulled_back(own, _slope_along(trace, its, f, y, share, _along(trace, f, seeds)))

    @staticmethod
    def _gaussian_fisher(
        trace: Trace, own: Any, its: Any, f: Any, y: Value, share: Value, seeds: Any
    ) -> dict[str, Any]:
        K, df = f.shape[0] // 2, _along(trace, f, seeds)
        deviation = np.exp(f[K:] / 2)
        sides = [_slope_along(trace, its, f, f[:K] + side * deviation, share, df) for side in (-1, 1)]
        return _pulled_back(own, (sides[0] + sides[1]) / 2)

    @staticmethod
    def _empirical_fisher(
        trace: Trace, own: Any, its: Any, f: Any, y: Value, share: Value, seeds: Any
    ) -> dict[str, Any]:
        df = _along(trace, f, seeds)
        total_of(its, f, y, share)
        return _pulled_back(own, slope_of(its) * (its.dell_df() * df).sum(axis=0))  # type: ignore[operator]


def _along(trace: Trace, f: Value, seeds: dict[Op, Value]) -> Value:
    """J v."""
    op = trace.now(f)
    return tangents(trace, [op], seeds).get(op) or trace.constant(np.zeros(op.shape, op.dtype))


def _slope_along(trace: Trace, its: Any, f: Value, y: Any, share: Value, df: Value) -> Value:
    """(∂²L/∂f²) df for targets y, which stay where they are."""
    total_of(its, f, y, share)
    dL_df = trace.now(slope_of(its))
    moved = tangents(trace, [dL_df], {trace.now(f): df}, still=[trace.now(y)])
    return moved.get(dL_df) or trace.constant(np.zeros(dL_df.shape, dL_df.dtype))


def _pulled_back(own: Any, u: Value) -> dict[str, Any]:
    """Jᵀ u by parameter."""
    return boundary.backward(own, u)[1]  # type: ignore[arg-type]


class ByComplexNumbers(Products):
    """Complex passes of the plain layers: φ + iεv gives f + iε J v and ∂L/∂φ + iε H v. `v` counts in units of `scale`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.epsilon = EPSILON[problem.dtype]
        self.net = problem.net.copy()
        self.net.bind(np.empty(self.net.size, np.result_type(problem.dtype, np.complex64)))
        self.loss = copy.copy(problem.loss)
        for layer, h in _own_layers(problem):
            # Beside h, too: where several entries stand at a kink, as many zeros do, no difference confirms anything.
            places = (h, h + BESIDE * _random(h.shape, 5) * sizes(h))
            if not any(_confirmed(_moving_layer(layer, at)) for at in places):
                raise _loses_tangents(layer.label, layer, "forward and backward")
        f = problem.fresh().forward()
        if not is_traced(problem.loss) and not _confirmed(_moving_loss(problem, f)):
            raise _loses_tangents(problem.who, problem.loss, "ell and dell_df")

    def _forward(self, v: Array) -> tuple[Array, float]:
        """Outputs f + iε f' (K, N) for a finite v, in units that do no harm whatever its size."""
        scale = 2.0 ** max(np.frexp(max(v.max(initial=0), -v.min(initial=0)))[1] - 1, -1000)
        self.net.phi.real = self.problem.net.phi
        self.net.phi.imag = v * (self.epsilon / scale)
        reseed(self.net, 0)
        f = boundary.forward(self.net, self.problem.h)
        # Products of two tangents leave some ε² beside a value of 0, and must not choose the side of a kink.
        f.real[np.abs(f.real) < self.epsilon**1.5] = 0
        return f, scale

    def _slope(self, f: Array, y: Array | None = None) -> Array:
        total(self.loss, f, self.problem.y if y is None else y, self.problem.shares(f))
        return slope(self.loss)

    def _pull_back(self, u: Array) -> Array:
        """Jᵀ u."""
        net = self.problem.net
        self.problem.forward()
        return net.backward(u)[1].dL_dphi  # type: ignore[attr-defined,no-any-return]

    def _tangent(self, array: Array, scale: float) -> Array:
        return array.imag * (scale / self.epsilon)

    def hessian(self, v: Array) -> Array:
        """H v."""
        f, scale = self._forward(v)
        _, gradients = boundary.backward(self.net, self._slope(f))
        flat = [np.zeros(0, f.dtype), *(np.ravel(gradient) for gradient in gradients.values())]
        return self._tangent(np.concatenate(flat), scale)

    def gauss_newton(self, v: Array) -> Array:
        """G v."""
        f, scale = self._forward(v)
        return self._pull_back(self._tangent(self._slope(f), scale))

    def gaussian_fisher(self, v: Array) -> Array:
        """F v of GaussianNLL."""
        f, scale = self._forward(v)
        mean, s = np.split(f.real, 2)
        both = [self._tangent(self._slope(f, mean + side * np.exp(s / 2)), scale) for side in (-1, 1)]
        return self._pull_back((both[0] + both[1]) / 2)

    def empirical_fisher(self, v: Array) -> Array:
        """F v for the targets at hand."""
        f, scale = self._forward(v)
        df, loss = self._tangent(f, scale), self.loss
        dL_df = self._slope(f.real.copy())
        return self._pull_back(dL_df * np.add.reduce(loss.dell_df() * df, axis=0))


def _inside(layer: Layer) -> Iterator[Layer]:
    yield layer
    for child in layer.children.values():
        yield from _inside(child)


def _own_layers(problem: Problem) -> list[tuple[Layer, Array]]:
    """Layers that are not traced, the outermost of them, with their inputs in a pass."""
    found: list[tuple[Layer, Array]] = []
    run = boundary.beside(problem.net)
    waiting = [run]
    for layer in waiting:  # grows while it runs
        if is_traced(layer):
            waiting.extend(layer.children.values())
        else:
            vars(layer)["forward"] = partial(_noting, layer, type(layer).forward, found)
    reseed(run, 0)
    boundary.forward(run, problem.h)
    return found


def _noting(layer: Layer, method: Any, found: list[tuple[Layer, Array]], h: Array) -> Array:
    del vars(layer)["forward"]
    found.append((layer.copy(), np.array(h, float)))
    return boundary.forward(layer, h)


def _confirmed(moved: Moved) -> bool:
    """Whether differences confirm each tangent. A large step may reach over a bend, a small one drown in rounding."""

    def agrees(i: int, unit: float) -> bool:
        def along(t: complex) -> complex:
            return moved(t * unit)[i]

        return takes_complex(along, along, along(0.0).real)

    return all(agrees(i, 1.0) or agrees(i, 1e-3) for i in range(len(moved(0.0))))


def _moving_layer(layer: Layer, h: Array) -> Moved:
    """What a layer returns, forward and backward, as a function of t, all of its inputs moving by t: a number for each array."""
    phi = np.concatenate([np.zeros(0), *(parameter.ravel() for parameter in layer.parameters.values())])

    @cache
    def moved(t: complex) -> list[complex]:
        twin = Sequential(layer.copy(), dtype="float64")
        twin.bind(np.empty(twin.size, np.result_type(np.float64, type(t))))
        twin.phi[...] = phi + t * _direction(phi, 0)
        reseed(twin, 0)
        f = boundary.forward(twin, h + t * _direction(h, 1))
        dL_df = _random(f.shape, 2) + t * _random(f.shape, 3)
        dL_dh, gradients = boundary.backward(twin, dL_df)
        return [complex(np.sum(_random(np.shape(a), 4) * a)) for a in (f, dL_dh, *gradients.values())]

    return moved


def _moving_loss(problem: Problem, f: Array) -> Moved:
    """The slope of a loss as a function of t, f moving by t."""

    @cache
    def moved(t: complex) -> list[complex]:
        loss = copy.copy(problem.loss)
        total(loss, f + t * _direction(f, 0), problem.y, problem.shares(f))
        return [complex(np.sum(_random(f.shape, 1) * slope(loss)))]

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
