"""Neighboring loops as one: what the rules of optimizers do entry by entry, in the player's own loops.

    scaled_sum        out ← a x + y
    sum_of_squares    out ← a s + g²
    divided_step      φ ← φ − a m / (√s + e)

Each rounds as the calls that it stands for. What lies in between is not written, so nobody may read it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.engine.native.loops import LOOP, inner_loop, own_loops

Row = dict[str, Any]

SPELLED = {"*": np.multiply, "+": np.add, "-": np.subtract, "/": np.divide, "sqrt": np.sqrt}


def fused(rows: list[Row], kept: list[Array]) -> list[Row]:
    """The operations of a rule that goes entry by entry, with what can be one loop in one; only `kept` is read afterwards."""
    if any(row["kind"] != LOOP for row in rows):
        return rows
    spans = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in kept]
    made: list[Row] = []
    i = 0
    while i < len(rows):
        for length, match in PATTERNS:
            run = rows[i : i + length]
            if (
                len(run) == length
                and all(map(_is_dense, run))
                and (one := match(run, Later(rows[i + length :], spans)))
            ):
                made.append(one)
                i += length
                break
        else:
            made.append(rows[i])
            i += 1
    return made


def _is_dense(row: Row) -> bool:
    """Whether a loop goes along vectors without gaps and single numbers."""
    if row["kind"] != LOOP or row["n"][:2] != [1, 1]:
        return False
    size = 8 if row["is_double"] else 4
    *ins, out = row["strides"][2]
    return out == size and all(stride in (0, size) for stride in ins)


def _what(row: Row) -> str:
    """What a loop computes, as a sign; "" for what is in no pattern."""
    kind = np.dtype("d" if row["is_double"] else "f")
    for sign, ufunc in SPELLED.items():
        if row["function"] == inner_loop(ufunc, (kind,) * ufunc.nargs)[0]:
            return sign
    return ""


def _number(row: Row) -> tuple[int, int] | None:
    """The addresses (number, vector) of a loop over one of each."""
    first, second = row["strides"][2][:2]
    if bool(first) == bool(second):
        return None
    return (row["at"][0], row["at"][1]) if second else (row["at"][1], row["at"][0])


def _one(name: str, run: list[Row], at: list[int], numbers: int) -> Row:
    """The loop over these addresses, the places in the bits of `numbers` single ones."""
    last = run[-1]
    size = 8 if last["is_double"] else 4
    strides = [0 if numbers >> i & 1 else size for i in range(len(at))]
    name += " d" if last["is_double"] else " f"
    steps = [[0] * len(at), [0] * len(at), strides]
    return last | {"function": own_loops()[name], "data": 0, "at": at, "operands": len(at), "strides": steps}


@dataclass(frozen=True)
class Later:
    """What happens behind a run of loops, and the memory that counts in the end."""

    rows: list[Row]
    kept: list[tuple[int, int]]

    def frees(self, addresses: set[int], written: int) -> bool:
        """Whether nobody reads what lay at these addresses, but for the one written, before it is written anew."""
        left = addresses - {written}
        if any(start <= address < end for address in left for start, end in self.kept):
            return False
        for row in self.rows:
            if left & set(row["at"][:-1]):
                return False
            left = left - {row["at"][-1]}
        return True


def _scaled_sum(run: list[Row], later: Later) -> Row | None:
    multiply, add = run
    if (_what(multiply), _what(add)) != ("*", "+") or not (pair := _number(multiply)) or 0 in add["strides"][2]:
        return None
    made, (a, b) = multiply["at"][-1], add["at"][:2]
    other = b if a == made else a if b == made else None
    if other in (None, made) or not later.frees({made}, add["at"][-1]):
        return None
    return _one("scaled_sum", run, [*pair, other, add["at"][-1]], 0b0001)


def _sum_of_squares(run: list[Row], later: Later) -> Row | None:
    scale, square, add = run
    if [*map(_what, run)] != ["*", "*", "+"] or not (pair := _number(scale)) or 0 in add["strides"][2]:
        return None
    s, g = scale["at"][-1], square["at"][-1]
    same = square["at"][0] == square["at"][1] and all(square["strides"][2])
    if not same or add["at"][:2] != [s, g] or square["at"][0] == s or not later.frees({s, g}, add["at"][-1]):
        return None
    return _one("sum_of_squares", run, [*pair, square["at"][0], add["at"][-1]], 0b0001)


def _divided_step(run: list[Row], later: Later) -> Row | None:
    scale, root, shift, divide, step = run
    if [*map(_what, run)] != ["*", "sqrt", "+", "/", "-"]:
        return None
    of_scale, of_shift = _number(scale), _number(shift)
    if (
        not of_scale
        or not of_shift
        or of_shift[1] != root["at"][-1]
        or 0 in (*divide["strides"][2], *step["strides"][2])
    ):
        return None
    top, below, quotient, phi = scale["at"][-1], shift["at"][-1], divide["at"][-1], step["at"][-1]
    if (
        divide["at"][:2] != [top, below]
        or step["at"][:2] != [phi, quotient]
        or top in (root["at"][0], root["at"][-1], below)
    ):
        return None
    if not later.frees({top, root["at"][-1], below, quotient}, phi):
        return None
    return _one("divided_step", run, [*of_scale, root["at"][0], of_shift[0], phi], 0b01001)


Match = Callable[[list[Row], Later], Row | None]
PATTERNS: list[tuple[int, Match]] = [(5, _divided_step), (3, _sum_of_squares), (2, _scaled_sum)]
