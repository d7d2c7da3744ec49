"""Operations: what a list of what is computed is made of. All of it is data.

    Op        one operation: an output, a NumPy function, its inputs
    look      the views of arrays that a list may have, and other functions that it names

CannotTrace is what code raises that has no such list, with the line that is to blame.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop.checks import StandIn

Key = Any


class CannotTrace(TypeError):
    """A layer, loss or rule said `traced = True`, but its calls are not the same in every pass."""


@dataclass(eq=False, slots=True)
class Op:
    """One operation: `inputs` are Ops and constants; an effect is played once, in its order, and never left out.

    kind        function                                   example
    input       its name                                   "0.omega", "X", "alpha"
    view        (attribute or function, arguments)         ("T",), ("reshape", (3, 4))
    ufunc       a ufunc and its method                     (np.add, "__call__"), (np.add, "reduce")
    function    another pure function of NumPy             np.where
    draw        the method of a generator                  "random"
    call        a pass of a layer or loss of one's own     ("forward", "2")
    """

    number: int
    kind: str
    function: Any
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    line: str = ""
    same_as: int = 0  # equal for operations that give the same numbers

    @property
    def nbytes(self) -> int:
        """Size of the output."""
        size = self.dtype.itemsize
        for n in self.shape:
            size *= n
        return size

    @property
    def ops(self) -> list[Op]:
        """The inputs that are operations."""
        return [x for x in self.inputs if type(x) is Op]

    @property
    def is_effect(self) -> bool:
        """Whether it does more than compute: it is then neither left out nor repeated."""
        return self.kind in ("draw", "call")

    @property
    def name(self) -> str:
        """What is called."""
        if self.kind == "ufunc":
            ufunc, method = self.function
            return ufunc.__name__ + ("" if method == "__call__" else f".{method}")
        if self.kind == "call":  # "1.forward", "1.gradient.omega"
            kind, *where = self.function
            return "".join(where[:1]) + ".".join([kind, *where[1:]])
        if self.kind == "view":
            return ".".join(str(part) for part in self.function)
        return str(getattr(self.function, "__name__", self.function))

    def __repr__(self) -> str:
        return f"%{self.number} {self.dtype}{list(self.shape)}"


OURS = [
    "/backprop/engine/",
    "/backprop/around/",
    "/backprop/checks",
    "/numpy/",
    "/scipy/",
    "<frozen",
    "<__array",
]


def line() -> str:
    """Where the plain code is: the first frame that is neither the engine's nor NumPy's."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename.replace("\\", "/")
        if not any(part in name for part in OURS):
            return f"{'/'.join(name.rsplit('/', 2)[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def refusal(what: str, advice: str) -> CannotTrace:
    """The error of code whose calls depend on numbers."""
    return CannotTrace(f"{line()}: {what} cannot be traced. {advice}")


def converted(x: Any, dtype: Any = None) -> Any:
    """A copy in another type."""
    return np.array(x, dtype)


def base(op: Op) -> Op:
    """The operation whose memory a view looks at."""
    while op.kind == "view":
        op = op.inputs[0]
    return op


def look(array: Any, what: tuple[Any, ...]) -> Any:
    """A view of an array."""
    kind, *rest = what
    match kind:
        case "T" | "real" | "imag":
            return getattr(array, kind)
        case "item":
            keys = rest[0]
            return array[keys if Ellipsis in keys else (*keys, ...)]  # an array (), where h[0, 0] would be a number
        case "reshape":
            return array.reshape(rest[0])
        case "transpose":
            return array.transpose(rest[0])
    return getattr(np, kind)(array, *rest[0], **rest[1])


def gathered(x: Any, *keys: Any) -> Any:
    """x[keys]."""
    return x[keys]


def of_list(*arrays: Any, function: Any, rest: Any, many: bool, **options: Any) -> Any:
    """A function of a list of arrays."""
    return function(list(arrays), *rest, **options)


def frozen(x: Any) -> Any:
    """Constants as they are at this point; what is traced stays."""
    if isinstance(x, np.ndarray) and not isinstance(x, StandIn):
        return x.copy()
    if type(x) in (list, tuple):
        return type(x)(map(frozen, x))
    return {key: frozen(value) for key, value in x.items()} if type(x) is dict else x


def constant_key(x: Any) -> Key:
    """What makes two constants the same one: value and type; for what has no value, identity."""
    if type(x) in (list, tuple):
        return type(x), tuple(map(constant_key, x))
    if type(x) is dict:
        return dict, tuple((key, constant_key(value)) for key, value in x.items())
    if isinstance(x, np.ndarray | np.generic) and not isinstance(x, StandIn) and x.nbytes <= 1 << 16:
        return x.shape, x.dtype, x.tobytes()
    if isinstance(x, slice):
        return slice, constant_key((x.start, x.stop, x.step))
    return (type(x), repr(x)) if isinstance(x, int | float | complex | str | bool | type(None)) else id(x)
