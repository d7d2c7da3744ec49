"""What the native player plays: its kinds of operations, NumPy's inner loops by address, and its own."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from backprop.engine.native import player

(
    LOOP,
    TILES,
    GEMM,
    GEMV,
    AXPY,
    NUMBER,
    NORM,
    ROWS,
    RECORD,
    LOSS,
    FINITE,
    MEET,
    STOP,
    PYTHON,
    PICK,
    MATMUL,
    HERE,
    DRAW,
) = range(18)

OPERATION = np.dtype(
    [
        *(
            ("kind", "i8"),
            ("function", "u8"),
            ("data", "u8"),
            ("at", "u8", 5),
            ("n", "i8", 3),
            ("strides", "i8", (3, 5)),
        ),
        *(("size", "i4", 3), ("lead", "i4", 3), ("scale", "i4"), ("keep", "i4")),
        *(("trans", "S2"), ("is_double", "i1"), ("operands", "i1"), ("pad", "i1", 4)),
    ]
)


class Unknown(Exception):
    """A call has no native form."""


@cache
def own_loops() -> dict[str, int]:
    """The player's own loops: address by name."""
    return player.loops()


@cache
def inner_loop(ufunc: np.ufunc, dtypes: tuple[np.dtype[Any], ...]) -> tuple[int, int]:
    """NumPy's inner loop for these types, and its data, out of the ufunc's structure, which is part of NumPy's C interface."""
    kinds = "".join(dtype.char for dtype in dtypes)
    name = f"{kinds[: ufunc.nin]}->{kinds[ufunc.nin :]}"
    if name not in ufunc.types or not all(dtype.isnative for dtype in dtypes):
        raise Unknown
    head = ctypes.c_int * 3
    if list(head.from_address(id(ufunc) + 16)) != [ufunc.nin, ufunc.nout, ufunc.nargs] or (
        ctypes.c_int.from_address(id(ufunc) + 48).value != ufunc.ntypes
    ):
        raise Unknown
    functions, data = (ctypes.c_void_p.from_address(id(ufunc) + offset).value for offset in (32, 40))
    i = 8 * ufunc.types.index(name)
    function = ctypes.c_void_p.from_address((functions or 0) + i).value
    return int(function or 0), int((ctypes.c_void_p.from_address(data + i).value or 0) if data else 0)
