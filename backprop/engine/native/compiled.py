"""A network as one function: the way forward of a few rows, played without Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine import native
from backprop.engine.plan import Plan, make
from backprop.engine.play import Bound, part_at
from backprop.engine.trace import CannotTrace
from backprop.engine.twins import trace_infer
from backprop.layers import Layer
from backprop.layers.boundary import is_traced
from backprop.layers.nesting import inside

Function = Callable[[Array], Array]


def compiled(net: Layer, dtype: np.dtype[Any], D: int, rows: int) -> Function:
    """`infer` of a network that nobody else changes, as a function of X (rows, D), or of x (D,) where it takes one row."""
    who, plan = f"{net.label}.compiled", inference(net, dtype, D, rows)
    X = np.zeros((rows, D), dtype)
    arrays = {"X": X, **net.parameters, **net.buffers}
    for name in plan.inputs:
        path, colon, attribute = name.rpartition(":")
        if colon:
            arrays[name] = getattr(part_at(net, None, path), attribute)
    bound = Bound(plan, arrays)
    play = _natively(bound, who) if native.player else None
    return play or partial(_slowly, who, X.shape, dtype, _by_numpy(bound))


def inference(net: Layer, dtype: np.dtype[Any], D: int, rows: int) -> Plan:
    """The plan of `infer` for so many rows. Raises TypeError where a layer of one's own would have to be called."""
    own = [layer.label for layer in inside(net) if not is_traced(layer)]
    advice = "Say traced = True in the class, if its passes always make the same calls."
    if own:
        raise TypeError(checks.message(f"{net.label}.compiled", "layers that can be traced", own[0], advice))
    try:
        trace, f = trace_infer(net, D, rows, dtype)
    except CannotTrace as error:
        raise TypeError(checks.message(f"{net.label}.compiled", "layers that can be traced", str(error))) from None
    return make(None, [], trace.writes, results=[f])


def _natively(bound: Bound, who: str) -> Function | None:
    """The native player's function; None where a call needs Python."""
    from backprop.engine.native.loops import PYTHON
    from backprop.engine.native.lower import Operations

    X, results, ops = bound.sources["X"], bound.results[0].T, Operations([])
    ops.extend(bound.calls)
    packed, values = ops.packed(), np.array([*ops.values, 0.0])
    if (packed["kind"] == PYTHON).any():
        return None
    play: Function
    slowly = partial(_slowly, who, X.shape, X.dtype, lambda given: play(given))
    row = results[0] if len(X) == 1 else None
    play = native.player.compiled(packed, values, X, X.dtype.char, row, results, slowly, (ops, bound))
    return play


def _by_numpy(bound: Bound) -> Function:
    lock, plays = Lock(), bound.first + bound.rest

    def play(given: Array) -> Array:
        with lock, np.errstate(all="ignore"):
            bound.sources["X"][...] = given
            for call in plays:
                call()
            return bound.results[0].T.copy()

    return play


def _slowly(who: str, shape: tuple[int, int], dtype: Any, play: Function, given: Any) -> Array:
    """Play what is no array of this very shape, type and order, once it is one. Raises ValueError or TypeError."""
    x = np.asarray(given)
    one = shape[0] == 1 and x.shape == shape[1:]
    if x.shape != shape and not one:
        expected = f"X with shape {shape}" + (f" or {shape[1:]}" if shape[0] == 1 else "")
        raise ValueError(checks.message(who, expected, f"shape {x.shape}"))
    X = checks.rows(who, x.reshape(shape), shape[1])
    checks.finite(who, "X", X, 0, dtype)
    found = play(np.ascontiguousarray(X, dtype))
    return found[0] if one else found
