"""A computation graph, built while numbers are computed, and the chain rule walked backwards through it.

Every operation on a `Value` makes a new one that remembers its parents and, for each of them, how a gradient passes through:

    f         = operation(a, b)
    ∂L/∂a    += (∂f/∂a)ᵀ ∂L/∂f        and likewise b; a value that is used twice gets two terms

The rule for each operation stands right below its value. Rules are analytic (no conjugates, sides are chosen by the real part),
so that complex data work, too, and the complex step can judge them. Layers do not use this in training: it is slow and
general where they are fast and special, which makes it the judge that knows nothing of their formulas.
Source: Griewank and Walther (2008), "Evaluating derivatives", chapter 3.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backprop import checks
from backprop.checks import Array

__all__ = ["Value"]

MOST_NODES, MOST_NUMBERS = 200, 4  # in a picture, beyond which nobody can read it; in a box

Operand = Any  # Value | npt.ArrayLike; spelled out, it makes type checkers refuse sums of Values and lists
Derivative = Callable[[Array], Array]


class Value:
    """A scalar or an array that knows how it was computed, for reverse-mode automatic differentiation.

    `data` is a copy of what was handed in: floating and complex types are kept, whole numbers become float64. `grad` has the
    shape of `data` and is 0 until `backward` adds to it; `parents` and `operation` say where a value comes from, `label` is
    its name in pictures and errors. Numbers and arrays on either side of an operation become Values; shapes broadcast.

        + − * / ** @          maximum(other)        exp() log() sin() cos() tanh() relu() sigmoid()
        sum(axis, keepdims)   mean(axis, keepdims)  reshape(*shape)  transpose(*axes)  T  value[index]

    Infinite and undefined numbers pass through as they do in NumPy, with its warnings. `data` must not be written into
    between an operation and `backward`. Raises TypeError for text, objects and masked arrays, ValueError for shapes that do
    not fit.

    >>> w, x, b = Value(4, "w"), Value(-3, "x"), Value(14, "b")
    >>> h = (w * x + b).relu()
    >>> h.backward()
    >>> h, w, x
    (Value(2, grad=1), Value(4, grad=-3, label='w'), Value(-3, grad=4, label='x'))
    """

    __slots__ = ("_derivatives", "data", "grad", "label", "operation", "parents")

    def __init__(self, data: npt.ArrayLike, label: str = "") -> None:
        checks.instance("Value", "label", label, str)
        self.data = np.array(checks.floating("Value", "data", data))
        self.grad = np.zeros_like(self.data)
        self.label, self.operation = label, ""
        self.parents: tuple[Value, ...] = ()
        self._derivatives: tuple[Derivative, ...] = ()  # ∂L/∂parent of ∂L/∂self, one for each parent

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `data`."""
        return self.data.shape

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Value:
        """Array * value, np.exp(value): what NumPy's ufuncs do with a Value is what its own methods do."""
        name = METHODS.get(ufunc) if method == "__call__" and not options else None
        return self._called(ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}", name, inputs, {})

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Value:
        """np.sum(value, axis=0) and the like."""
        return self._called(function.__name__, METHODS.get(function), inputs, options)

    def _called(self, function: str, name: str | None, inputs: Any, options: Any) -> Value:
        if name is None:
            expected = "an operation of Value: + − * / ** @, or one of its methods"
            raise TypeError(checks.message(_name(self), expected, f"np.{function}", "help(bp.Value) lists them."))
        first = _lift(self, SIGNS.get(name, name), inputs[0])
        made: Value = getattr(first, name)(*inputs[1:], **options)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Value:
        for node in self.graph():  # not one inside the other: a graph may be deeper than Python's stack
            if id(node) not in memo:
                made = memo[id(node)] = Value.__new__(Value)
                made.data, made.grad = node.data.copy(), node.grad.copy()
                made.label, made.operation, made._derivatives = node.label, node.operation, node._derivatives
                made.parents = tuple([memo[id(parent)] for parent in node.parents])
        twin: Value = memo[id(self)]
        return twin

    def __add__(self, other: Operand) -> Value:
        other, a, b = _operands(self, "+", other)
        f = a + b
        return _node("+", f, (self, lambda dL_df: dL_df), (other, lambda dL_df: dL_df))

    def __sub__(self, other: Operand) -> Value:
        other, a, b = _operands(self, "−", other)
        f = a - b
        return _node("−", f, (self, lambda dL_df: dL_df), (other, lambda dL_df: -dL_df))

    def __mul__(self, other: Operand) -> Value:
        other, a, b = _operands(self, "×", other)
        f = a * b
        return _node("×", f, (self, lambda dL_df: dL_df * b), (other, lambda dL_df: dL_df * a))

    def __truediv__(self, other: Operand) -> Value:
        other, a, b = _operands(self, "÷", other)
        f = a / b
        return _node("÷", f, (self, lambda dL_df: dL_df / b), (other, lambda dL_df: -dL_df * f / b))

    def __pow__(self, other: Operand) -> Value:
        exponent, a, b = _operands(self, "**", other)
        f = a**b
        # b aᵇ⁻¹ is 0 for b = 0, also at a = 0; and 0ᵇ stays 0 when b changes.
        base = (self, lambda dL_df: dL_df * b * a ** np.where(b == 0, 1, b - 1))
        if exponent is not other:  # a constant: no derivative, which would ask for the logarithm of a negative base
            return _node(f"**{_short(b)}" if b.ndim == 0 else "**", f, base)
        return _node("**", f, base, (exponent, lambda dL_df: dL_df * f * np.log(np.where(a == 0, 1, a))))

    def __matmul__(self, other: Operand) -> Value:
        other, a, b = _operands(self, "@", other)
        f = a @ b
        A, B = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b  # a vector stands for a row, then for a column
        product = (len(A), B.shape[1])
        left = (self, lambda dL_df: (dL_df.reshape(product) @ B.T).reshape(a.shape))
        right = (other, lambda dL_df: (A.T @ dL_df.reshape(product)).reshape(b.shape))
        return _node("@", f, left, right)

    def __radd__(self, other: Operand) -> Value:
        return _lift(self, "+", other) + self

    def __rsub__(self, other: Operand) -> Value:
        return _lift(self, "−", other) - self

    def __rmul__(self, other: Operand) -> Value:
        return _lift(self, "×", other) * self

    def __rtruediv__(self, other: Operand) -> Value:
        return _lift(self, "÷", other) / self

    def __rpow__(self, other: Operand) -> Value:
        return _lift(self, "**", other) ** self

    def __rmatmul__(self, other: Operand) -> Value:
        return _lift(self, "@", other) @ self

    def __neg__(self) -> Value:
        f = -self.data
        return _node("−", f, (self, lambda dL_df: -dL_df))

    def maximum(self, other: Operand) -> Value:
        """The larger of two, entry by entry, by the real part. Where both are equal, the gradient goes to `self`.

        >>> Value([1, 5]).maximum(2).data
        array([2., 5.])
        """
        other, a, b = _operands(self, "maximum", other)
        first = (a.real >= b.real) | np.isnan(a)
        f = np.where(first, a, b)
        mine, theirs = (self, lambda dL_df: np.where(first, dL_df, 0)), (other, lambda dL_df: np.where(first, 0, dL_df))
        return _node("maximum", f, mine, theirs)

    def exp(self) -> Value:
        """Exponential: f = eᵃ, ∂f/∂a = f."""
        f = np.exp(self.data)
        return _node("exp", f, (self, lambda dL_df: dL_df * f))

    def log(self) -> Value:
        """Natural logarithm: f = log a, ∂f/∂a = 1/a."""
        a = self.data
        f = np.log(a)
        return _node("log", f, (self, lambda dL_df: dL_df / a))

    def sin(self) -> Value:
        """Sine: f = sin a, ∂f/∂a = cos a."""
        a = self.data
        f = np.sin(a)
        return _node("sin", f, (self, lambda dL_df: dL_df * np.cos(a)))

    def cos(self) -> Value:
        """Cosine: f = cos a, ∂f/∂a = −sin a."""
        a = self.data
        f = np.cos(a)
        return _node("cos", f, (self, lambda dL_df: -dL_df * np.sin(a)))

    def tanh(self) -> Value:
        """Hyperbolic tangent: f = tanh a, ∂f/∂a = 1/cosh² a, which is 1 − f² and keeps its digits where f is almost ±1."""
        a = self.data
        f = np.tanh(a)

        def through(dL_df: Array) -> Array:
            below = _below(a)
            e = np.exp(below + below)  # e^−2|a|, so that 1/cosh² = 4e / (1 + e)²
            return dL_df * (4 * e / (1 + e) ** 2)

        return _node("tanh", f, (self, through))

    def relu(self) -> Value:
        """Rectified linear unit: f = max(a, 0), ∂f/∂a = 𝕀[a > 0]; the slope at 0 is 0, as in the layer `ReLU`."""
        a = self.data
        f = np.where(a.real <= 0, 0, a)
        return _node("relu", f, (self, lambda dL_df: np.where(a.real > 0, dL_df, 0)))

    def sigmoid(self) -> Value:
        """Logistic function: f = σ(a) = 1 / (1 + e⁻ᵃ), ∂f/∂a = σ(a) σ(−a). No exponential overflows."""
        a = self.data
        e = np.exp(_below(a))
        f = np.where(a.real < 0, e, 1) / (1 + e)
        return _node("sigmoid", f, (self, lambda dL_df: dL_df * (e / (1 + e) ** 2)))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """Sum of all entries, or along `axis`: each entry gets the gradient of the sum it went into.

        >>> Value([[1, 2], [3, 4]]).sum(axis=0).data
        array([4., 6.])
        """
        a = self.data
        f, kept = _sum(self, "sum", axis, keepdims)
        return _node("sum", f, (self, lambda dL_df: np.broadcast_to(dL_df.reshape(kept), a.shape)))

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """Mean of all entries, or along `axis`: of n entries each gets 1/n of the gradient."""
        a = self.data
        f, kept = _sum(self, "mean", axis, keepdims)
        n = a.size // max(f.size, 1)
        return _node("mean", f / n, (self, lambda dL_df: np.broadcast_to(dL_df.reshape(kept) / n, a.shape)))

    def reshape(self, *shape: int | tuple[int, ...]) -> Value:
        """The same entries in another shape, `reshape(2, 3)` or `reshape((2, 3))`; −1 is worked out."""
        a = self.data
        try:
            f = a.reshape(*shape)  # type: ignore[arg-type]
        except ValueError:
            who, to = f"{_name(self)}.reshape", shape[0] if len(shape) == 1 else shape
            raise ValueError(checks.message(who, f"a shape of {a.size} entries, as {a.shape} has", f"{to}")) from None
        return _node("reshape", f, (self, lambda dL_df: dL_df.reshape(a.shape)))

    def transpose(self, *axes: int) -> Value:
        """The same entries with the axes in another order; without `axes`, in reverse."""
        order = axes or tuple(reversed(range(self.data.ndim)))
        if sorted(order) != list(range(self.data.ndim)):
            expected = f"each axis 0 … {self.data.ndim - 1} of shape {self.shape} once"
            raise ValueError(checks.message(f"{_name(self)}.transpose", expected, f"{axes}"))
        f = np.transpose(self.data, order)
        return _node("transpose", f, (self, lambda dL_df: np.transpose(dL_df, np.argsort(order))))

    @property
    def T(self) -> Value:
        """The transpose."""
        return self.transpose()

    def __getitem__(self, index: Any) -> Value:
        a, index = self.data, copy.deepcopy(index)  # the caller may change an index array before `backward`
        try:
            f = a[index]
        except IndexError as error:
            who, text = f"{_name(self)}[…]", str(error)
            raise IndexError(checks.message(who, f"an index of shape {a.shape}", f"{index!r}", f"{text}.")) from None

        def scatter(dL_df: Array) -> Array:
            dL_da = np.zeros(a.shape, dL_df.dtype)
            np.add.at(dL_da, index, dL_df)  # unlike dL_da[index] += dL_df, this counts an index as often as it occurs
            return dL_da

        return _node("[ ]", f, (self, scatter))

    def __iter__(self) -> Iterator[Value]:
        if not self.shape:  # or Python would try indices until one fails, and take a scalar for an empty sequence
            raise TypeError(checks.message(_name(self), "an array to iterate over", "a scalar"))
        return (self[i] for i in range(len(self.data)))

    def graph(self) -> list[Value]:
        """Every value that this one was computed from, parents before children, itself last.

        >>> a = Value(1, "a")
        >>> [node.label or node.operation for node in (a + a).exp().graph()]
        ['a', '+', 'exp']
        """
        order: list[Value] = []
        seen: set[Value] = set()
        stack = [(self, False)]  # of our own: a graph may be deeper than Python's
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((parent, False) for parent in reversed(node.parents))
        return order

    def backward(self) -> None:
        """Add ∂self/∂value to the `grad` of every value in the graph, those on the way included.

        Gradients ADD to what is there, so a second call doubles them, and the gradients of several roots sum up; `zero_grad`
        starts afresh. Raises ValueError unless this value is a scalar (or an array of one entry).

        >>> a = Value(3.0)
        >>> (a * a).backward()
        >>> a.grad
        array(6.)
        """
        if self.data.size != 1:
            advice = "A gradient is that of one number: use .sum().backward()."
            raise ValueError(checks.message(f"{_name(self)}.backward", "a scalar", f"shape {self.shape}", advice))
        dL_d = {self: np.ones_like(self.data)}  # of this call alone: only these flow on, whatever grad holds already
        for node in reversed(self.graph()):
            dL_df = dL_d.pop(node)
            node.grad = np.asarray(node.grad + dL_df)
            for parent, derivative in zip(node.parents, node._derivatives, strict=True):
                term = _fit(np.asarray(derivative(dL_df)), parent.data)
                dL_d[parent] = np.asarray(dL_d[parent] + term) if parent in dL_d else term

    def zero_grad(self) -> None:
        """Set `grad` to 0 in every value of the graph.

        >>> a = Value(3.0)
        >>> L = a * a
        >>> L.backward(); L.zero_grad(); L.backward()
        >>> a.grad
        array(6.)
        """
        for node in self.graph():
            node.grad = np.zeros_like(node.data)

    def draw(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Picture of the graph, from the leaves on the left to this value on the right: matplotlib axes.

        A box is a value with its label, data and gradient; a circle is an operation, its operands from top to bottom. With
        `path`, written there as SVG or PNG, whichever the suffix says. Raises ValueError for other suffixes and for graphs of
        more than 200 values, ImportError without matplotlib.

        >>> a = Value(3.0, "a")
        >>> len((a * a).draw().texts)
        6
        """
        from backprop import drawing, pictures

        who = f"{_name(self)}.draw"
        kind = "" if path is None else pictures.suffix(who, path, (".svg", ".png"))
        graph = self.graph()
        if len(graph) > MOST_NODES:
            advice = "Draw a smaller case: arrays in place of many scalars, fewer layers, or a value on the way."
            raise ValueError(checks.message(who, f"a graph of at most {MOST_NODES} values", f"{len(graph)}", advice))
        place = {node: i for i, node in enumerate(graph)}
        nodes = []
        for v in graph:
            parents = tuple(place[parent] for parent in v.parents)
            nodes.append(drawing.Node(_title(v), _short(v.data), _short(v.grad), v.operation, parents))
        picture = drawing.draw(nodes)
        if path is not None:
            Path(path).write_bytes(drawing.rendered(picture, kind))
        return picture

    def _repr_svg_(self) -> str | None:
        """The picture in a notebook; without one (too large, no matplotlib), it shows `repr`."""
        from backprop import drawing

        with contextlib.suppress(ValueError, ImportError):
            return drawing.rendered(self.draw(), ".svg").decode()
        return None

    def __repr__(self) -> str:
        label = f", label={self.label!r}" if self.label else ""
        return f"Value({_short(self.data)}, grad={_short(self.grad)}{label})"


# NumPy's functions by the method that does the same, and the signs of operators in errors.
NAMES = ("exp", "log", "sin", "cos", "tanh", "maximum", "sum", "mean", "reshape", "transpose")
METHODS: dict[Any, str] = {getattr(np, name): name for name in NAMES}
METHODS |= {np.add: "__add__", np.subtract: "__sub__", np.multiply: "__mul__", np.true_divide: "__truediv__"}
METHODS |= {np.power: "__pow__", np.matmul: "__matmul__", np.dot: "__matmul__", np.negative: "__neg__"}
SIGNS = {"__add__": "+", "__sub__": "−", "__mul__": "×", "__truediv__": "÷", "__pow__": "**", "__matmul__": "@"}


def _node(operation: str, f: Array, *links: tuple[Value, Derivative]) -> Value:
    """The value of an operation; each link is a parent with the derivative that leads to it."""
    node = Value.__new__(Value)
    node.data = np.asarray(f)  # of 0-dimensional arrays NumPy makes scalars
    node.grad = np.zeros_like(node.data)
    node.label, node.operation = "", operation
    node.parents = tuple([parent for parent, _ in links])
    node._derivatives = tuple([derivative for _, derivative in links])
    return node


def _below(a: Array) -> Array:
    """−|a|, the side chosen by the real part."""
    return np.where(a.real < 0, a, -a)


def _lift(value: Value, operation: str, other: Operand) -> Value:
    """The other operand as a Value. A plain number takes on the type of `value`, as it does in NumPy."""
    if isinstance(other, Value):
        return other
    if type(other) in (int, float, complex):
        return Value(np.asarray(other, np.result_type(value.data, other)))
    return Value(checks.floating(f"{_name(value)} {operation} other", "other", other))


def _operands(value: Value, operation: str, other: Operand) -> tuple[Value, Array, Array]:
    """The other operand as a Value, and the data of both, of shapes that fit.

    The derivatives keep these arrays, not the Values: so `value.data` may be set anew before `backward`.
    """
    other = _lift(value, operation, other)
    a, b = value.data, other.data
    if operation == "@":
        fits = 0 < a.ndim < 3 and 0 < b.ndim < 3 and a.shape[-1] == b.shape[0]
        expected = "vectors and matrices with as many columns on the left as rows on the right"
    else:
        from_the_last = zip(reversed(a.shape), reversed(b.shape), strict=False)
        fits = a.shape == b.shape or all(m == n or 1 in (m, n) for m, n in from_the_last)
        expected = "shapes that broadcast together"
    if not fits:
        got = " and ".join(f"{v.shape}" + (f" of {v.label!r}" if v.label else "") for v in (value, other))
        raise ValueError(checks.message(f"{_name(value)} {operation} {_name(other)}", expected, got))
    return other, a, b


def _fit(dL_da: Array, a: Array) -> Array:
    """A gradient in the shape and precision of a: where a was broadcast, the sum over its copies."""
    if dL_da.shape != a.shape:
        dL_da = dL_da.sum(axis=tuple(range(dL_da.ndim - a.ndim)))
        dL_da = dL_da.sum(axis=tuple(i for i, n in enumerate(a.shape) if n != dL_da.shape[i]), keepdims=True)
    return dL_da.astype(a.dtype, copy=False) if dL_da.dtype.kind == a.dtype.kind else dL_da


def _sum(value: Value, operation: str, axis: Any, keepdims: bool) -> tuple[Array, tuple[int, ...]]:
    """The sum along `axis`, and its shape with that axis kept as 1."""
    try:
        kept = np.sum(value.data, axis=axis, keepdims=True)
    except (TypeError, ValueError):
        expected = f"axis None or one of the {value.data.ndim} of shape {value.shape}, each once"
        raise ValueError(checks.message(f"{_name(value)}.{operation}", expected, repr(axis))) from None
    return (kept if keepdims else np.squeeze(kept, axis)), kept.shape


def _name(value: Value) -> str:
    return f"Value {value.label!r}" if value.label else "Value"


def _title(value: Value) -> str:
    """Label and, for an array, shape."""
    label = " ".join(value.label.split())
    label = label if len(label) <= 24 else label[:23] + "…"
    return f"{label} {value.shape}".strip() if value.shape else label


def _short(array: Array) -> str:
    """A number with four digits; of an array the first few, with three, of a small matrix row by row."""
    if array.ndim == 0:
        return format(array[()], ".4g")
    if array.ndim == 2 and 0 < array.size <= MOST_NUMBERS:
        parts = [_short(row) for row in array]
    else:
        parts = [format(number, ".3g") for number in array.flat[:MOST_NUMBERS]] + ["…"] * (array.size > MOST_NUMBERS)
    return f"[{', '.join(parts)}]"
