"""Plan: which operations are needed, in which order, where their outputs lie, what is computed again. All data; nothing runs.

dead results go            so the first layer's ∂L/∂h is never computed
a gradient lands           target ← scale · A B + keep · target, in the product that ends it: with Ω, −α and 1, the SGD update
the turn                   the steps before it are those that L needs; only when L is finite does anything change
the arena                  one block of memory, in which an array lies from its making to its last reader
recomputation              with `checkpoint=k`, what is not kept of the way forward is computed again on the way back
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from backprop import html
from backprop.engine import parts
from backprop.engine.operations import Op, base, converted
from backprop.engine.trace import Number

ALIGNMENT = 64  # bytes, a line of the cache


@dataclass(eq=False, slots=True)
class Land:
    """target ← scale · value + keep · target. `scale` and `keep` are numbers, or computed once a step."""

    target: str
    shape: tuple[int, ...]
    value: Op
    scale: float | Number = 1.0
    keep: float | Number = 0.0
    fused: bool = False  # the product or sum itself lands; nothing lies in between

    def __str__(self) -> str:
        kept = "" if is_number(self.keep, 0) else f" + {self.keep} · itself"
        scale = "" if is_number(self.scale, 1) else f"{self.scale} · "
        what = (
            f"{self.value.name}({', '.join(map(_written, self.value.inputs))})" if self.fused else _written(self.value)
        )
        return f"{self.target} ← {scale}{what}{kept}"


@dataclass(eq=False, repr=False)
class Plan:
    """The steps in the order of play, and where each output lies."""

    steps: list[Op | Land]
    turn: int  # steps before this one are needed for L
    place: dict[Op, int | str]  # offset in the arena, or the target that it is computed in
    nbytes: int  # of the arena
    L: Op | None
    results: tuple[Op, ...] = ()
    inputs: dict[str, Op] = field(default_factory=dict)
    settings: dict[tuple[str, str], Any] = field(default_factory=dict)
    generators: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def is_opaque(self) -> bool:
        """Whether it calls a layer or loss of one's own."""
        return any(isinstance(step, Op) and step.kind == "call" for step in self.steps)

    def __repr__(self) -> str:
        landings = sum(isinstance(step, Land) for step in self.steps)
        return f"Plan({len(self._rows())} operations, {landings} of them landings, {self.nbytes:,} bytes of memory)"

    @cached_property
    def parts(self) -> int:
        """In how many parts its largest products are computed, at most."""
        ops = [step.value if isinstance(step, Land) else step for step in self.steps]
        products = [op for op in ops if op.kind == "ufunc" and op.function[0] is np.matmul and len(op.shape) == 2]
        return max(
            (parts.count(op.shape[0], op.shape[1], op.ops[0].shape[1]) for op in products if len(op.ops) == 2),
            default=1,
        )

    def __str__(self) -> str:
        lines = [f"{what:<58} {shape} {where:<12} {line}".rstrip() for what, shape, where, line in self._rows()]
        if self.L is not None:
            lines.insert(self._turn, "---- L is known: it is finite, or nothing changes ----")
        return "\n".join([*lines, f"{self.nbytes:,} bytes of memory"])

    def _repr_html_(self) -> str:
        rows: list[Sequence[object]] = [*self._rows()]
        if self.L is not None:
            rows.insert(self._turn, ("L is known: it is finite, or nothing changes", "", "", ""))
        return html.table(repr(self), ["operation", "output", "place", "from"], html.shortened(rows, 400), names=4)

    @property
    def _turn(self) -> int:
        """How many rows stand before L is known."""
        return len(self._rows(self.turn))

    def _rows(self, end: int | None = None) -> list[tuple[str, str, str, str]]:
        """Each operation, its output, where that lies, and the line of the code it is from; of the first steps, or all."""
        rows = []
        for step in self.steps[:end]:
            if isinstance(step, Land):
                rows.append((str(step), "", "", ""))
            elif step.kind != "view":  # another look at memory takes no step
                place = self.place.get(step)
                where = f"in {place}" if isinstance(place, str) else "" if place is None else f"@{place}"
                what = f"%{step.number} = {step.name}({', '.join(map(_written, step.inputs))})"
                rows.append((what, f"{step.dtype}{list(step.shape)}", where, step.line))
        return rows


def _written(x: Any) -> str:
    """An input in the printed list: its number, its name, or itself; a view as it would be spelled."""
    if not isinstance(x, Op):
        return f"array {x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) and x.ndim else str(x)
    if x.kind == "input":
        return str(x.function).removeprefix("number ")
    if x.kind != "view":
        return f"%{x.number}"
    under, (kind, *rest) = _written(x.inputs[0]), x.function
    if kind == "T":
        return under.removesuffix("ᵀ") if under.endswith("ᵀ") else f"{under}ᵀ"
    if kind == "item":
        return f"{under}[{', '.join(map(_key, rest[0]))}]"
    return f"{under}.{kind}{'' if not rest else f'({rest[0]})'}"


def _key(key: Any) -> str:
    """One part of an index."""
    if not isinstance(key, slice):
        return str(key)
    return ":".join("" if part is None else str(part) for part in (key.start, key.stop))


def needed(roots: Iterable[Op]) -> list[Op]:
    """The operations that these need, in their order; inputs are none."""
    seen: set[Op] = set()
    stack = list(roots)
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += op.ops
    return sorted((op for op in seen if op.kind != "input"), key=lambda op: op.number)


def make(
    L: Op | None,
    lands: Sequence[Land],
    writes: Mapping[Op, Op],
    *,
    effects: Sequence[Op] = (),
    turn: int = 0,
    kept: frozenset[Op] = frozenset(),
    exact: bool = False,
    results: Sequence[Op] = (),
    scratch: str = "",
) -> Plan:
    """The plan of a list. `lands`, `writes` and `results`, which stay in the arena, are what it is for.

    `scratch` names an input that may be used up; `L` is known at the turn. `exact` plays NumPy's own calls, so nothing is fused.
    """
    lands = [replace(land) for land in lands]
    ends = [] if L is None else [L]
    order = needed([*ends, *results, *(land.value for land in lands), *writes.values(), *effects])
    if kept:
        known = kept | set(writes.values()) | set(ends)
        order, again = recomputed(order, turn, known)
        for land in lands:
            land.value = again(land.value)
        writes = {place: again(value) for place, value in writes.items()}
    lands += [Land(str(place.function), place.shape, value) for place, value in writes.items()]
    for land in lands:
        if base(land.value).kind == "input":  # the input may be written before the landing reads it
            copy_ = replace(land.value, kind="function", function=converted, inputs=(land.value,), options={})
            copy_.number = max((op.number for op in order), default=0) + 1
            order.append(copy_)
            land.value = copy_
    first = set(needed([*ends, *(op for op in effects if op.number < turn)]))
    steps: list[Op] = [op for op in order if op in first] + [op for op in order if op not in first]
    made = _Placing(steps, len([op for op in order if op in first]), lands, exact)
    made.L, made.results = L, tuple(results)
    made.compute_in_place(scratch)
    return made.plan()


def recomputed(order: list[Op], turn: int, kept: frozenset[Op] | set[Op]) -> tuple[list[Op], Any]:
    """The steps on the way back read copies of what is not kept of the way forward, made right before their first reader."""
    drawn = [op.inputs[0] for op in order if op.kind == "draw"]
    copies: dict[Op, Op] = {}
    out: list[Op] = []
    number = [max((op.number for op in order), default=0)]

    def copied(op: Op, inputs: tuple[Any, ...]) -> Op:
        number[0] += 1
        made = replace(op, inputs=inputs, number=number[0])
        made.same_as = -made.number
        out.append(made)
        return made

    def again(op: Any) -> Any:
        if not isinstance(op, Op):
            return op
        if op in copies:
            return copies[op]
        once = op.kind == "draw" and drawn.count(op.inputs[0]) == 1  # it starts its generator anew
        if op.number >= turn or op.kind in ("input", "call") or op in kept or (op.kind == "draw" and not once):
            return op
        inputs = tuple(again(x) for x in op.inputs)
        if op.kind == "view" and all(x is y for x, y in zip(inputs, op.inputs, strict=True)):
            return op
        copies[op] = copied(op, inputs)
        return copies[op]

    for op in order:
        if op.number < turn:
            out.append(op)
            continue
        inputs = tuple(again(x) for x in op.inputs)
        if all(x is y for x, y in zip(inputs, op.inputs, strict=True)):
            out.append(op)
        else:
            copies[op] = copied(op, inputs)
    return out, again


def can_land(op: Op) -> bool:
    """Whether it is a product of matrices, or a sum over the columns of one: BLAS adds it to its target by itself."""
    alike = op.dtype.char in "fd" and all(x.dtype == op.dtype for x in op.ops)
    return alike and summed(op) is not None and (op.function[0] is np.matmul or len(op.shape) == 1)


def summed(op: Op) -> tuple[Op, ...] | None:
    """What a gradient adds up over examples: the factors A (D_out, N), B (N, D_in) of a product, or the terms (D, N) of a sum."""
    if op.kind != "ufunc":
        return None
    if op.function == (np.matmul, "__call__") and len(op.shape) == 2 and len(op.ops) == 2:
        return op.inputs
    x = op.inputs[0]
    is_sum = op.function == (np.add, "reduce") and op.options.get("axis") in (1, -1)
    return (x,) if is_sum and isinstance(x, Op) and len(x.shape) == 2 else None


def elementwise(op: Op) -> bool:
    """Whether each entry of the output comes from the entries at the same place."""
    return op.kind == "ufunc" and op.function[1] == "__call__" and op.function[0] is not np.matmul


class _Placing:
    """Puts landings where their targets have been read for the last time, and arrays into the arena."""

    L: Op | None
    results: tuple[Op, ...]

    def __init__(self, steps: list[Op], turn: int, lands: list[Land], exact: bool) -> None:
        self.steps, self.turn, self.exact = steps, turn, exact
        self.at = {op: i for i, op in enumerate(steps)}
        self.readers: dict[Op, int] = {}
        self.last_read: dict[str, int] = {}  # name of an input -> the last step that reads its memory
        for i, op in enumerate(steps):
            for x in op.ops:
                self.readers[x] = self.readers.get(x, 0) + 1
                if (source := base(x)).kind == "input":
                    self.last_read[str(source.function)] = i
        self.place: dict[Op, int | str] = {}
        self.after: dict[int, list[Land]] = {}
        self.at_turn: list[Land] = []
        self.targets, self.landed = {land.target for land in lands}, {land.value for land in lands}
        users: dict[Op, int] = {}
        for land in lands:
            users[land.value] = users.get(land.value, 0) + 1
        for land in lands:
            self._land(land, users[land.value] == 1)

    def _land(self, land: Land, only: bool) -> None:
        op, alone = land.value, only and land.value in self.at and not self.readers.get(land.value)
        at = self.at.get(op, -1)
        where = max(at, self.last_read.get(land.target, -1))
        land.fused = alone and can_land(op) and not self.exact
        if where > at and any(base(x).kind == "input" and base(x).function in self.targets for x in op.ops):
            land.fused = False  # it would read an input later than the step that stands in the list
        plain = is_number(land.scale, 1) and is_number(land.keep, 0) and op.dtype.kind != "b"
        if only and plain and not land.fused and at == where >= self.turn and self._may_be_computed_in(op, land):
            self.place[op] = land.target
        elif where < self.turn:
            self.at_turn.append(land)
        else:
            self.after.setdefault(where, []).append(land)

    def _may_be_computed_in(self, op: Op, land: Land) -> bool:
        if op.kind not in ("ufunc", "function") or op.shape != land.shape:
            return False
        reads = [x for x in op.ops if base(x).kind == "input" and base(x).function == land.target]
        return not reads or (elementwise(op) and all(x.kind == "input" and x.shape == op.shape for x in reads))

    def compute_in_place(self, scratch: str) -> None:
        """The last operation that reads what a target held may be computed there, if it is done with before the new value."""
        ends = {target: op for op, target in self.place.items() if isinstance(target, str)}
        last_reader = {x: i for i, op in enumerate(self.steps) for x in op.ops}
        viewed = {base(x) for op in self.steps for x in op.ops if x.kind == "view"}
        for target in [*ends, scratch]:
            op = self.steps[self.last_read[target]] if target in self.last_read else None
            taken = op is None or op in self.place or op in viewed or op in self.landed or op is self.L
            if op is None or taken or not elementwise(op) or self.at[op] < self.turn:
                continue
            own = [x for x in op.ops if base(x).function == target]
            end = self.at[ends[target]] if target in ends else len(self.steps)
            alive = last_reader.get(op, self.at[op])
            in_time = alive < end or (alive == end and elementwise(ends[target]))
            if in_time and all(x.kind == "input" and x.shape == op.shape and x.dtype == op.dtype for x in own):
                self.place[op] = target

    def plan(self) -> Plan:
        """The steps with landings among them, and the places."""
        lands = [*self.at_turn, *(land for each in self.after.values() for land in each)]
        fused = {land.value for land in lands if land.fused}
        final: list[Op | Land] = [op for op in self.steps[: self.turn] if op not in fused]
        turn = len(final)
        final += self.at_turn
        for i, op in enumerate(self.steps[self.turn :], start=self.turn):
            final += [] if op in fused else [op]
            final += self.after.get(i, [])
        nbytes = self._fill_arena(final)
        inputs = {str(op.function): op for step in final for op in _sources(step)}
        return Plan(final, turn, self.place, nbytes, self.L, self.results, inputs)

    def _fill_arena(self, final: list[Op | Land]) -> int:
        spans, group = self._lifetimes(final)
        offsets: dict[int, tuple[int, int]] = {}
        top = 0
        for g in sorted(range(len(spans)), key=lambda g: -spans[g][2]):  # the largest first
            start, end, size = spans[g]
            size = -(-size // ALIGNMENT) * ALIGNMENT
            busy = sorted((o, o + n) for h, (o, n) in offsets.items() if spans[h][0] <= end and start <= spans[h][1])
            offset = 0
            for low, high in busy:
                if offset + size <= low:
                    break
                offset = max(offset, high)
            offsets[g] = offset, size
            top = max(top, offset + size)
        self.place.update({op: offsets[g][0] for op, g in group.items()})
        return top

    def _lifetimes(self, final: list[Op | Land]) -> tuple[list[list[int]], dict[Op, int]]:
        """[first step, last step, bytes] of each piece of memory, and which operation's output lies in which piece."""
        last: dict[Op, int] = {}
        for i, step in enumerate(final):
            for x in _reads(step):
                last[base(x)] = i
        for op in (*self.results, *([] if self.L is None else [self.L])):
            last[base(op)] = len(final)
        spans: list[list[int]] = []
        group: dict[Op, int] = {}
        for i, op in ((i, step) for i, step in enumerate(final) if isinstance(step, Op)):
            if op.kind == "view" or op in self.place:
                continue
            under = op.ops if elementwise(op) else []
            g = next((group[x] for x in under if self._may_overwrite(op, x, i, last, group)), None)
            if g is None:
                g = len(spans)
                spans.append([i, i, op.nbytes])
            group[op] = g
            spans[g][1] = max(spans[g][1], last.get(op, i))
        return spans, group

    @staticmethod
    def _may_overwrite(op: Op, x: Op, i: int, last: Mapping[Op, int], group: Mapping[Op, int]) -> bool:
        """Whether op may be computed in the memory of its input x, which nobody reads again."""
        if x not in group or last.get(x) != i or x.shape != op.shape or x.nbytes != op.nbytes:
            return False
        return all(y is x for y in op.ops if base(y) is x)  # not where it also reads x through a view


def _reads(step: Op | Land) -> list[Op]:
    if isinstance(step, Land):
        return step.value.ops if step.fused else [step.value]
    return step.ops


def _sources(step: Op | Land) -> list[Op]:
    return [source for x in _reads(step) if (source := base(x)).kind == "input"]


Form = dict[Op, float | Number]


def linear(op: Op, atoms: Iterable[Op] = ()) -> Form | None:
    """An operation on vectors as Σ coefficient · atom, atoms being inputs and those given; None if it is no such form."""
    if op in atoms or op.kind == "input":
        return {op: 1.0}
    if op.kind != "ufunc" or op.function[1] != "__call__":
        return None
    ufunc, x = op.function[0], op.inputs
    if ufunc is np.negative:
        return _scaled(linear(x[0], atoms), -1.0)
    if ufunc in (np.add, np.subtract):
        a, b = (linear(y, atoms) if isinstance(y, Op) and y.shape == op.shape else None for y in x)
        if a is None or b is None:
            return None
        b = _scaled(b, 1.0 if ufunc is np.add else -1.0) or {}
        return {k: _sum(a[k], b[k]) if k in a and k in b else a.get(k, b.get(k, 0.0)) for k in a | b}
    if ufunc is np.multiply:
        for a_, b_ in (x, x[::-1]):
            if (number := _number(a_)) is not None and isinstance(b_, Op):
                return _scaled(linear(b_, atoms), number)
    if ufunc is np.true_divide and (number := _number(x[1])) is not None and isinstance(x[0], Op):
        return _scaled(linear(x[0], atoms), 1 / number)
    return None


def _number(x: Any) -> float | Number | None:
    if isinstance(x, Op):
        return x.options.get("number")
    return float(x) if isinstance(x, int | float) else None


def _scaled(form: Form | None, by: float | Number) -> Form | None:
    return None if form is None else {k: _product(c, by) for k, c in form.items()}


def _product(a: float | Number, b: float | Number) -> float | Number:
    return b if is_number(a, 1) else a if is_number(b, 1) else a * b


def _sum(a: float | Number, b: float | Number) -> float | Number:
    return a + b


def is_number(x: float | Number, value: float) -> bool:
    """Whether a coefficient is this very number in every step."""
    return not isinstance(x, Number) and x == value
