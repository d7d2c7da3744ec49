"""Products with second derivatives: how f, the loss and its gradient change while φ moves along v.

The list of operations of both passes is made longer by its tangents (`engine.tangent`), planned and played:

    (φ, v) → f, ∂f/∂φ v → L → ∂L/∂φ, H v

so no layer states a second derivative, and what is not needed for the product is not computed. What does not depend on v, such
as f and all slopes, is computed once for each φ. A layer or a loss of one's own, which is no list, carries tangents as imaginary
parts, h + iεh', through its own passes, because ε² vanishes beside every number.
Sources: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6; Squire and Trapp (1998), "Using
complex variables to estimate derivatives of real functions", SIAM Review 40.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine.plan import Land, Plan, make, needed
from backprop.engine.planning import remembered
from backprop.engine.play import Bound, part_at
from backprop.engine.tangent import Tangents, zeros
from backprop.engine.threads import playing
from backprop.engine.trace import CannotTrace, Op, Trace, Value, base
from backprop.engine.twins import OpaqueLoss, slope_of, total_of, twin
from backprop.gradients.numeric import BESIDE, sizes, takes_complex
from backprop.gradients.per_example import is_ours, kept_arrays, taken_for_ours
from backprop.gradients.problem import Problem
from backprop.layers import Layer, boundary
from backprop.layers.boundary import is_traced
from backprop.layers.nesting import inside, reseed, views
from backprop.losses import Loss
from backprop.losses.base import slope, total
from backprop.sequential import Sequential

# ε of each type. Powers of two, so that scaling rounds nothing; not smaller, so that neither ε times a tangent nor, in
# float32, ε² leaves the range in which a processor is quick.
EPSILON = {np.dtype(np.float32): 2.0**-50, np.dtype(np.float64): 2.0**-100}

Moved = Callable[[complex], list[complex]]
Gradients = dict[str, Any]  # of the trace, by parameter: a Value, or terms (Op, factor) that are added up


class Products:
    """Products of a vector v (P,) with H, G and F at the φ that the problem's network has now.

    Each is a plan of its own, made when it is first asked for. Raises ValueError for a layer or a loss of one's own whose
    tangents are wrong.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.v = copy.copy(problem), np.zeros_like(problem.net.phi)
        self.problem.net = taken_for_ours(problem.net)
        self.bound: dict[str, tuple[Bound, Array]] = {}
        self.at_phi: set[str] = set()  # kinds for which all that does not depend on v is computed
        self.carrier: Carrier | None = None
        if not all(map(is_traced, (problem.loss, *inside(self.problem.net)))):
            self.carrier = Carrier(self.problem)

    def moved(self) -> None:
        """The network has another φ."""
        self.at_phi.clear()

    def hessian(self, v: Array) -> Array:
        """H v."""
        return self._play("hessian", v)

    def gauss_newton(self, v: Array) -> Array:
        """Jᵀ (∂²L/∂f²) J v."""
        return self._play("gauss_newton", v)

    def gaussian_fisher(self, v: Array) -> Array:
        """G v, its ∂²L/∂f² the mean over targets one standard deviation to either side of the mean.

        ∂²ℓ/∂f² is of second degree in y, so two points average to its expectation.
        """
        return self._play("gaussian_fisher", v)

    def empirical_fisher(self, v: Array) -> Array:
        """Σ_n s_n g_n g_nᵀ v; from g_nᵀ v = ∂ℓ_n/∂f_n J v no g_n need be formed."""
        return self._play("empirical_fisher", v)

    def _play(self, kind: str, v: Array) -> Array:
        if kind not in self.bound:
            self.bound[kind] = self._bind(kind)
        bound, product = self.bound[kind]
        self.v[...] = v
        if self.carrier is not None:
            self.carrier.start(v)
        with playing(self.problem.net.size, self.problem.n):
            for call in bound.rest if kind in self.at_phi else bound.calls:
                call()
        self.at_phi.add(kind)
        return product.copy()

    def _bind(self, kind: str) -> tuple[Bound, Array]:
        problem, net = self.problem, self.problem.net
        shape = problem.h.shape, problem.y.shape, problem.y.dtype, problem.w is None, problem.dtype

        def planned() -> Any:
            plan = self._plan(kind)
            return plan, plan.settings, self.carrier is not None

        plan = remembered((kind, shape), net, problem.loss, None, planned)
        product, part = np.zeros_like(net.phi), partial(part_at, net, problem.loss)
        arrays = net.parameters | {name: buffer.copy() for name, buffer in net.buffers.items()}
        arrays |= {"X": np.ascontiguousarray(problem.h.T), "y": problem.y}
        arrays["share"] = np.asarray(problem.shares(problem.h)).astype(problem.dtype)
        for prefix, vector in (("v", self.v), ("product", product)):
            arrays |= {f"{prefix} {name}": view for name, view in views(net, vector).items()}
        arrays |= {name: getattr(part(path), key) for path, key, name in kept_arrays(plan)}
        bound = Bound(plan, arrays, part=part)
        bound.generators.key = (0,)  # as Problem.forward starts them
        return bound, product

    def _plan(self, kind: str) -> Plan:
        """The plan of one product. A part of one's own that is traced, but for a function without a rule, is taken as it is."""
        parts = (self.problem.loss, *inside(self.problem.net))
        try:
            return _Traced(self.problem, self.carrier).plan(kind)
        except CannotTrace:
            if all(map(is_ours, parts)) or (self.carrier is not None and self.carrier.all_own):
                raise
        self.carrier = Carrier(self.problem, all_own=True)
        return _Traced(self.problem, self.carrier).plan(kind)


class _Traced:
    """The trace of a forward pass and of what is built on it."""

    def __init__(self, problem: Problem, carrier: Carrier | None) -> None:
        self.problem, self.carrier, loss = problem, carrier, problem.loss
        all_own = carrier is not None and carrier.all_own
        self.trace = trace = Trace(apart=all_own)  # apart: layers of one's own are not looked into
        self.own: Any = twin(problem.net, trace)
        self.its = OpaqueLoss(loss, trace) if all_own and not is_ours(loss) else twin(loss, trace, "loss.")
        trace.apart = False
        h = trace.view(trace.input("X", problem.h.shape[::-1], problem.dtype), ("T",))
        self.y = trace.input("y", problem.y.shape, problem.y.dtype)
        self.share = trace.input("share", () if problem.w is None else (problem.n,), problem.dtype)
        self.f: Any = boundary.forward(self.own, h)  # type: ignore[arg-type]
        names = problem.net.parameters
        parameters = [op for op in trace.ops if op.kind == "input" and op.function in names]
        self.seeds = {op: trace.input(f"v {op.function}", op.shape, op.dtype) for op in parameters}

    def plan(self, kind: str) -> Plan:
        """The plan of a product: first what does not depend on v."""
        trace, gradients = self.trace, getattr(self, kind)()
        if trace.refused:
            raise trace.refused
        lands = []
        for name, parameter in self.problem.net.parameters.items():
            for i, (op, factor) in enumerate(self._terms(gradients.get(name))):
                lands.append(Land(f"product {name}", parameter.shape, op, float(factor), float(i > 0)))
        moving = _moving_ops(trace)
        for number, op in enumerate(sorted(trace.ops, key=lambda op: (op in moving, op.number))):
            op.number = number
        still = set(trace.ops) - moving
        steps = needed(land.value for land in lands)
        results = {base(x) for op in steps if op in moving for x in op.ops if x in still and base(x).kind != "input"}
        plan = make(None, lands, {}, results=sorted(results, key=lambda op: op.number))
        values = [step.value if isinstance(step, Land) else step for step in plan.steps]
        plan.turn = next((i for i, op in enumerate(values) if op not in still), len(values))
        plan.generators, plan.settings = trace.places, trace.settings
        return plan

    def _terms(self, gradient: Any) -> list[tuple[Op, float]]:
        if gradient is None:
            return []
        return gradient if isinstance(gradient, list) else [(self.trace.now(gradient), 1.0)]

    def hessian(self) -> Gradients:
        """H v."""
        total_of(self.its, self.f, self.y, self.share)
        _, gradients = boundary.backward(self.own, slope_of(self.its))
        ops = {name: self.trace.now(gradient) for name, gradient in gradients.items()}
        tangents = Tangents(self.trace, ops.values(), self.seeds, calls=self._call)
        return {name: self._added_up(tangents, op) for name, op in ops.items()}

    @staticmethod
    def _added_up(tangents: Tangents, op: Op) -> Any:
        """How a gradient moves; as terms where each of them, a product of matrices, may land by itself."""
        terms = tangents.terms.get(op, {})
        plain = all(isinstance(factor, int | float) and x.shape == op.shape for x, factor in terms.items())
        return sorted(terms.items(), key=lambda term: term[0].number) if plain and terms else tangents.get(op)

    def gauss_newton(self) -> Gradients:
        """G v."""
        return self._pulled_back(self._slope_along(self.y, self._along()))

    def gaussian_fisher(self) -> Gradients:
        """F v of GaussianNLL."""
        K, df = self.f.shape[0] // 2, self._along()
        mean, deviation = self.f[:K], np.exp(self.f[K:] / 2)
        sides = [self._slope_along(mean + side * deviation, df) for side in (-1, 1)]
        return self._pulled_back((sides[0] + sides[1]) / 2)

    def empirical_fisher(self) -> Gradients:
        """F v for the targets at hand."""
        df = self._along()
        total_of(self.its, self.f, self.y, self.share)
        dL_df, dell_df = slope_of(self.its), self._dell_df()
        if self.share.ndim:
            dell_df = np.where(self.share > 0, dell_df, 0)
        return self._pulled_back(dL_df * (dell_df * df).sum(axis=0))

    def _dell_df(self) -> Any:
        if not isinstance(self.its, OpaqueLoss):
            return self.its.dell_df()
        f, loss = self.f, partial(_dell_df, self.problem.loss)
        return self.trace.add("function", loss, (f, self.y), f.shape, f.dtype, {})

    def _along(self) -> Value:
        """J v."""
        op = self.trace.now(self.f)
        moved = Tangents(self.trace, [op], self.seeds, calls=self._call).get(op)
        return zeros(self.trace, op) if moved is None else moved

    def _slope_along(self, y: Any, df: Value) -> Value:
        """(∂²L/∂f²) df for targets y, which stay where they are."""
        total_of(self.its, self.f, y, self.share)
        now = self.trace.now
        op = now(slope_of(self.its))
        moved = Tangents(self.trace, [op], {now(self.f): df}, [now(y)], self._call_of_loss).get(op)
        return zeros(self.trace, op) if moved is None else moved

    def _pulled_back(self, u: Value) -> Gradients:
        """Jᵀ u by parameter."""
        return boundary.backward(self.own, u)[1]  # type: ignore[arg-type]

    def _call(self, op: Op, moving: list[Value | None]) -> Value | None:
        """How a pass of a layer or loss of one's own moves."""
        kind, *where = op.function
        if kind in ("total", "slope"):
            return self._call_of_loss(op, moving)
        trace, carried = self.trace, self.carrier.layer(where[0])  # type: ignore[union-attr]
        some = [zeros(trace, x) if dx is None else dx for x, dx in zip(op.ops, moving, strict=True)]
        match kind:
            case "forward":
                layer = part_at(self.problem.net, None, where[0])
                v = [trace.input(f"v {where[0]}{name}", p.shape, p.dtype) for name, p in layer.parameters.items()]
                return trace.add("function", carried.forward, (op.inputs[0], *some, *v), op.shape, op.dtype, {})
            case "backward":
                return trace.add("function", carried.backward, (op.inputs[0], *some), op.shape, op.dtype, {})
        return trace.add("function", partial(carried.gradient, where[1]), some, op.shape, op.dtype, {})

    def _call_of_loss(self, op: Op, moving: list[Value | None]) -> Value | None:
        if op.function[0] != "slope" or moving[1] is None:
            return None
        f, y, share = op.ops[0].inputs
        carried = self.carrier.slope  # type: ignore[union-attr]
        return self.trace.add("function", carried, (f, moving[1], y, share), op.shape, op.dtype, {})


def _moving_ops(trace: Trace) -> set[Op]:
    """The operations that depend on v."""
    moving: set[Op] = set()
    for op in trace.ops:
        if (op.kind == "input" and op.function.startswith("v ")) or any(x in moving for x in op.ops):
            moving.add(op)
    return moving


def _dell_df(loss: Loss, f: Array, y: Array) -> Array:
    """∂ℓ/∂f of a loss of one's own."""
    loss = copy.copy(loss)
    loss.ell(np.array(f), y)
    return loss.dell_df()


class Carrier:
    """The layers and the loss of one's own, in complex passes: φ + iεv, h + iεh' give f + iεf'.

    With `all_own` those that are traced, too. Raises ValueError for one whose tangents are wrong.
    """

    def __init__(self, problem: Problem, *, all_own: bool = False) -> None:
        self.problem, self.all_own, self.epsilon, self.exponent = problem, all_own, EPSILON[problem.dtype], 0
        self.net, self.layers = problem.net.copy(), dict[str, Carried]()
        self.net.bind(np.empty(self.net.size, np.result_type(problem.dtype, np.complex64)))
        for layer, h in _own_layers(problem, all_own):
            # Beside h, too: where several entries stand at a kink, as many zeros do, no difference confirms anything.
            places = (h, h + BESIDE * _random(h.shape, 5) * sizes(h))
            if not any(_confirmed(_moving_layer(layer, at)) for at in places):
                raise _loses_tangents(layer.label, layer, "forward and backward")
        own_loss = not is_ours(problem.loss) if all_own else not is_traced(problem.loss)
        if own_loss and not _confirmed(_moving_loss(problem, problem.fresh().forward())):
            raise _loses_tangents(problem.who, problem.loss, "ell and dell_df")

    def start(self, v: Array) -> None:
        """Prepare a product with a finite v, in units of 2^exponent that do no harm whatever its size."""
        self.exponent = max(int(np.frexp(np.abs(v).max())[1]) - 1, -1000)
        self.net.phi.real = self.problem.net.phi
        reseed(self.problem.net, 0)
        reseed(self.net, 0)

    def layer(self, path: str) -> Carried:
        """The layer at this path."""
        if path not in self.layers:
            self.layers[path] = Carried(self, part_at(self.net, None, path))
        return self.layers[path]

    def slope(self, f: Array, df: Array, y: Array, share: Array) -> Array:
        """How the slope of the loss moves with f."""
        loss = copy.copy(self.problem.loss)
        total(loss, self.put(f, df), y, share if share.ndim else share.item())
        return self.tangent(slope(loss))

    def put(self, value: Array, tangent: Array) -> Array:
        """Value + iε tangent."""
        return value + 1j * (self.epsilon * np.ldexp(tangent, -self.exponent))

    def tangent(self, array: Array) -> Array:
        """The tangent in an array."""
        return np.ldexp(np.imag(array) * (1 / self.epsilon), self.exponent)


class Carried:
    """A layer of one's own as functions of values and tangents, called in their order."""

    def __init__(self, carrier: Carrier, layer: Layer) -> None:
        self.carrier, self.layer, self.gradients = carrier, layer, dict[str, Array]()

    def forward(self, h: Array, dh: Array, *v: Array) -> Array:
        """How f moves."""
        for parameter, along in zip(self.layer.parameters.values(), v, strict=True):
            parameter.imag = self.carrier.put(0.0, along).imag  # type: ignore[arg-type]
        return self.carrier.tangent(boundary.forward(self.layer, self.carrier.put(h, dh)))

    def backward(self, dL_df: Array, tangent: Array, _: Array) -> Array:
        """How ∂L/∂h moves; after `forward`, whose result is therefore an argument."""
        dL_dh, self.gradients = boundary.backward(self.layer, self.carrier.put(dL_df, tangent))
        return self.carrier.tangent(dL_dh)

    def gradient(self, name: str, _: Array) -> Array:
        """How the gradient of a parameter moves."""
        return self.carrier.tangent(self.gradients[name])


def _own_layers(problem: Problem, all_own: bool) -> list[tuple[Layer, Array]]:
    """Layers of one's own, the outermost of them, with their inputs in a pass."""
    found: list[tuple[Layer, Array]] = []
    run = boundary.beside(problem.net)
    waiting = [run]
    for layer in waiting:  # grows while it runs
        if is_traced(layer) and (is_ours(layer) or not all_own):
            waiting.extend(layer.children.values())
        else:
            vars(layer)["forward"] = partial(_noting, layer, found)
    reseed(run, 0)
    boundary.forward(run, problem.h)
    return found


def _noting(layer: Layer, found: list[tuple[Layer, Array]], h: Array) -> Array:
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
