"""Calls on arrays as operations of the native player: functions by address, memory by address, and strides.

A ufunc becomes NumPy's own inner loop over at most three dimensions, neighbors that lie one after another made one; its numbers
are converted beforehand, as NumPy does it. So the bits are NumPy's. What has no such form stays a call of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.engine.blas import address
from backprop.engine.calls import Call, Copy, Draw, Multiply, Numbers, Pick, Scale, Ufunc
from backprop.engine.native.loops import (
    AXPY,
    DRAW,
    GEMM,
    GEMV,
    LOOP,
    MATMUL,
    NUMBER,
    OPERATION,
    PICK,
    PYTHON,
    TILES,
    Unknown,
    inner_loop,
    own_loops,
)
from backprop.engine.trace import Number

TILE = 2048  # entries of a long vector that neighboring loops take at a time

# Where a reduction of NumPy begins; all others begin with the first entry.
REDUCED: dict[Any, Any] = {np.add: 0, np.multiply: 1, np.logical_or: False, np.logical_and: True}


class Operations:
    """A list of operations as it grows, and what their addresses point at. `values` are the numbers of a step, for all lists."""

    def __init__(
        self,
        values: list[float | Number],
        set_: Callable[[Numbers, int], None] | None = None,
        keys: Callable[[Draw], int] | None = None,
    ) -> None:
        self.values, self._set, self._keys = values, set_, keys
        self.rows: list[dict[str, Any]] = []
        self.alive: list[Any] = []
        self.python: list[Any] = []  # what Python is called for

    def add(self, call: Call) -> None:
        """Append a call of the NumPy player."""
        there = len(self.rows), len(self.python)
        try:
            match call:
                case Ufunc():
                    self._ufunc(call)
                case Copy():
                    self._copy(call)
                case Multiply():
                    self._multiply(call)
                case Scale():
                    self._scale(call)
                case Pick():
                    self._pick(call)
                case Draw() if self._keys:
                    self.op(DRAW, call.out, n=[call.out.size, self._keys(call), 0])
                case _:
                    raise Unknown
        except Unknown:
            del self.rows[there[0] :], self.python[there[1] :]
            play = call.bind()
            if isinstance(call, Scale | Multiply) and self._set:  # whose numbers are those of the step
                numbers, set_ = call.numbers, self._set
                self.call(lambda step: (set_(numbers, step), play()))
            else:
                self.call(lambda step: play())

    def extend(self, calls: Iterable[Call]) -> None:
        """Append several calls."""
        for call in calls:
            self.add(call)

    def op(self, kind: int, *arrays: Array, **fields: Any) -> dict[str, Any]:
        """Append an operation on these arrays."""
        self.alive += arrays
        double = bool(arrays) and arrays[-1].dtype.char == "d"
        at = [a.ctypes.data for a in arrays]
        row = {"kind": kind, "at": at, "is_double": double, "operands": len(arrays)} | fields
        self.rows.append(row)
        return row

    def call(self, function: Any) -> None:
        """Append a call of Python, with the number of the step."""
        self.op(PYTHON, n=[len(self.python), 0, 0])
        self.python.append(function)

    def place(self, number: float | Number) -> int:
        """The place of a number among those of a step."""
        keys = [value.text if isinstance(value, Number) else value for value in self.values]
        key = number.text if isinstance(number, Number) else float(number)
        if key not in keys:
            self.values.append(number)
            return len(keys)
        return keys.index(key)

    def store(self, numbers: Numbers) -> None:
        """Append the writing of the numbers that are arrays ()."""
        for i, array in numbers.arrays:
            if array.dtype.char not in "fd":
                raise Unknown
            self.op(NUMBER, array, scale=self.place(numbers.numbers[i]))

    def packed(self) -> Array:
        """The operations as the player reads them."""
        rows = tiled(self.rows)
        for i, row in enumerate(rows):
            if "until" in row:
                row["n"][1] = next(j for j, other in enumerate(rows) if other is row["until"]) - i
        made = np.zeros(len(rows), OPERATION)
        for name in OPERATION.names or ():
            column = made[name]
            for i, row in enumerate(rows):
                value = row.get(name)
                if name == "strides" and value:
                    column[i, : len(value), : len(value[0])] = value
                elif isinstance(value, list):
                    column[i, : len(value)] = value
                elif value is not None:
                    column[i] = value
        return made

    def _ufunc(self, call: Ufunc) -> None:
        ufunc, out = call.ufunc, call.out
        if call.method == "reduce":
            self._reduce(call)
            return
        if ufunc is np.matmul:
            A, B = call.args
            self._matmul(A, B, out)
            return
        if call.method != "__call__" or call.options or ufunc.nout != 1 or ufunc.signature is not None:
            raise Unknown
        kinds = tuple(x.dtype if hasattr(x, "dtype") else type(x) for x in call.args)
        *ins, result = ufunc.resolve_dtypes((*kinds, None))
        x = call.args[0]
        if call.number is not None and _is_dense(x, out, result) and _takes_the_second(ufunc):
            self.loop(
                (own_loops()[f"{ufunc.__name__} {result.char}"], 0), [x, np.array(call.number, result), out], x.shape
            )
            return
        args = [self._as(x, dtype, out) for x, dtype in zip(call.args, ins, strict=True)]
        target = out if out.dtype == result else np.empty_like(out, result)
        self.loop(inner_loop(ufunc, (*ins, result)), [*args, target], out.shape)
        if target is not out:
            self.convert(target, out)

    def _matmul(self, A: Any, B: Any, C: Array) -> None:
        """NumPy's own product of two matrices."""
        alike = all(
            isinstance(x, np.ndarray) and x.ndim == 2 and x.dtype == C.dtype and x.flags.aligned for x in (A, B, C)
        )
        if not alike or np.may_share_memory(A, C) or np.may_share_memory(B, C):
            raise Unknown
        function, data = inner_loop(np.matmul, (C.dtype,) * 3)
        strides = [[*A.strides], [*B.strides], [*C.strides]]
        self.op(MATMUL, A, B, C, n=[*A.shape, B.shape[1]], strides=strides, function=function, data=data)

    def _as(self, x: Any, dtype: np.dtype[Any], out: Array) -> Array:
        """An input in the type of the loop: converted once if it is a number, in every step if it is an array.

        It is copied, too, where the output lies in its memory in another order, as NumPy does.
        """
        if not isinstance(x, np.ndarray):
            return np.array(x, dtype)
        same = x.ctypes.data == out.ctypes.data and x.strides == out.strides and x.shape == out.shape
        if x.dtype == dtype and (same or not np.may_share_memory(x, out)):
            return x
        made = np.empty_like(x, dtype)
        self.convert(x, made)
        return made

    def convert(self, x: Array, out: Array) -> None:
        """Append out ← x, which may be of another type."""
        kind = "".join("l" if c == "q" and np.dtype("q").itemsize == 8 else c for c in (x.dtype.char, out.dtype.char))
        name = str(x.itemsize) if x.dtype == out.dtype else kind
        if name not in own_loops() or not (x.dtype.isnative and out.dtype.isnative):
            raise Unknown
        self.loop((own_loops()[name], 0), [x, out], out.shape)

    def _copy(self, call: Copy) -> None:
        x = call.x if isinstance(call.x, np.ndarray) else np.array(call.x, call.out.dtype)
        if x.nbytes and np.may_share_memory(x, call.out):
            raise Unknown
        if call.where is None:
            self.convert(x, call.out)
            return
        name = f"masked {call.out.itemsize}"
        if x.dtype != call.out.dtype or name not in own_loops():
            raise Unknown
        self.loop((own_loops()[name], 0), [x, call.where, call.out], call.out.shape)

    def _reduce(self, call: Ufunc) -> None:
        """NumPy begins with 0 or with the first entry, and adds along memory in pairs: its loop does, if it gets all of a row."""
        (x,), out, axis = call.args, call.out, call.options.get("axis", 0)
        if x.ndim == 3:
            self._reduce_three(call.ufunc, x, out, axis)
            return
        loop = inner_loop(call.ufunc, (x.dtype, x.dtype, x.dtype))
        if set(call.options) - {"axis", "keepdims"} or out.dtype != x.dtype or x.ndim > 2 or not x.size:
            raise Unknown
        every = axis is None or x.ndim == 1
        if every and x.flags.c_contiguous:
            x, out = x.reshape(1, -1), out.reshape(1)
        elif every and x.flags.f_contiguous:
            x, out = x.T.reshape(1, -1), out.reshape(1)
        elif not every and axis in (0, -2):
            x, out = x.T, out.reshape(-1)
        elif not every and axis in (1, -1):
            out = out.reshape(-1)
        else:
            raise Unknown
        if not np.may_share_memory(out, call.out):
            raise Unknown
        self._reduce_rows(loop, x, out, REDUCED.get(call.ufunc))

    def _reduce_three(self, ufunc: np.ufunc, x: Array, out: Array, axis: int) -> None:
        """Out ← x (A, B, C) along the first axis, or along the second one of each of A matrices."""
        if not (x.flags.c_contiguous and out.flags.c_contiguous) or axis not in (0, 1):
            raise Unknown
        matrices = [x.reshape(len(x), -1)] if axis == 0 else x
        for matrix, row in zip(matrices, out.reshape(len(matrices), -1), strict=True):
            self._reduce(Ufunc(ufunc, "reduce", [matrix], row, {"axis": 0}))

    def _reduce_rows(self, loop: tuple[int, int], x: Array, out: Array, start: Any) -> None:
        """Out (K,) ← each row of x (K, N)."""
        if start is None:
            self.convert(x[:, 0], out)
            x = x[:, 1:]
        else:
            self.convert(np.array(start, out.dtype), out)
        if not x.size:
            return
        along = abs(x.strides[1]) <= abs(x.strides[0]) or len(x) == 1
        wide = np.broadcast_to(out[:, None], x.shape)
        self.loop(loop, [wide, x, wide], x.shape, order=(0, 1) if along else (1, 0))

    def loop(
        self,
        function: tuple[int, int],
        arrays: list[Array],
        shape: tuple[int, ...],
        order: tuple[int, ...] | None = None,
    ) -> None:
        """Append a loop over this shape, the inner one along the memory of the output."""
        strides = [np.broadcast_to(a, shape).strides for a in arrays]
        if order is None:
            order = tuple(sorted(range(len(shape)), key=lambda i: -abs(strides[-1][i])))
        dims = [(shape[i], [s[i] for s in strides]) for i in order if shape[i] != 1]
        dims = joined(dims) or [(1, [0] * len(arrays))]
        if len(dims) > 3 or any(not a.flags.aligned for a in arrays):
            raise Unknown
        dims = [(1, [0] * len(arrays))] * (3 - len(dims)) + dims
        where = {"function": function[0], "data": function[1]}
        self.op(LOOP, *arrays, n=[n for n, _ in dims], strides=[s for _, s in dims], **where)

    def _multiply(self, call: Multiply) -> None:
        if not call.product.pieces:
            raise Unknown
        numbers = {"scale": self.place(call.scale), "keep": self.place(call.keep)}
        for A, B, C in call.product.pieces:
            self._gemm(A, B, C, numbers) if C.ndim == 2 else self._gemv(A, B, C, numbers)

    def _gemm(self, A: Array, B: Array, C: Array, numbers: dict[str, int]) -> None:
        kind = C.dtype.char
        (a, lda), (b, ldb) = order(A), order(B)
        ldc = C.strides[1] // C.itemsize if C.shape[1] > 1 else max(C.shape[0], 1)
        size, lead = [*C.shape, A.shape[1]], [lda, ldb, ldc]
        self.op(GEMM, A, B, C, function=address(kind + "gemm"), size=size, lead=lead, trans=a + b, **numbers)

    def _gemv(self, A: Array, x: Array, y: Array, numbers: dict[str, int]) -> None:
        trans, a = (b"N", A) if A.flags.f_contiguous else (b"T", A.T)
        size, lead = [*a.shape, 0], [a.shape[0], 0, 0]
        self.op(GEMV, a, x, y, function=address(y.dtype.char + "gemv"), size=size, lead=lead, trans=trans, **numbers)

    def _pick(self, call: Pick) -> None:
        x, out, rows, columns = call.x, call.out, *(np.broadcast_to(k, call.out.shape) for k in call.keys)
        longs = rows.dtype.char in "lq" and columns.dtype.char in "lq" and rows.itemsize == columns.itemsize == 8
        if x.dtype != out.dtype or x.itemsize not in (4, 8) or out.ndim != 1 or not longs:
            raise Unknown
        strides = [[*x.strides, 0], [*x.shape, 0], [rows.strides[0], columns.strides[0], out.strides[0]]]
        self.op(PICK, x, rows, columns, out, n=[len(out), x.itemsize, 0], strides=strides)

    def _scale(self, call: Scale) -> None:
        target, x = call.target, call.x
        flat = x.flags.c_contiguous and target.flags.c_contiguous and x.shape == target.shape
        if not flat or x.dtype != target.dtype or x.dtype.char not in "fd":
            raise Unknown
        if isinstance(call.keep, Number):
            factor = np.zeros((), target.dtype)
            self.op(NUMBER, factor, scale=self.place(call.keep))
            self._ufunc(Ufunc(np.multiply, "__call__", [target, factor], target))
        elif call.keep != 1:
            self._ufunc(Ufunc(np.multiply, "__call__", [target, call.keep], target))
        scale, axpy = self.place(call.scale), address(x.dtype.char + "axpy")
        self.op(AXPY, x, target, function=axpy, size=[x.size, 0, 0], scale=scale, keep=scale)


def order(A: Array) -> tuple[bytes, int]:
    """BLAS's name for A's order, and its leading dimension."""
    if A.flags.f_contiguous:
        return b"N", max(A.shape[0], 1)
    if A.flags.c_contiguous:
        return b"T", max(A.shape[1], 1)
    rows, columns = (stride // A.itemsize for stride in A.strides)
    return (b"N", columns) if rows == 1 and columns >= A.shape[0] else (b"T", rows)


def joined(dims: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
    """Dimensions, from the outermost to the innermost, with neighbors made one where memory goes on."""
    made: list[tuple[int, list[int]]] = []
    for n, strides in dims:
        if made and made[-1][1] == [n * s for s in strides]:
            made[-1] = made[-1][0] * n, strides
        else:
            made.append((n, strides))
    return made


def tiled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The operations, with neighboring loops over equally long vectors under a heading that plays them tile by tile."""
    made: list[dict[str, Any]] = []
    run: list[dict[str, Any]] = []
    for row in [*rows, {}]:
        if run and not (_is_long(row) and row["n"] == run[0]["n"] and _apart(run, row)):
            made += [{"kind": TILES, "n": [len(run), TILE, run[0]["n"][2]]}] if len(run) > 1 else []
            made += run
            run = []
        if _is_long(row):
            run.append(row)
        elif row:
            made.append(row)
    return made


def _is_long(row: dict[str, Any]) -> bool:
    """Whether a loop goes along one long vector, entry by entry."""
    if not row or row["kind"] != LOOP or row["n"][:2] != [1, 1] or row["n"][2] <= TILE:
        return False
    return row["strides"][2][row["operands"] - 1] > 0


def _apart(run: list[dict[str, Any]], row: dict[str, Any]) -> bool:
    """Whether what either writes and the other has is memory apart, or the very same entries at the same places."""
    mine = _spans(row)
    for other in run:
        theirs = _spans(other)
        pairs = [(theirs[-1], b) for b in mine] + [(a, mine[-1]) for a in theirs]
        if not all(a == b or a[1] <= b[0] or b[1] <= a[0] for a, b in pairs):
            return False
    return True


def _spans(row: dict[str, Any]) -> list[tuple[int, int, int]]:
    """First byte, end and stride of each operand."""
    strides = row["strides"][2][: row["operands"]]
    return [(at, at + (row["n"][2] * s if s > 0 else 8), s) for at, s in zip(row["at"], strides, strict=True)]


def _is_dense(x: Any, out: Array, dtype: np.dtype[Any]) -> bool:
    """Whether both are float arrays of this type, without gaps, in the same order."""
    alike = (
        isinstance(x, np.ndarray) and x.dtype == out.dtype == dtype and dtype.char in "fd" and x.strides == out.strides
    )
    return alike and (x.flags.c_contiguous or x.flags.f_contiguous)


@cache
def _takes_the_second(ufunc: np.ufunc) -> bool:
    """Whether of two zeros NumPy takes the second one, as the player's loop does, which for one number is the quicker one."""
    zeros = np.array([0.0, -0.0] * 20)
    signs = [np.signbit(ufunc(zeros.astype(t), -zeros.astype(t))) for t in "fd"]
    return all(np.array_equal(found, np.signbit(-zeros)) for found in signs)
