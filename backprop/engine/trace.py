"""Trace: plain NumPy code runs on stand-ins that have a shape and a type but no numbers, and write down what is computed.

    Value    the stand-in of an array: what is done to it becomes an Op
    Number   the stand-in of a Python number that changes from step to step: the learning rate α, the step t
    Draws    the stand-in of a random generator: a draw is an effect, made once and in order

What would make the list depend on numbers (`if`, `float`, `x[mask]`) raises CannotTrace, with the line that did it and what to
write instead. What is read of a layer besides arrays, its settings, is noted: the list holds for as long as they are the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from backprop.checks import StandIn
from backprop.engine.operations import (
    CannotTrace,
    Key,
    Op,
    constant_key,
    converted,
    frozen,
    gathered,
    line,
    look,
    of_list,
    refusal,
)

CLIP: Any = np._core.umath.clip  # type: ignore[attr-defined]  # the ufunc behind np.clip


def _refuse(what: str, advice: str) -> Callable[..., Any]:
    def method(self: Any, *_: Any, **__: Any) -> Any:
        error = refusal(what, advice)
        if isinstance(self, Value):
            self.trace.refused = self.trace.refused or error  # somebody's `except` may swallow it
        raise error

    return method


def _reduce(ufunc: np.ufunc) -> Callable[..., Any]:
    def method(
        self: Value, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, **others: Any
    ) -> Value:
        if out is not None or others:
            raise refusal(
                f"{', '.join(others) or 'out'}= of {ufunc.__name__}.reduce", "Use what is returned, as it is."
            )
        options = {"axis": axis, "keepdims": keepdims} | ({} if dtype is None else {"dtype": dtype})
        return self.trace.ufunc(ufunc, "reduce", (self,), options)

    return method


class Value(StandIn, NDArrayOperatorsMixin):
    """The stand-in of an array."""

    __array_priority__ = 1000.0
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, op: Op) -> None:
        self.trace, self.op, self.viewed = trace, op, False

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # what a layer may ask of its h
        return np.ndarray

    shape = property(lambda self: self.op.shape)
    dtype = property(lambda self: self.op.dtype)
    ndim = property(lambda self: len(self.op.shape))
    size = property(lambda self: self.op.nbytes // self.op.dtype.itemsize)
    nbytes = property(lambda self: self.op.nbytes)
    T = property(lambda self: self.trace.view(self, ("T",)))

    @property
    def real(self) -> Value:
        return self.trace.view(self, ("real",)) if self.dtype.kind == "c" else self

    @property
    def imag(self) -> Value:
        return self.trace.view(self, ("imag",)) if self.dtype.kind == "c" else self * 0

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self.op)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return self.trace.ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return self.trace.function(function, args, options)

    def __getitem__(self, key: Any) -> Value:
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, np.ndarray | list) for k in keys):
            return self.trace.gather(self, keys)
        return self.trace.view(self, ("item", keys))

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is not Ellipsis and not (isinstance(key, slice) and key == slice(None)):
            _refuse("writing to a part of an array, x[…] = …", "Write an expression: np.where, np.concatenate.")(self)
        self.trace.write(self, value)

    def reshape(self, *shape: Any, order: str = "C") -> Value:
        sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int | np.integer) else shape
        if order != "C":
            _refuse("reshape with order", "Transpose first.")(self)
        return self.trace.view(self, ("reshape", sizes))

    def transpose(self, *axes: Any) -> Value:
        return self.trace.view(self, ("transpose", axes[0] if len(axes) == 1 else axes or None))

    def ravel(self, order: str = "C") -> Value:
        return self.reshape(-1, order=order)

    flatten = ravel
    sum, max, min = map(_reduce, (np.add, np.maximum, np.minimum))
    prod, any, all = map(_reduce, (np.multiply, np.logical_or, np.logical_and))

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Value:
        total = self.sum(axis, dtype, out, keepdims)
        return total / (self.size // max(total.size, 1))

    def var(
        self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False
    ) -> Value:
        d = self - self.mean(axis, dtype, out, keepdims=True)
        total = (d * d).sum(axis, keepdims=keepdims)
        return total / (self.size // max(total.size, 1) - ddof)

    def std(self, *args: Any, **options: Any) -> Value:
        return np.sqrt(self.var(*args, **options))  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_" or not callable(getattr(np.ndarray, name, None)) or not callable(getattr(np, name, None)):
            raise AttributeError(f"an array in a traced pass has no {name!r}. Write it with NumPy's functions.")
        return partial(getattr(np, name), self)

    def astype(self, dtype: Any, copy: bool = True, **_: Any) -> Value:
        if self.dtype == np.dtype(dtype):
            return self.copy() if copy else self
        return self.trace.pure("function", converted, (self,), self.shape, np.dtype(dtype), {})

    def copy(self, order: str = "C") -> Value:
        return self.trace.alias(self.trace.now(self), "copy")

    def clip(self, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None) -> Value:
        low, high = (a_min if min is None else min), (a_max if max is None else max)
        low, high = (-np.inf if low is None else low), (np.inf if high is None else high)
        return self.trace.ufunc(CLIP, "__call__", (self, low, high), {})

    def conj(self) -> Value:
        return np.conjugate(self) if self.dtype.kind == "c" else self  # type: ignore[return-value]

    def dot(self, other: Any) -> Value:
        return np.matmul(self, other)

    __bool__ = _refuse("a decision by numbers (if, while, and, or)", "Write an expression: np.where, np.maximum.")
    __float__ = __int__ = __index__ = __complex__ = item = tolist = _refuse(
        "reading numbers in Python (float, int, item)", "Keep them in arrays."
    )
    __array__ = _refuse("making another array of it (np.asarray, np.array, math)", "Use it as it is, in ufuncs.")


def _arithmetic(sign: str, of_numbers: Callable[[Any, Any], Any], ufunc: np.ufunc) -> tuple[Any, Any]:
    def joined(a: Any, b: Any) -> Any:
        if any(np.ndim(x) for x in (a, b) if not isinstance(x, Number)):
            raise refusal("an array times a number of the step", "Multiply what is traced first: alpha * (w * g).")
        if isinstance(a, Number) and isinstance(b, Number):
            value = lambda alpha, t: of_numbers(a.value(alpha, t), b.value(alpha, t))  # noqa: E731
        elif isinstance(a, Number):
            value = lambda alpha, t: of_numbers(a.value(alpha, t), b)  # noqa: E731
        else:
            value = lambda alpha, t: of_numbers(a, b.value(alpha, t))  # noqa: E731
        return Number(f"({a!r} {sign} {b!r})", value)

    def forth(self: Number, other: Any) -> Any:
        if isinstance(other, StandIn):
            return ufunc(other.trace.weak(self, other.dtype), other)  # type: ignore[attr-defined]
        return joined(self, other)

    def back(self: Number, other: Any) -> Any:
        if isinstance(other, StandIn):
            return ufunc(other, other.trace.weak(self, other.dtype))  # type: ignore[attr-defined]
        return joined(other, self)

    return forth, back


class Number:
    """The stand-in of a Python number of the step: `text` is how it is computed, `value(alpha, t)` does it, once a step."""

    __hash__ = object.__hash__

    def __init__(self, text: str, value: Callable[[float, int], float]) -> None:
        self.text, self.value = text, value

    def __repr__(self) -> str:
        return self.text

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        for x in inputs:
            if isinstance(x, StandIn):
                return x.trace.ufunc(ufunc, method, inputs, options)  # type: ignore[attr-defined]
        if ufunc is np.sqrt:
            return self**0.5
        by_ufunc: dict[Any, Any] = {np.add: operator.add, np.subtract: operator.sub}
        by_ufunc |= {np.multiply: operator.mul, np.true_divide: operator.truediv}
        if ufunc in by_ufunc and all(np.ndim(x) == 0 for x in inputs if not isinstance(x, Number)):
            return by_ufunc[ufunc](*(x if isinstance(x, Number) else float(x) for x in inputs))
        raise refusal(f"np.{ufunc.__name__} of a number of the step", "Use arithmetic, ** 0.5 among it.")

    __add__, __radd__ = _arithmetic("+", operator.add, np.add)
    __sub__, __rsub__ = _arithmetic("-", operator.sub, np.subtract)
    __mul__, __rmul__ = _arithmetic("*", operator.mul, np.multiply)
    __truediv__, __rtruediv__ = _arithmetic("/", operator.truediv, np.true_divide)
    __pow__, __rpow__ = _arithmetic("**", operator.pow, np.power)

    def __neg__(self) -> Number:
        return Number(f"(-{self})", lambda alpha, t: -self.value(alpha, t))

    __bool__ = __float__ = __int__ = __index__ = _refuse(
        "a decision or conversion by a number of the step", "It changes from step to step: keep it in arithmetic."
    )
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __bool__


ALPHA, STEP = Number("alpha", lambda alpha, t: alpha), Number("t", lambda alpha, t: t)


class Draws:
    """The stand-in of a generator: `place` is that of its layer in the network, which is part of the key of its draws."""

    def __init__(self, trace: Trace, name: str, place: tuple[int, ...]) -> None:
        self.trace, self.draws, self.place = trace, 0, place
        self.source = trace.input(f"generator {name}", (), np.dtype(np.uint8))
        trace.places[f"generator {name}"] = place

    def __getattr__(self, name: str) -> Any:
        if name not in ("random", "standard_normal", "standard_exponential", "normal", "uniform"):
            raise refusal(f"a draw by generator.{name}", "Draw with random, normal or uniform, with a size.")
        return lambda *args, **options: self._draw(name, args, options)

    def _draw(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Value:
        names = {"normal": ("loc", "scale", "size"), "uniform": ("low", "high", "size")}.get(name, ("size", "dtype"))
        given = dict(zip(names, args, strict=False)) | options
        size = given.pop("size", None)
        if size is None or any(isinstance(value, StandIn | Number) for value in given.values()):
            raise refusal("a draw without a size", "Pass the size, and shift and scale the draw yourself.")
        dtype = np.dtype(given.get("dtype", np.float64))
        shape = (size,) if isinstance(size, int) else tuple(size)
        self.draws += 1
        given["first"] = self.draws == 1
        return self.trace.add("draw", name, (self.source,), shape, dtype, given)


# Functions that are computed as they are, from the shapes of what they return for ones.
PURE = {
    *(np.linalg.norm, np.einsum, np.cumsum, np.argmax, np.argmin, np.sort, np.argsort, np.take_along_axis, np.outer),
    *(np.vdot, np.diff, np.median, np.tensordot, np.repeat, np.tile, np.stack, np.vstack, np.hstack, np.isclose),
    *(np.nan_to_num, np.linalg.solve, np.linalg.inv, np.take, np.roll, np.flip, np.count_nonzero, np.trace, np.diag),
    *(np.round, np.quantile, np.concatenate, np.where),
}
VIEWS = {np.expand_dims: "expand_dims", np.squeeze: "squeeze", np.broadcast_to: "broadcast_to"}
VIEWS |= {np.swapaxes: "swapaxes", np.moveaxis: "moveaxis", np.atleast_2d: "atleast_2d", np.diagonal: "diagonal"}
LOOK = {np.result_type, np.shape, np.ndim, np.size, np.iscomplexobj, np.isrealobj, np.can_cast}
METHODS = {np.sum: "sum", np.max: "max", np.min: "min", np.mean: "mean", np.any: "any", np.all: "all", np.clip: "clip"}
METHODS |= {np.amax: "max", np.amin: "min", np.copy: "copy", np.prod: "prod", np.var: "var", np.reshape: "reshape"}
METHODS |= {np.ravel: "ravel", np.transpose: "transpose", np.std: "std"}
# Dear enough to be kept from the way forward for the way back; anything else is computed again, which costs no memory.
DEAR = {"exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "tanh", "sinh", "cosh", "sin", "cos", "tan"}
DEAR |= {"ndtr", "erf", "arctan", "arctanh", "arcsinh", "power", "logaddexp", "matmul"}


@dataclass
class Trace:
    """What is known of one step: the list of operations, what is written, and what was read of the parts."""

    ops: list[Op] = field(default_factory=list)
    writes: dict[Op, Op] = field(default_factory=dict)  # an input that holds state -> its new value
    settings: dict[tuple[str, str], Any] = field(default_factory=dict)  # (path of the part, attribute) -> its value
    places: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of generators
    refused: CannotTrace | None = None
    apart: bool = False  # layers of one's own give the gradients of each example
    live: Any = None  # numbers of the step that is traced, where layers of one's own need them

    def __post_init__(self) -> None:
        self.same: dict[Key, Op] = {}  # pure expressions that there are
        self.current: dict[Op, Op] = {}  # an array that was written in place -> its value from then on
        self.aliases: dict[Op, Op] = {}  # another array with the same numbers -> where they come from
        self.read: list[tuple[str, Any, Any]] = []  # name of what may change in place, the copy that is read, as it was
        self.arrays: dict[int, Value] = {}  # those that parts keep as attributes, by identity
        self.shared: set[Op] = set()  # of them, those with two names
        self.numbers: dict[tuple[str, Any], Op] = {}
        self.expressions: dict[Key, int] = {}  # a number for each, which stays when the operation is made again

    def input(self, name: str, shape: tuple[int, ...], dtype: Any) -> Value:
        """An array from outside the list."""
        return self.add("input", name, (), shape, np.dtype(dtype), {})

    def add(
        self, kind: str, function: Any, inputs: Any, shape: Any, dtype: Any, options: Any, key: Key = None
    ) -> Value:
        """A new operation."""
        inputs = tuple(self.now(x) if type(x) is Value else x for x in inputs)
        op = Op(len(self.ops), kind, function, inputs, options, tuple(shape), dtype, line())
        op.same_as = -op.number if key is None else self.expressions.setdefault(key, len(self.expressions) + 1)
        self.ops.append(op)
        return Value(self, op)

    def pure(self, kind: str, function: Any, inputs: Any, shape: Any, dtype: Any, options: Any) -> Value:
        """A new operation, or the one there is for the same expression."""
        inputs, options = tuple(self.now(x) if type(x) is Value else frozen(x) for x in inputs), frozen(options)
        parts = tuple(x.same_as if type(x) is Op else constant_key(x) for x in inputs)
        called = constant_key(function) if kind == "view" else function
        key = (kind, called, parts, constant_key(options), tuple(shape), dtype)
        op = self.same.get(key)
        if op is None:
            value = self.add(kind, function, inputs, shape, dtype, options, key)
            self.same[key] = value.op
            return value
        return self.alias(op, op.kind)

    def alias(self, op: Op, kind: str) -> Value:
        """Another array with the numbers of an operation: either may be written in place without the other."""
        other = replace(op, kind=kind)
        self.aliases[other] = op
        return Value(self, other)

    def turn(self) -> None:
        """The way back begins: only what is dear is shared with the way forward."""
        self.same = {key: op for key, op in self.same.items() if op.kind == "view" or op.name in DEAR}

    def now(self, x: Any) -> Any:
        """The operation whose output an array holds at this point."""
        op = x.op if type(x) is Value else x
        while type(op) is Op and op in self.current:
            op = self.current[op]
        return self.aliases.get(op, op) if type(op) is Op else op

    def value(self, x: Any) -> Value:
        """A stand-in for what the array holds at this point."""
        return Value(self, self.now(x))

    def weak(self, number: Number, dtype: np.dtype[Any]) -> Value:
        """A number of the step as an array () of the type it meets, as NumPy treats Python numbers."""
        dtype = dtype if dtype.kind in "fc" else np.dtype(float)
        key = number.text, dtype
        if key not in self.numbers:
            self.numbers[key] = self.add("input", f"number {number}", (), (), dtype, {"number": number}).op
        return Value(self, self.numbers[key])

    def view(self, x: Value, what: tuple[Any, ...]) -> Value:
        """Another look at the same memory."""
        ghost = look(_ghost(self.now(x)), what)
        x.viewed = True
        return self.pure("view", what, (x,), ghost.shape, ghost.dtype, {})

    def ufunc(self, ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A call of a ufunc, or of its method."""
        out, where = options.pop("out", None), options.pop("where", True)
        if where is not True:
            raise refusal(f"np.{ufunc.__name__} with where=", "Use np.where.")
        like = next((x.dtype for x in inputs if isinstance(x, StandIn)), None)
        inputs = tuple(self.weak(x, like) if isinstance(x, Number) else x for x in inputs)  # type: ignore[arg-type]
        inputs = tuple(np.asarray(x) if isinstance(x, list) else x for x in inputs)
        shape, dtype = _result(ufunc, method, inputs, options)
        made = self.pure("ufunc", (ufunc, method), inputs, shape, dtype, options)
        return made if out is None else self.write(out[0], made)

    def gather(self, x: Value, keys: tuple[Any, ...]) -> Value:
        """x[indices], a copy."""
        keys = tuple(np.asarray(k) if isinstance(k, list) else k for k in keys)
        if any(isinstance(k, np.ndarray) and k.dtype.kind == "b" for k in keys):
            advice = "Its shape depends on numbers: use np.where, or multiply by the mask."
            raise refusal("x[mask]", advice)
        ghosts = tuple(np.zeros(k.shape, k.dtype) if isinstance(k, StandIn) else k for k in keys)
        ghost = _ghost(self.now(x))[ghosts]
        return self.pure("function", gathered, (x, *keys), ghost.shape, ghost.dtype, {})

    def function(self, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A call of a NumPy function that is no ufunc."""
        if any(isinstance(x, StandIn) for x in options.values()) and function not in METHODS:
            raise refusal(f"np.{function.__name__} with an array by keyword", "Pass it by its place.")
        like = next((x.dtype for x in args if type(x) is Value and x.dtype.kind in "fc"), np.dtype(float))
        args = tuple(self.weak(x, like) if isinstance(x, Number) else x for x in args)
        if function in LOOK:
            return function(*map(_ghosts, args), **options)
        if function in METHODS:
            return getattr(args[0] if type(args[0]) is Value else args[0][...], METHODS[function])(*args[1:], **options)
        if function in (np.real, np.imag):
            return getattr(args[0], function.__name__)
        if function is np.dot and all(np.ndim(a) <= 2 for a in args):
            return np.matmul(*args)
        if function in VIEWS:
            return self.view(args[0], (VIEWS[function], args[1:], options))
        if function in (np.zeros_like, np.ones_like, np.full_like, np.empty_like):
            return self.constant(function(*map(_ghosts, args), **options))
        if function not in PURE:
            name = f"np.{function.__name__}"
            raise refusal(name, "Write it with ufuncs, sums and products.")
        return self.listed(function, args, options)

    def known(self, x: Any) -> Value:
        """What a layer returns, which may be an array that depends on nothing."""
        return x if isinstance(x, StandIn) else self.constant(np.asarray(x))  # type: ignore[return-value]

    def constant(self, array: Any) -> Value:
        """An array that is the same in every step."""
        return self.pure("function", converted, (array,), array.shape, array.dtype, {})

    def listed(self, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Value:
        """A pure function; a list of arrays as its first argument is spelled out among the inputs."""
        if options.get("out") is not None or options.get("copy") is False:
            raise refusal(f"np.{function.__name__} into an array that is there", "Use what is returned.")
        many = isinstance(args[0], list | tuple)
        with np.errstate(all="ignore"):
            try:
                ghosts = tuple(map(_ghosts, args))
                ghost = np.asarray(function(*ghosts, **options))
            except np.linalg.LinAlgError:
                ghosts = tuple(_ghosts(x, _regular) for x in args)
                ghost = np.asarray(function(*ghosts, **options))
        if any(np.may_share_memory(ghost, x) for x in ghosts if isinstance(x, np.ndarray)):  # a view of it
            name = function.__name__
            if type(args[0]) is not Value or getattr(np, name, None) is not function:
                raise refusal(f"np.{name} that is a view", "Use .T, reshape, swapaxes or an index.")
            return self.view(args[0], (name, args[1:], options))
        inputs, rest = (tuple(args[0]), args[1:]) if many else (args, ())
        options = {"function": function, "rest": rest, "many": many, **options} if many else options
        return self.pure("function", of_list if many else function, inputs, ghost.shape, ghost.dtype, options)

    def write(self, target: Any, value: Any) -> Any:
        """target[...] = value: the array has another value from here on; an input that is state is written in the end."""
        if type(target) is not Value:
            raise refusal("writing into an array that is kept elsewhere", "Keep it in `buffers`.")
        if target.viewed or target.op.kind == "view":
            raise refusal("writing in place where there is a view of the array", "Write an expression.")
        place = target.op
        if not isinstance(value, StandIn) or value.shape != place.shape:
            value = np.add(value, self.constant(np.zeros(place.shape, place.dtype)))
        value = self.now(value.astype(place.dtype, copy=False))
        last = place
        while last in self.current:
            last = self.current[last]
        if place in self.shared:
            raise refusal("writing to an array that has two names", "Keep it under one.")
        self.current[last] = self.alias(value, "alias").op  # an operation of its own: others may have the same numbers
        if place.kind == "input":
            self.writes[place] = value
        return target


def _ghost(op: Op) -> Any:
    """An array of ones of this shape, which costs one number."""
    return np.broadcast_to(np.ones((), op.dtype), op.shape)


def _regular(op: Op) -> Any:
    """Identity matrices of this shape, for what refuses ones: an inverse."""
    return np.broadcast_to(np.eye(*op.shape[-2:], dtype=op.dtype), op.shape) if len(op.shape) > 1 else _ghost(op)


def _ghosts(x: Any, ghost: Callable[[Op], Any] = _ghost) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(_ghosts(each, ghost) for each in x)
    return ghost(x.trace.now(x)) if type(x) is Value else x


def _result(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    """Shape and type of what a ufunc returns; NumPy's own error where the inputs do not fit."""
    if ufunc is np.matmul and method == "__call__":
        a, b = inputs
        if np.ndim(a) == 2 and np.ndim(b) == 2 and a.shape[1] == b.shape[0]:
            return (a.shape[0], b.shape[1]), a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    elif method == "__call__" and ufunc.nout == 1 and ufunc.signature is None and "dtype" not in options:
        kinds = tuple(x.dtype if hasattr(x, "dtype") else type(x) for x in inputs)
        return np.broadcast_shapes(*map(np.shape, inputs)), ufunc.resolve_dtypes((*kinds, None))[-1]
    elif method == "reduce" and options.keys() <= {"axis", "keepdims"} and ufunc is np.add:
        (x,) = inputs
        ghost = np.add.reduce(np.broadcast_to(np.int8(0), x.shape), **options)
        return np.shape(ghost), np.add.reduce(np.ones(1, x.dtype)).dtype
    with np.errstate(all="ignore"):
        result = getattr(ufunc, method)(*map(_ghosts, inputs), **options)
    if isinstance(result, tuple):
        raise refusal(f"np.{ufunc.__name__}", "It returns several arrays.")
    return np.shape(result), result.dtype
