"""Tangents: how each value of a list moves when some of its inputs move, as more operations of the same list.

One rule for each ufunc, written in NumPy on stand-ins, so that what they compute is traced, planned and played like all else. Where a
function jumps or has a kink its tangent is that of the side the values are on.
Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from backprop.engine.plan import needed
from backprop.engine.trace import CannotTrace, Op, Trace, Value, converted, gathered, of_list

Moving = Value | None


def _sum(a: Moving, b: Moving) -> Moving:
    return b if a is None else a if b is None else a + b


def _times(a: Any, b: Moving) -> Moving:
    return None if b is None else a * b


def _power(f: Value, x: Any, n: Any, dx: Moving, dn: Moving) -> Moving:
    slope = 2 * x if isinstance(n, int | float) and n == 2 else n * x ** (n - 1)
    return _sum(_times(slope, dx), None if dn is None else f * np.log(x) * dn)


def _ndtr(f: Value, x: Value, dx: Value) -> Value:
    return np.exp(-0.5 * (x * x)) * (2 * np.pi) ** -0.5 * dx


# Output, inputs, and how the inputs move (None: not at all) -> how the output moves.
RULES: dict[str, Callable[..., Moving]] = {
    "add": lambda f, x, y, dx, dy: _sum(dx, dy),
    "subtract": lambda f, x, y, dx, dy: _sum(dx, None if dy is None else -dy),
    "multiply": lambda f, x, y, dx, dy: _sum(_times(y, dx), _times(x, dy)),
    "divide": lambda f, x, y, dx, dy: _sum(None if dx is None else dx / y, None if dy is None else -(f * dy) / y),
    "matmul": lambda f, x, y, dx, dy: _sum(None if dx is None else dx @ y, None if dy is None else x @ dy),
    "negative": lambda f, x, dx: -dx,
    "positive": lambda f, x, dx: dx,
    "square": lambda f, x, dx: 2 * x * dx,
    "power": _power,
    "exp": lambda f, x, dx: f * dx,
    "expm1": lambda f, x, dx: (f + 1) * dx,
    "log": lambda f, x, dx: dx / x,
    "log1p": lambda f, x, dx: dx / (1 + x),
    "sqrt": lambda f, x, dx: dx / (2 * f),
    "tanh": lambda f, x, dx: (1 - f * f) * dx,
    "cosh": lambda f, x, dx: np.sinh(x) * dx,
    "sinh": lambda f, x, dx: np.cosh(x) * dx,
    "sin": lambda f, x, dx: np.cos(x) * dx,
    "cos": lambda f, x, dx: -np.sin(x) * dx,
    "absolute": lambda f, x, dx: np.sign(x) * dx,
    "ndtr": _ndtr,
    "maximum": lambda f, x, y, dx, dy: _chosen(x >= y, dx, dy),
    "minimum": lambda f, x, y, dx, dy: _chosen(x <= y, dx, dy),
    "clip": lambda f, x, low, high, dx, *_: _chosen((x >= low) & (x <= high), dx, None),
}
STILL = {"sign", "greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "isinf", "isnan", "isfinite"}
STILL |= {"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "invert", "floor", "ceil", "rint"}


def _chosen(first: Value, dx: Moving, dy: Moving) -> Moving:
    if dx is None and dy is None:
        return None
    return np.where(first, 0 if dx is None else dx, 0 if dy is None else dy)


def tangents(trace: Trace, roots: Iterable[Op], seeds: Mapping[Op, Value], still: Iterable[Op] = ()) -> dict[Op, Value]:
    """For each operation that the roots need and that moves, how it moves; `seeds` says how some of them do.

    Raises CannotTrace for a function without a rule, and for a layer of one's own.
    """
    found, fixed = dict(seeds), set(still)
    for op in needed(roots):
        if op in found or op in fixed:
            continue
        moving = [found.get(x) if isinstance(x, Op) else None for x in op.inputs]
        if all(dx is None for dx in moving) or op.dtype.kind != "f":
            continue
        tangent = _rule(trace, op, moving)
        if tangent is None:
            continue
        if tangent.shape != op.shape:  # something that moves is smaller than what it is added to
            tangent = tangent + trace.constant(np.zeros(op.shape, op.dtype))
        found[op] = tangent.astype(op.dtype)
    return found


def _rule(trace: Trace, op: Op, moving: list[Moving]) -> Moving:
    inputs = [Value(trace, x) if isinstance(x, Op) else x for x in op.inputs]
    if op.kind == "view":
        return trace.view(moving[0], op.function)  # type: ignore[arg-type]
    if op.kind == "ufunc":
        ufunc, method = op.function
        if method == "reduce" and ufunc is np.add:
            return trace.ufunc(np.add, "reduce", (moving[0],), dict(op.options))  # type: ignore[no-any-return]
        if method == "reduce" and ufunc in (np.maximum, np.minimum):
            return _of_the_largest(trace, op, inputs[0], moving[0])  # type: ignore[arg-type]
        if method == "__call__" and ufunc.__name__ in RULES:
            return RULES[ufunc.__name__](Value(trace, op), *inputs, *moving)
        if method == "__call__" and ufunc.__name__ in STILL:
            return None
    if op.kind == "function":
        dx = [
            _zeros(trace, x) if d is None and isinstance(x, Op) else d for x, d in zip(op.inputs, moving, strict=True)
        ]
        if op.function is converted:
            return dx[0]
        if op.function is np.where:
            a, b = (0 if d is None else d for d in moving[1:])
            return np.where(inputs[0], a, b)
        if op.function is gathered and moving[0] is not None and not any(d is not None for d in moving[1:]):
            return trace.gather(moving[0], tuple(inputs[1:]))
        if op.function is of_list and op.options["function"] in (np.concatenate, np.stack, np.vstack, np.hstack):
            options = {k: v for k, v in op.options.items() if k not in ("function", "rest", "many")}
            return trace.listed(op.options["function"], (dx, *op.options["rest"]), options)
    raise CannotTrace(
        f"{op.line}: {op.name} has no tangent here; the complex step has, where the layer takes complex numbers."
    )


def _of_the_largest(trace: Trace, op: Op, x: Value, dx: Value) -> Value:
    """A largest entry moves as that entry does; of several that are alike, as their mean."""
    options = {**op.options, "keepdims": True}
    kept = trace.ufunc(op.function[0], "reduce", (x,), options)
    there = (x == kept).astype(x.dtype)
    share = there / trace.ufunc(np.add, "reduce", (there,), options)
    return trace.ufunc(np.add, "reduce", (share * dx,), dict(op.options))  # type: ignore[no-any-return]


def _zeros(trace: Trace, op: Op) -> Value:
    return trace.constant(np.zeros(op.shape, op.dtype))
