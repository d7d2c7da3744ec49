"""The boundary around a layer: what every call from outside needs, once for all layers.

`net.forward(h)` checks h, makes a column of a single example, and copies: whatever the caller does with his arrays, `backward`
gives the gradient of the last `forward`. What runs inside is the equation, `forward.plain`. A layer inside another one is called
by `forward`, `backward` and `infer` of this module, which go straight to the equation; so do the engine's stand-ins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop import blame, checks
from backprop.checks import Array, Door, StandIn

if TYPE_CHECKING:
    from backprop.layers.base import Gradients, Layer

Equation = Callable[..., Any]


def is_traced(part: object) -> bool:
    """Whether this very class, not one it inherits from, promises that each pass makes the same NumPy calls.

    A subclass of one's own is taken for what it is, an unknown. (`replays` was the word of version 0.1.)
    """
    said = vars(type(part))
    return bool(said.get("traced", said.get("replays", False))) and not vars(part).keys() & {"forward", "backward"}


def forward(layer: Layer, h: Array, method: Any = None) -> Array:
    """F (D_out, N) of a layer inside another one."""
    method = method or layer.forward
    f = method.plain(layer, h) if _is_ours(layer, method) else _own_forward(layer, method, h)
    vars(layer)["_shape"] = f.shape
    return f


def backward(layer: Layer, dL_df: Array, method: Any = None) -> tuple[Array, Gradients]:
    """(dL_dh, gradients) of a layer inside another one."""
    method = method or layer.backward
    return method.plain(layer, dL_df) if _is_ours(layer, method) else _own_backward(layer, method, dL_df)


def infer(layer: Layer, h: Array) -> Array:
    """F (D_out, N) of a layer inside another one, in inference."""
    equation = getattr(layer.infer, "plain", None)
    if not is_traced(layer):  # it may write to what it gets, and return what it keeps
        return np.array(equation(layer, np.array(h)) if equation else layer.infer(np.array(h)))
    return equation(layer, h) if equation else layer.infer(h)


def _is_ours(layer: Layer, method: Any) -> bool:
    """Whether a pass is the library's equation, and no function that somebody put on this very object."""
    return type(layer).__module__.startswith("backprop.") and hasattr(method, "plain")


def _own_forward(layer: Layer, method: Any, h: Array) -> Array:
    f = _run(layer, method, h)
    if not is_traced(layer):
        forward_result(layer, f, h)
        vars(layer)["_came"] = h.shape
    return f


def _own_backward(layer: Layer, method: Any, dL_df: Array) -> tuple[Array, Gradients]:
    result = _run(layer, method, dL_df)
    return result if is_traced(layer) else backward_result(layer, result, vars(layer).get("_came"))


def _run(layer: Layer, method: Any, array: Array) -> Any:
    """Run a pass of somebody's own; what it calls of its parent class goes straight to the equation, too."""
    equation = getattr(method, "plain", None)
    own = vars(layer)
    before = own.get("_inside", False)
    own["_inside"] = True
    try:
        return equation(layer, array) if equation else method(array)
    except Exception as error:
        if equation:
            where = f"{layer.label}.{equation.__name__}, for an array of shape {array.shape}"
            error.add_note(f"In {where}{blame.shapes(error)}.")
        raise
    finally:
        own["_inside"] = before


def around_forward(equation: Equation) -> Equation:
    """`forward` as it is called from outside."""

    @wraps(equation)
    def call(self: Layer, h: Array) -> Array:
        if vars(self).get("_inside") or isinstance(h, StandIn):
            return equation(self, h)
        array = checked_input(self, "forward", h)
        vars(self)["_shape"] = None
        f = forward(self, np.array(array if array.ndim == 2 else array[:, None]), call)
        f = np.array(f if array.ndim == 2 else f[:, 0])
        vars(self)["_shape"] = f.shape
        return f

    call.plain = equation  # type: ignore[attr-defined]
    return call


def around_backward(equation: Equation) -> Equation:
    """`backward` as it is called from outside."""

    @wraps(equation)
    def call(self: Layer, dL_df: Array) -> tuple[Array, Gradients]:
        if vars(self).get("_inside") or isinstance(dL_df, StandIn):
            return equation(self, dL_df)
        array = checked_gradient(self, dL_df, vars(self).get("_shape"))
        columns = np.array(array if array.ndim == 2 else array[:, None])
        dL_dh, gradients = backward(self, columns, call)
        return np.array(dL_dh if array.ndim == 2 else dL_dh[:, 0]), self._handed_out(gradients)

    call.plain = equation  # type: ignore[attr-defined]
    return call


def around_infer(equation: Equation) -> Equation:
    """`infer` as it is called from outside."""

    @wraps(equation)
    def call(self: Layer, h: Array) -> Array:
        if isinstance(h, StandIn):
            return equation(self, h)
        array = checked_input(self, "infer", h)
        own = not is_traced(self)
        columns = array if array.ndim == 2 else array[:, None]
        f = equation(self, np.array(columns) if own else columns)
        f = f if array.ndim == 2 else f[:, 0]
        return np.array(f) if own or np.may_share_memory(f, array) else f

    call.plain = equation  # type: ignore[attr-defined]
    return call


def beside(layer: Any) -> Any:
    """The same layer, with caches, buffers and randomness of its own; only the parameters are shared."""
    twin = object.__new__(type(layer))
    own = vars(layer)
    parameters = list(own["parameters"].values()) if "parameters" in own else []
    for name, value in own.items():
        if name in own.get("buffers", ()):
            continue  # found there
        shared = name in ("parameters", "_phi", "_called") or any(value is array for array in parameters)
        vars(twin)[name] = value if shared else _own(value)
    return twin


def _own(value: Any) -> Any:
    if isinstance(value, np.random.Generator | np.ndarray):
        return copy.deepcopy(value)
    if hasattr(value, "forward") and hasattr(value, "backward"):
        return beside(value)
    if type(value) in (list, tuple):
        return type(value)(map(_own, value))
    if isinstance(value, dict):
        twin = copy.copy(value)
        dict.update(twin, {key: _own(each) for key, each in value.items()})
        return twin
    return value


def checked_input(layer: Any, method: str, h: object) -> Array:
    """Input of a layer: shape (D,) or (D, N), one example per column. Raises TypeError or ValueError."""
    array, width = checks.floating(Door(layer, method), "h", h), layer.in_features
    if array.ndim not in (1, 2) or width not in (None, array.shape[0]):
        expected = "h with " + (f"{width} rows (one column per example)" if width else "shape (D,) or (D, N)")
        fits = array.ndim == 2 and array.shape[1] == width
        advice = "Pass h.T, or use predict(X), which takes one row per example." if fits else ""
        raise ValueError(checks.message(Door(layer, method), expected, f"shape {array.shape}", advice))
    return array


def checked_gradient(layer: Any, dL_df: object, shape: tuple[int, ...] | None) -> Array:
    """Argument of `backward`, in the shape of what `forward` returned. Raises RuntimeError before it, TypeError, ValueError."""
    if shape is None:
        raise checks.too_early(layer)
    array = checks.floating(Door(layer, "backward"), "dL_df", dL_df)
    if array.shape != shape:
        expected = f"dL_df with shape {shape}, that of what forward returned"
        raise ValueError(checks.message(Door(layer, "backward"), expected, f"shape {array.shape}"))
    return array


def forward_result(layer: Any, f: Any, h: Array) -> Array:
    """What a layer's `forward` returned for h (D, N): (D_out, N). Raises TypeError or ValueError for anything else."""
    who, N, shape = Door(layer, "forward"), h.shape[1], getattr(f, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] != N:
        kind, got = (TypeError, f"a {type(f).__name__}") if shape is None else (ValueError, f"shape {shape}")
        advice = "An example is a column: keep axis 1."
        raise kind(checks.message(who, f"f with {N} columns for {N} examples", got, advice))
    checks.numbers(who, "f", f, "fiubc")  # parameters may be complex where h is not
    return f


def backward_result(layer: Any, result: Any, shape: tuple[int, ...] | None) -> tuple[Array, dict[str, Array]]:
    """What a layer's `backward` returned: (dL_dh, gradients), one gradient per parameter. Raises TypeError or ValueError."""
    who = Door(layer, "backward")
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        expected = "a pair (dL_dh, gradients), gradients a dict, {} without parameters"
        raise TypeError(checks.message(who, expected, f"a {type(result).__name__}"))
    dL_dh, gradients, parameters = *result, layer.parameters
    if shape is not None and getattr(dL_dh, "shape", None) != shape:
        returned = f"shape {dL_dh.shape}" if hasattr(dL_dh, "shape") else f"a {type(dL_dh).__name__}"
        raise ValueError(checks.message(who, f"dL_dh with the shape of h, {shape}", returned))
    if gradients.keys() != parameters.keys():
        expected, advice = f"gradients named {list(parameters)}", "Return one gradient per parameter."
        if not parameters:
            advice = 'Parameters are the arrays in self.parameters: self.parameters["omega"] = … makes one.'
        raise ValueError(checks.message(who, expected, f"{list(gradients)}", advice))
    for name, parameter in parameters.items():
        got = np.shape(gradients[name])
        if got != parameter.shape:
            advice = "It is transposed." if got == parameter.shape[::-1] and len(got) == 2 else ""
            if len(parameter.shape) == 1:
                advice = "Sum over the wrong axis? One β serves all examples: sum over them, axis=1."
            expected = f"gradient {name!r} with shape {parameter.shape}"
            raise ValueError(checks.message(who, expected, f"shape {got}", advice))
    for name, array in {"dL_dh": dL_dh, **gradients}.items():
        checks.numbers(who, name, array, "fiubc")
    return result
