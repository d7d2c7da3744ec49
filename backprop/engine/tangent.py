"""Tangents: how each value of a list moves when some of its inputs move, as more operations of the same list.

    f' = Σ factor ⊙ x'        over what moves: x' are seeds, products and sums; factors come from the values alone

One rule for each function, its partial derivatives, written in NumPy on stand-ins: what they compute is traced, planned and
played like all else. Factors are multiplied with one another before they meet an x', so from any chain of functions of each entry
comes one factor, such as a' or a'', that is the same for all directions. Where a function has a kink its tangent is that of one
side, at 0 of the side below for every function, so that pieces such as min(h, 0) and −|h| of a smooth one stay together.
Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from backprop.engine.operations import CannotTrace, Op, converted, gathered, of_list
from backprop.engine.plan import needed
from backprop.engine.trace import Trace, Value

Factor = Any  # a number, an array, or a Value that does not move
Terms = dict[Op, Factor]

# Output and inputs -> the partial derivative by one input. True and False are 1 and 0, and nothing comes out of a 0.
RULES: dict[str, tuple[Callable[..., Factor], ...]] = {
    "add": (lambda f, x, y: 1, lambda f, x, y: 1),
    "subtract": (lambda f, x, y: 1, lambda f, x, y: -1),
    "multiply": (lambda f, x, y: y, lambda f, x, y: x),
    "divide": (lambda f, x, y: 1 / y, lambda f, x, y: -f / y),
    "negative": (lambda f, x: -1,),
    "positive": (lambda f, x: 1,),
    "conjugate": (lambda f, x: 1,),
    "reciprocal": (lambda f, x: -f * f,),
    "square": (lambda f, x: 2 * x,),
    "power": (
        lambda f, x, n: 2 * x if isinstance(n, int | float) and n == 2 else n * x ** (n - 1),
        lambda f, x, n: f * np.log(x),
    ),
    "exp": (lambda f, x: f,),
    "exp2": (lambda f, x: f * np.log(2.0).item(),),
    "expm1": (lambda f, x: np.exp(x),),
    "log": (lambda f, x: 1 / x,),
    "log2": (lambda f, x: math.log2(math.e) / x,),
    "log10": (lambda f, x: math.log10(math.e) / x,),
    "log1p": (lambda f, x: 1 / (1 + x),),
    "logaddexp": (lambda f, x, y: np.exp(x - f), lambda f, x, y: np.exp(y - f)),
    "sqrt": (lambda f, x: 0.5 / f,),
    "tanh": (lambda f, x: (1 / np.cosh(x)) ** 2,),  # 1 - f * f would lose its digits far out
    "cosh": (lambda f, x: np.sinh(x),),
    "sinh": (lambda f, x: np.cosh(x),),
    "sin": (lambda f, x: np.cos(x),),
    "cos": (lambda f, x: -np.sin(x),),
    "tan": (lambda f, x: 1 + f * f,),
    "arctan": (lambda f, x: 1 / (1 + x * x),),
    "arctanh": (lambda f, x: 1 / (1 - x * x),),
    "arcsinh": (lambda f, x: 1 / np.sqrt(1 + x * x),),
    "ndtr": (lambda f, x: np.exp(x * x * -0.5) * (2 * np.pi) ** -0.5,),
    "erf": (lambda f, x: np.exp(-x * x) * (2 * np.pi**-0.5),),
    "absolute": (lambda f, x: 2 * (x > 0).astype(x.dtype) - 1,),
    "clip": (lambda f, x, low, high: (x >= low) & (x <= high),),
}
RULES["fabs"] = RULES["absolute"]
STILL = {"sign", "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "isinf", "isnan", "isfinite"}
STILL |= {"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "invert", "floor", "ceil", "rint"}
# Of the first argument, or of each of several on its own.
LINEAR = {np.cumsum, np.diff, np.repeat, np.tile, np.roll, np.flip, np.trace, np.diag, np.take, np.take_along_axis}
MULTILINEAR = {np.einsum, np.tensordot, np.outer, np.vdot}
JOINING = {np.concatenate, np.stack, np.vstack, np.hstack}

Calls = Callable[[Op, list[Value | None]], Value | None]


class Tangents:
    """How what the roots need moves. `seeds` says how some operations do, `still` are those that stay where they are.

    `calls` says how a pass of a layer or loss of one's own moves, from how its inputs do. Raises CannotTrace for a function
    without a rule.
    """

    def __init__(
        self,
        trace: Trace,
        roots: Iterable[Op],
        seeds: Mapping[Op, Value],
        still: Iterable[Op] = (),
        calls: Calls | None = None,
    ) -> None:
        self.trace, self.calls, fixed = trace, calls, set(still)
        self.terms: dict[Op, Terms] = {op: {trace.now(value): 1} for op, value in seeds.items()}
        with _as_computed(trace):
            for op in needed(roots):
                if op not in self.terms and op not in fixed and op.dtype.kind == "f":
                    terms = self._of(op)
                    if terms:
                        self.terms[op] = terms

    def get(self, op: Op) -> Value | None:
        """How an operation moves, in its shape and type; None if it does not."""
        if op not in self.terms:
            return None
        made: Any = None
        with _as_computed(self.trace):
            for x, factor in sorted(self.terms[op].items(), key=lambda term: _is(term[1], -1)):
                value = Value(self.trace, x)
                if made is not None and _is(factor, -1):
                    made = made - value
                else:
                    value = _product(_number(factor, x.dtype), value)
                    made = value if made is None else made + value
            if made.shape != op.shape:  # something that moves is smaller than what it is added to
                made = made + zeros(self.trace, op)
            made = made.astype(op.dtype)
        self.terms[op] = {made.op: 1}
        return made

    def _of(self, op: Op) -> Terms | None:
        moves = [isinstance(x, Op) and x in self.terms for x in op.inputs]
        if op.kind == "call" and self.calls is not None:
            return _single(self.calls(op, [self._moving(x) for x in op.inputs]))
        if not any(moves) or op.kind == "input":
            return None
        inputs = [Value(self.trace, x) if isinstance(x, Op) else x for x in op.inputs]
        if op.kind == "view":
            return _single(self.trace.view(self._moving(op.inputs[0]), op.function))
        if op.kind == "ufunc":
            return self._of_ufunc(op, inputs, moves)
        if op.kind == "function":
            return self._of_function(op, inputs, moves)
        raise _unknown(op)

    def _moving(self, x: Any) -> Any:
        return self.get(x) if isinstance(x, Op) else None

    def _of_ufunc(self, op: Op, inputs: list[Any], moves: list[bool]) -> Terms | None:
        ufunc, method = op.function
        if method == "reduce" and ufunc is np.add:
            return _single(self.trace.ufunc(np.add, "reduce", (self._moving(op.inputs[0]),), dict(op.options)))
        if method == "reduce" and ufunc in (np.maximum, np.minimum):
            return _single(self._of_the_largest(op, inputs[0]))
        if method != "__call__":
            raise _unknown(op)
        if ufunc is np.matmul:
            A, B = map(self._moving, op.inputs)
            return _sum([_single(None if A is None else A @ inputs[1]), _single(None if B is None else inputs[0] @ B)])
        if ufunc.__name__ in STILL:
            return None
        if ufunc in (np.maximum, np.minimum):
            return self._chain(op, moves, _sides(ufunc, inputs, all(moves)))
        rules = RULES.get(ufunc.__name__, ())
        if not all(i < len(rules) for i, moving in enumerate(moves) if moving):
            raise _unknown(op)
        f = Value(self.trace, op)
        partials = [rules[i](f, *inputs) if moving else 0 for i, moving in enumerate(moves)]
        return self._chain(op, moves, partials)

    def _of_function(self, op: Op, inputs: list[Any], moves: list[bool]) -> Terms | None:
        function, trace = op.function, self.trace
        if function is converted and (x := op.inputs[0]).dtype != op.dtype:
            return _single(None if x.dtype.kind != "f" else self._moving(x).astype(op.dtype))
        if function is converted:
            return self.terms[op.inputs[0]]
        if function is np.where:
            # Chosen, not multiplied by a mask: how the other one moves may be no number.
            sides = [0 if (dx := self._moving(x)) is None else dx for x in op.inputs[1:]]
            return _single(np.where(inputs[0], *sides)) if any(moves[1:]) else None
        if (function in LINEAR or function is gathered) and not any(moves[1:]):
            dx = self._moving(op.inputs[0])
            if function is gathered:
                return _single(trace.gather(dx, tuple(inputs[1:])))
            return _single(trace.listed(function, (dx, *inputs[1:]), dict(op.options)))
        if function in MULTILINEAR:
            each = [self._moving(x) for x in op.inputs]
            with_dx = [(*inputs[:i], dx, *inputs[i + 1 :]) for i, dx in enumerate(each) if dx is not None]
            return _sum([_single(trace.listed(function, args, dict(op.options))) for args in with_dx])
        if function is of_list and op.options["function"] in JOINING:
            pieces = [self._moving(x) if isinstance(x, Op) and x in self.terms else zeros(trace, x) for x in op.inputs]
            options = {k: v for k, v in op.options.items() if k not in ("function", "rest", "many")}
            return _single(trace.listed(op.options["function"], (pieces, *op.options["rest"]), options))
        raise _unknown(op)

    def _chain(self, op: Op, moves: list[bool], partials: list[Factor]) -> Terms | None:
        """Σ ∂f/∂x x': factors meet factors. What is a sum already is added up before a factor would meet each of its terms."""
        found = []
        for x, moving, partial in zip(op.inputs, moves, partials, strict=True):
            if not moving:
                continue
            if len(self.terms[x]) > 1 and not (_is(partial, 1) or _is(partial, -1)):
                self.get(x)
            found.append({base: _product(partial, factor, base.dtype) for base, factor in self.terms[x].items()})
        return _sum(found)

    def _of_the_largest(self, op: Op, x: Value) -> Value:
        """A largest entry moves as that entry does; of several that are alike, as their mean."""
        reduce, options = self.trace.ufunc, {**op.options, "keepdims": True}
        there = (x == reduce(op.function[0], "reduce", (x,), dict(options))).astype(x.dtype)
        share = there / reduce(np.add, "reduce", (there,), dict(options))
        return reduce(np.add, "reduce", (share * self._moving(x.op),), dict(op.options))


@contextmanager
def _as_computed(trace: Trace) -> Iterator[None]:
    """Each operation stands for what it computed, whatever was written to its array later."""
    before, trace.current = trace.current, {}
    try:
        yield
    finally:
        trace.current = before


def _single(value: Value | None) -> Terms | None:
    return None if value is None else {value.trace.now(value): 1}


def _sum(each: Iterable[Terms | None]) -> Terms | None:
    """Terms with the same x' become one."""
    total: Terms = {}
    for terms in each:
        for x, factor in (terms or {}).items():
            total[x] = _number(total[x], x.dtype) + _number(factor, x.dtype) if x in total else factor
    return total or None


def _product(a: Factor, b: Factor, dtype: Any = None) -> Factor:
    """The product of two factors; a mask chooses, for 0 times inf would be no number."""
    for one, other in ((a, b), (b, a)):
        if _is(one, 1):
            return other
        if _is(one, -1):
            return -_number(other, dtype)
    for mask, other in ((a, b), (b, a)):
        if _is_mask(mask) and not hasattr(other, "dtype"):
            return _number(mask, dtype) * other
        if _is_mask(mask):
            return mask & other if _is_mask(other) else np.where(mask, other, 0)
    return a * b


def _number(factor: Factor, dtype: Any) -> Factor:
    """A factor to calculate with: no mask."""
    return factor.astype(dtype) if _is_mask(factor) else factor


def _is(factor: Factor, number: int) -> bool:
    return isinstance(factor, int | float) and factor == number


def _is_mask(factor: Factor) -> bool:
    return getattr(factor, "dtype", None) == np.bool_


def _sides(ufunc: np.ufunc, inputs: list[Any], both: bool) -> list[Factor]:
    """Which of two is the larger or smaller. Where they are equal it is the smaller side of what moves; of two that move, one."""
    x, y = inputs
    if ufunc is np.maximum:
        return [x > y, y >= x if both else y > x]
    return [x <= y, y < x if both else y <= x]


def _unknown(op: Op) -> CannotTrace:
    advice = "the complex step has, where the layer takes complex numbers."
    return CannotTrace(f"{op.line}: {op.name} has no tangent here; {advice}")


def zeros(trace: Trace, op: Op) -> Value:
    """How something moves that does not."""
    return trace.constant(np.zeros(op.shape, op.dtype))
