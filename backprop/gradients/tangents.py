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
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.around import boundary
from backprop.around.boundary import is_traced
from backprop.around.nesting import inside, reseed, views
from backprop.checks import Array
from backprop.engine.operations import CannotTrace, Op, base
from backprop.engine.plan import Land, Plan, make, needed
from backprop.engine.planning import remembered
from backprop.engine.play import Bound, part_at
from backprop.engine.tangent import Tangents, zeros
from backprop.engine.threads import playing
from backprop.engine.trace import Trace, Value
from backprop.engine.twins import OpaqueLoss, slope_of, total_of, twin
from backprop.gradients.numeric import BESIDE, random_direction, sizes, takes_complex
from backprop.gradients.per_example import is_ours, kept_arrays, taken_for_ours
from backprop.gradients.problem import Problem, run
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.losses.base import slope, total
from backprop.sequential import Sequential

# ε of each type. Powers of two, so that scaling rounds nothing; not smaller, so that neither ε times a tangent nor, in
# float32, ε² leaves the range in which a processor is quick.
EPSILON = {np.dtype(np.float32): 2.0**-50, np.dtype(np.float64): 2.0**-100}

Moved = Callable[[complex], list[Array]]
Term = tuple[Op, Any]  # an operation and a factor
Gradients = dict[str, list[Term]]  # of the trace, by parameter: terms that are added up


class Products:
    """Products of a vector v (P,) with H, G and F at the φ that the problem's network has now.

    Each is a plan of its own, made when it is first asked for. Raises ValueError for a layer or a loss of one's own whose
    tangents are wrong.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.v = copy.copy(problem), np.zeros_like(problem.net.phi)
        self.problem.net = taken_for_ours(problem.net)
        self.bound: dict[str, tuple[Bound, Array]] = {}
        self.at_phi: set[str] = set()  # kinds for which all that does not depend on v is computed; empty at another φ
        self.carrier: Carrier | None = None
        if not all(map(is_traced, (problem.loss, *inside(self.problem.net)))):
            self.carrier = Carrier(self.problem)

    def product(self, kind: str, v: Array) -> Array:
        """The product of a kind, a method of `_Traced`, with v."""
        if kind not in self.bound:
            self.bound[kind] = self._bind(kind)
        bound, product = self.bound[kind]
        self.v[...] = v
        if self.carrier is not None:
            self.carrier.start(v)
        with playing(self.problem.net.size, self.problem.n):
            for call in bound.rest if kind in self.at_phi else bound.first + bound.rest:
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
        product = np.zeros_like(net.phi)
        arrays = net.parameters | {name: buffer.copy() for name, buffer in net.buffers.items()}
        arrays |= {"X": np.ascontiguousarray(problem.h.T), "y": problem.y}
        arrays["share"] = np.asarray(problem.shares(problem.h)).astype(problem.dtype)
        arrays["v φ"] = self.v
        for prefix, vector in (("v", self.v), ("product", product)):
            arrays |= {f"{prefix} {name}": view for name, view in views(net, vector).items()}
        arrays |= kept_arrays(plan, net, problem.loss)
        bound = Bound(plan, arrays, part=partial(part_at, net, problem.loss))
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
            for i, (op, factor) in enumerate(gradients.get(name, [])):
                lands.append(Land(f"product {name}", parameter.shape, op, float(factor), float(i > 0)))
        moving: set[Op] = set()  # what depends on v
        for op in trace.ops:
            if (op.kind == "input" and op.function.startswith("v ")) or any(x in moving for x in op.ops):
                moving.add(op)
        for number, op in enumerate(sorted(trace.ops, key=lambda op: (op in moving, op.number))):
            op.number = number
        steps = needed(land.value for land in lands)
        results = {
            base(x) for op in steps if op in moving for x in op.ops if x not in moving and base(x).kind != "input"
        }
        plan = make(None, lands, {}, results=sorted(results, key=lambda op: op.number))
        values = [step.value if isinstance(step, Land) else step for step in plan.steps]
        still = set(trace.ops) - moving
        plan.turn = next((i for i, op in enumerate(values) if op not in still), len(values))
        plan.generators, plan.settings = trace.places, trace.settings
        return plan

    def hessian(self) -> Gradients:
        """H v."""
        _, gradients = boundary.backward(self.own, self._slope(self.y))
        ops = {name: self.trace.now(self.trace.known(gradient)) for name, gradient in gradients.items()}
        tangents = Tangents(self.trace, ops.values(), self.seeds, calls=self._call)
        return {name: self._added_up(tangents, op) for name, op in ops.items()}

    def _added_up(self, tangents: Tangents, op: Op) -> list[Term]:
        """How a gradient moves; as terms where each of them, a product of matrices, may land by itself."""
        terms = tangents.terms.get(op, {})
        if all(isinstance(factor, int | float) and x.shape == op.shape for x, factor in terms.items()):
            return sorted(terms.items(), key=lambda term: term[0].number)
        return [(self.trace.now(tangents.get(op)), 1.0)]

    def gauss_newton(self) -> Gradients:
        """Jᵀ (∂²L/∂f²) J v."""
        return self._pulled_back(self._slope_along(self.y, self._along()))

    def gaussian_fisher(self) -> Gradients:
        """G v, its ∂²L/∂f² the mean over targets one standard deviation to either side of the mean.

        ∂²ℓ/∂f² is of second degree in y, so two points average to its expectation.
        """
        K, df = self.f.shape[0] // 2, self._along()
        mean, deviation = self.f[:K], np.exp(self.f[K:] / 2)
        sides = [self._slope_along(mean + side * deviation, df) for side in (-1, 1)]
        return self._pulled_back((sides[0] + sides[1]) / 2)

    def empirical_fisher(self) -> Gradients:
        """Σ_n s_n g_n g_nᵀ v; from g_nᵀ v = ∂ℓ_n/∂f_n J v no g_n need be formed."""
        df, dL_df, f = self._along(), self._slope(self.y), self.f
        if isinstance(self.its, OpaqueLoss):
            dell_df: Any = self.trace.add("function", self.carrier.dell_df, (f, self.y), f.shape, f.dtype, {})  # type: ignore[union-attr]
        else:
            dell_df = self.its.dell_df()
        if self.share.ndim:
            dell_df = np.where(self.share > 0, dell_df, 0)
        return self._pulled_back(dL_df * (dell_df * df).sum(axis=0))

    def _slope(self, y: Any) -> Any:
        """∂L/∂f for targets y."""
        total_of(self.its, self.f, y, self.share)
        return slope_of(self.its)

    def _along(self) -> Value:
        """J v."""
        return self._moved(self.f, self.seeds)

    def _slope_along(self, y: Any, df: Value) -> Value:
        """(∂²L/∂f²) df for targets y, which stay where they are, as does all that f is made of."""
        f = self.trace.now(self.f)
        return self._moved(self._slope(y), {f: df}, still=[self.trace.now(y), *needed([f])])

    def _moved(self, x: Any, seeds: Mapping[Op, Value], still: Iterable[Op] = ()) -> Value:
        op = self.trace.now(x)
        moved = Tangents(self.trace, [op], seeds, still, self._call).get(op)
        return zeros(self.trace, op) if moved is None else moved

    def _pulled_back(self, u: Value) -> Gradients:
        """Jᵀ u by parameter."""
        _, gradients = boundary.backward(self.own, u)  # type: ignore[arg-type]
        known, now = self.trace.known, self.trace.now
        return {name: [(now(known(gradient)), 1.0)] for name, gradient in gradients.items()}

    def _call(self, op: Op, moving: list[Value | None]) -> Value | None:
        """How a pass of a layer or loss of one's own moves."""
        kind, *where = op.function
        if kind == "total" or (kind == "slope" and moving[1] is None):
            return None
        inputs: list[Any] = [zeros(self.trace, x) if dx is None else dx for x, dx in zip(op.ops, moving, strict=True)]
        if kind == "slope":
            f, y, share = op.ops[0].inputs
            inputs = [f, moving[1], y, share]
        elif kind != "gradient":
            inputs.insert(0, op.inputs[0])
        if kind == "forward":  # it is to be called for each v, even where h stays what it is
            inputs.append(self.trace.input("v φ", self.problem.net.phi.shape, self.problem.dtype))
        carried = partial(getattr(self.carrier, kind), *where)
        return self.trace.add("function", carried, inputs, op.shape, op.dtype, {})


class Carrier:
    """The layers and the loss of one's own, in complex passes: φ + iεv, h + iεh' give f + iεf'.

    With `all_own` those that are traced, too. Its methods are called in the order of a pass: what comes before is therefore an
    argument of what comes after. Raises ValueError for a layer or loss whose tangents are wrong.
    """

    def __init__(self, problem: Problem, *, all_own: bool = False) -> None:
        self.problem, self.all_own, self.epsilon, self.exponent = problem, all_own, EPSILON[problem.dtype], 0
        self.net, self.gradients = problem.net.copy(), dict[str, Mapping[str, Array]]()
        self.net.bind(np.empty(self.net.size, np.result_type(problem.dtype, np.complex64)))
        for _, layer, h in problem.visits(into=self._has_rules):
            # Beside h, too: where several entries stand at a kink, as many zeros do, no difference confirms anything.
            places = (h, h + BESIDE * random_direction(h.shape, 5) * sizes(h))
            if not self._has_rules(layer) and not any(_confirmed(_moving_layer(layer, at)) for at in places):
                raise _loses_tangents(layer.label, layer, "forward and backward")
        if not self._has_rules(problem.loss) and not _confirmed(_moving_loss(problem)):
            raise _loses_tangents(problem.who, problem.loss, "ell and dell_df")

    def _has_rules(self, part: Layer | Loss) -> bool:
        return is_traced(part) and (is_ours(part) or not self.all_own)

    def start(self, v: Array) -> None:
        """Prepare a product with a finite v, in units of 2^exponent that do no harm whatever its size."""
        self.exponent = max(int(np.frexp(np.abs(v).max())[1]) - 1, -1000)
        self.net.phi.real, self.net.phi.imag = self.problem.net.phi, self.put(0.0, v).imag
        reseed(self.problem.net, 0)
        reseed(self.net, 0)

    def forward(self, path: str, h: Array, dh: Array, _: Array) -> Array:
        """How the f of the layer at this path moves."""
        return self.tangent(boundary.forward(part_at(self.net, None, path), self.put(h, dh)))

    def backward(self, path: str, dL_df: Array, tangent: Array, _: Array) -> Array:
        """How its ∂L/∂h moves."""
        layer = part_at(self.net, None, path)
        dL_dh, self.gradients[path] = boundary.backward(layer, self.put(dL_df, tangent))
        return self.tangent(dL_dh)

    def gradient(self, path: str, name: str, _: Array) -> Array:
        """How the gradient of a parameter moves."""
        return self.tangent(self.gradients[path][name])

    def slope(self, f: Array, df: Array, y: Array, share: Array) -> Array:
        """How the slope of the loss moves with f."""
        loss = copy.copy(self.problem.loss)
        total(loss, self.put(f, df), y, share if share.ndim else share.item())
        return self.tangent(slope(loss))

    def dell_df(self, f: Array, y: Array) -> Array:
        """∂ℓ/∂f, which does not move."""
        loss = copy.copy(self.problem.loss)
        loss.ell(np.array(f), y)
        return loss.dell_df()

    def put(self, value: Any, tangent: Array) -> Array:
        """Value + iε tangent."""
        return value + 1j * (self.epsilon * np.ldexp(tangent, -self.exponent))

    def tangent(self, array: Array) -> Array:
        """The tangent in an array."""
        return np.ldexp(np.imag(array) * (1 / self.epsilon), self.exponent)


def _confirmed(moved: Moved) -> bool:
    """Whether differences confirm each tangent. A large step may reach over a bend, a small one drown in rounding."""

    @cache
    def numbers(t: complex) -> list[complex]:
        return [complex(np.sum(random_direction(np.shape(array), 4) * array)) for array in moved(t)]

    def agrees(i: int, unit: float) -> bool:
        def along(t: complex) -> complex:
            return numbers(t * unit)[i]

        return takes_complex(along, along, along(0.0).real)

    return all(agrees(i, 1.0) or agrees(i, 1e-3) for i in range(len(numbers(0.0))))


def _moving_layer(layer: Layer, h: Array) -> Moved:
    """What a layer returns, forward and backward, as a function of t, all of its inputs moving by t."""
    phi = np.concatenate([np.zeros(0), *(parameter.ravel() for parameter in layer.parameters.values())])

    def moved(t: complex) -> list[Array]:
        twin = Sequential(layer.copy(), dtype="float64")
        twin.bind(np.empty(twin.size, np.result_type(np.float64, type(t))))
        twin.phi[...] = phi + t * _direction(phi, 0)
        f = run(twin, h + t * _direction(h, 1))
        dL_dh, gradients = boundary.backward(twin, random_direction(f.shape, 2) + t * random_direction(f.shape, 3))
        return [f, dL_dh, *gradients.values()]

    return moved


def _moving_loss(problem: Problem) -> Moved:
    """The slope of a loss as a function of t, f moving by t."""
    f = problem.fresh().forward()

    def moved(t: complex) -> list[Array]:
        loss = copy.copy(problem.loss)
        total(loss, f + t * _direction(f, 0), problem.y, problem.shares(f))
        return [slope(loss)]

    return moved


def _direction(array: Array, seed: int) -> Array:
    """A direction to move an array in, of its own size."""
    size = float(np.sqrt(np.mean(np.square(array, dtype=float)))) if array.size else 0.0
    return random_direction(array.shape, seed) * (size or 1.0)


def _loses_tangents(who: str, part: Layer | Loss, methods: str) -> ValueError:
    expected = f"{methods} of {part.label} to take complex numbers, in which tangents are carried"
    advice = "Without abs, casts and np.real; compare real parts: h.real > 0. check_gradients needs none of this."
    return ValueError(checks.message(who, expected, "an error, or tangents that no difference confirms", advice))
