"""Calls spread over threads, which meet where one needs what another has written.

Products come in parts (engine/parts.py); neighboring threads play neighboring parts. What is computed entry by entry is cut at
the rows at which the last product of that height was, so that a thread goes on with what it has written itself. All else is the
first thread's. A call that would have to wait does so until a meeting is needed anyway: landings mostly cost none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from backprop.checks import Array
from backprop.engine.calls import Call, Copy, Draw, Multiply, Pick, Scale, Ufunc
from backprop.engine.native.lower import Operations

LEAST = 1 << 14  # entries of an array from which on it is cut, where no product says how

Span = tuple[int, int]  # the first byte, and the end


@dataclass(eq=False, slots=True)
class Share:
    """What a thread plays of a call, with the memory that it writes and reads."""

    thread: int
    call: Call
    written: list[Span]
    read: list[Span]

    def meets(self, other: Share) -> bool:
        """Whether one writes what the other reads or writes."""
        return (
            _overlap(self.written, other.written)
            or _overlap(self.written, other.read)
            or _overlap(self.read, other.written)
        )


class Spread:
    """Calls for these lists of operations, one for each thread; `meet` appends a meeting to all of them."""

    def __init__(self, lists: list[Operations], meet: Callable[[], None]) -> None:
        self.lists, self._meet = lists, meet
        self._written: list[list[Span]] = [[] for _ in lists]  # by each thread since they met
        self._read: list[list[Span]] = [[] for _ in lists]
        self._waiting: list[list[Share]] = []
        self._rows: dict[int, list[slice]] = {}  # of a height, those of each thread
        self._ends: list[int] = []

    def extend(self, calls: Iterable[Call]) -> None:
        """Append calls."""
        if len(self.lists) == 1:
            self.lists[0].extend(calls)
            return
        for call in calls:
            self._append(self._split(call))

    def note(self, thread: int, written: Iterable[Array], read: Iterable[Array] = ()) -> None:
        """Tell what an operation that was appended to the list of a thread writes and reads."""
        self._written[thread] += map(_span, written)
        self._read[thread] += map(_span, read)

    def close(self) -> None:
        """Append what still waits."""
        if self._waiting:
            self.meet()

    def meet(self) -> None:
        """Let all meet, if they have done anything since they last met, and append what waited for that."""
        if not any((*self._written, *self._read)):
            return
        self._meet()
        for spans in (*self._written, *self._read):
            spans.clear()
        waiting, self._waiting = self._waiting, []
        for shares in waiting:
            self._play(shares)

    def _append(self, shares: list[Share]) -> None:
        if any(mine.meets(other) for others in self._waiting for other in others for mine in shares):
            self.meet()
        if any(map(self._must_wait, shares)):
            self._waiting.append(shares)
        else:
            self._play(shares)

    def _play(self, shares: list[Share]) -> None:
        for share in shares:
            self.lists[share.thread].add(share.call)
            self._written[share.thread] += share.written
            self._read[share.thread] += share.read

    def _must_wait(self, share: Share) -> bool:
        """Whether it writes what another thread has read or written since they met, or reads what another has written."""
        for thread, (written, read) in enumerate(zip(self._written, self._read, strict=True)):
            if thread != share.thread and share.meets(Share(thread, share.call, written, read)):
                return True
        return False

    def _split(self, call: Call) -> list[Share]:
        """What each thread plays of a call."""
        unit: list[tuple[int, Call]] = [(0, call)]
        match call:
            case Multiply(part=(i, count)):
                thread = self._thread_of(i, count, len(call.product.matrices[2]))
                return [Share(thread, call, *_touched(call))]
            case Ufunc(method="__call__") if call.ufunc.signature is None and call.ufunc.nout == 1 and not call.options:
                unit = [(t, _rows_of_ufunc(call, rows)) for t, rows in self._cut(call.out)]
            case Ufunc(method="reduce") if _is_by_rows(call):
                x, options = call.args[0], call.options
                unit = [
                    (t, Ufunc(call.ufunc, "reduce", [x[rows]], call.out[rows], options)) for t, rows in self._cut(x)
                ]
            case Copy():
                unit = [(t, _rows_of_copy(call, rows)) for t, rows in self._cut(call.out)]
        shares = [Share(thread, part, *_touched(part)) for thread, part in unit]
        if any(a.meets(b) for i, a in enumerate(shares) for b in shares[:i]):
            return [Share(0, call, *_touched(call))]
        return shares

    def _thread_of(self, i: int, count: int, height: int) -> int:
        """Whose the i-th part of a product is; and once all are known, which rows each thread has."""
        threads = len(self.lists)
        thread = i * threads // count
        self._ends = self._ends if i else [0] * (threads + 1)
        for t in range(thread + 1, threads + 1):
            self._ends[t] += height
        if i == count - 1:
            slices = [slice(*ends) for ends in zip(self._ends[:-1], self._ends[1:], strict=True)]
            self._rows[self._ends[-1]] = slices
        return thread

    def _cut(self, array: Array) -> list[tuple[int, Any]]:
        """Threads, and the rows of an array that each has."""
        if not array.ndim or not array.flags.c_contiguous:
            return [(0, ...)]
        height = len(array)
        rows = self._rows.get(height)
        if rows is None:
            threads = len(self.lists) if array.size >= LEAST else 1
            bounds = [height * t // threads // 16 * 16 for t in range(threads)]
            rows = [slice(*ends) for ends in zip(bounds, [*bounds[1:], height], strict=True)]
        mine = [(t, own) for t, own in enumerate(rows) if own.start < own.stop]
        return mine if len(mine) > 1 else [(mine[0][0] if mine else 0, ...)]


def _rows_of(x: Any, rows: Any, out: Array) -> Any:
    """The part of an input that these rows of the output need."""
    if rows is ... or not isinstance(x, np.ndarray) or x.ndim < out.ndim or len(x) == 1:
        return x
    return x[rows]


def _rows_of_ufunc(call: Ufunc, rows: Any) -> Ufunc:
    args = [_rows_of(x, rows, call.out) for x in call.args]
    return Ufunc(call.ufunc, call.method, args, call.out[rows], call.options, call.number)


def _rows_of_copy(call: Copy, rows: Any) -> Copy:
    x, where = (_rows_of(each, rows, call.out) for each in (call.x, call.where))
    return Copy(call.out[rows], x, where)


def _is_by_rows(call: Ufunc) -> bool:
    """Whether a reduction gives a number for each row of a matrix, each by itself."""
    x = call.args[0]
    return x.ndim == 2 and x.flags.c_contiguous and call.options.get("axis", 0) in (1, -1)


def _touched(call: Call) -> tuple[list[Span], list[Span]]:
    """The memory that a call writes, and that it reads."""
    match call:
        case Ufunc():
            written, read = [call.out], call.args
        case Copy():
            written, read = [call.out], [call.x, call.where]
        case Multiply():
            A, B, C = call.product.matrices
            written, read = [C], [A, B]
        case Pick():
            written, read = [call.out], [call.x, *call.keys]
        case Scale():
            written, read = [call.target], [call.x]
        case Draw():
            written, read = [call.out], []
        case _:  # of Python nobody knows
            return [(0, 1 << 64)], [(0, 1 << 64)]
    return [*map(_span, written)], [_span(x) for x in read if isinstance(x, np.ndarray)]


def _span(x: Array) -> Span:
    low, high = byte_bounds(x)
    return int(low), int(high)


def _overlap(these: list[Span], those: list[Span]) -> bool:
    return any(a[0] < b[1] and b[0] < a[1] for a in these for b in those)
