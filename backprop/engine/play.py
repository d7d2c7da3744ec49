"""Play: a plan bound to memory, as a list of calls without arguments.

The exact player makes the same NumPy calls as the plain code, into arrays that it reuses: it is the reference, and bit-equal. The
fast player, which trains, gives products to BLAS, lands gradients in them, and spells some calls in a quicker way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from backprop import checks
from backprop.around.boundary import backward, forward
from backprop.checks import Array
from backprop.engine import parts
from backprop.engine.blas import prepare
from backprop.engine.calls import Call, Copy, Draw, Multiply, Numbers, Pick, Play, Python, Scale, Ufunc
from backprop.engine.live import Generators, total_on_copies
from backprop.engine.operations import Op, converted, gathered, look, of_list
from backprop.engine.plan import ALIGNMENT, Land, Plan, elementwise, is_number
from backprop.engine.threads import Pool, run_all, run_in_turn
from backprop.engine.trace import Number
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.losses.base import slope

JOINING = {"function", "rest", "many", "axis"}  # what np.concatenate is called with
SMALL = 1 << 16  # bytes
MOST_RUNS = 256  # copies in the place of one x[rows]
HANDED_OVER = 1e7  # operations of a part of a product from which on another Python thread computes it, about 0.1 ms


class Bound:
    """A plan over one arena: `first` are the calls up to L, `rest` those after it.

    `arrays` are the inputs by name; `length` is that of the vectors, for a plan of longer ones. `part` gives the layer or loss
    of one's own at a path.
    """

    def __init__(
        self,
        plan: Plan,
        arrays: Mapping[str, Array],
        *,
        exact: bool = False,
        arena: Array | None = None,
        numbers: Numbers | None = None,
        part: Callable[[str], Any] | None = None,
        length: int | None = None,
        results: dict[tuple[str, ...], Any] | None = None,
    ) -> None:
        self.plan, self.sources, self.exact, self.part, self.length = plan, arrays, exact, part, length
        self.numbers = numbers or Numbers()
        self.generators = Generators(plan.generators)
        raw = np.empty(plan.nbytes + ALIGNMENT, np.uint8) if arena is None else arena
        self.arena = raw[-raw.ctypes.data % ALIGNMENT :]
        self.arrays: dict[Op, Array] = {}
        self.held: dict[str, Any] = {}  # gradients of a layer of one's own, from its backward on
        self.ready = (
            results or {}
        )  # what layers of one's own returned in the step that was traced, the first one played
        self.calls: list[Call] = []
        self.products: dict[Op, int] = {}  # in how many parts each is computed
        turn = 0
        for i, step in enumerate(plan.steps):
            if i == plan.turn:
                turn = len(self.calls)
            if isinstance(step, Land):
                self.land(step)
            elif step.kind != "view":
                self.step(step)
        if plan.turn >= len(plan.steps):
            turn = len(self.calls)
        self.turn = turn  # the calls before it are those up to L
        self.L = None if plan.L is None else self.get(plan.L)
        self.results = [self.get(op) for op in plan.results]
        self.helpers: list[Pool | None] = [
            None
        ]  # whose threads share the parts of a large product, where there are some
        self.first, self.rest = ([*self._plays(calls)] for calls in (self.calls[:turn], self.calls[turn:]))

    def _plays(self, calls: Sequence[Call]) -> Iterator[Play]:
        """The calls as functions, those of a product whose parts are worth handing over as one."""
        parts_: list[Play] = []
        for call in calls:
            play = call.bind()
            if not isinstance(call, Multiply) or call.part[1] == 1 or call.product.flops < HANDED_OVER:
                yield play
                continue
            parts_.append(play)
            if call.part[0] == call.part[1] - 1:
                yield partial(_share, parts_, self.helpers)
                parts_ = []

    def get(self, x: Any) -> Any:
        """The array of an operation; a constant as it is."""
        if not isinstance(x, Op):
            return x
        if x not in self.arrays:
            self.arrays[x] = self._source(x) if x.kind == "input" else self._view(x)
        return self.arrays[x]

    def _source(self, op: Op) -> Array:
        name = str(op.function)
        if "number" in op.options:
            return self.numbers.array(op.options["number"], op.dtype)
        return np.empty(()) if name.startswith("generator ") else self.sources[name]

    def _view(self, op: Op) -> Array:
        under = self.get(op.inputs[0])
        seen: Array = look(under, op.function)
        if not np.may_share_memory(under, seen):  # a reshape that copies
            self.calls.append(Python(lambda: np.copyto(seen, look(under, op.function))))
        return seen

    def out(self, op: Op, args: Sequence[Any]) -> Array:
        """Where the output goes, in the order of memory that NumPy would choose."""
        place = self.plan.place[op]
        if isinstance(place, str):
            return self.sources[place]
        shape = op.shape if self.length is None or not op.shape else (self.length,)
        size = math.prod(shape) * op.dtype.itemsize
        flat = self.arena[place : place + size].view(op.dtype)
        like = [a for a in args if isinstance(a, np.ndarray) and a.ndim == 2]
        keeps_order = op.kind == "function" and op.function is not gathered
        same = [a for a in like if a.shape == op.shape] if elementwise(op) else like if keeps_order else []
        if len(shape) == 2 and same and all(a.flags.f_contiguous and not a.flags.c_contiguous for a in same):
            return flat.reshape(shape[::-1]).T
        return flat.reshape(shape)

    def step(self, op: Op) -> None:
        """Append the call of one operation."""
        args = [self.get(x) for x in op.inputs]
        out = self.arrays[op] = self.out(op, args)
        match op.kind:
            case "draw":
                options = {k: v for k, v in op.options.items() if k != "first"}
                name = str(op.inputs[0].function)
                self.calls.append(Draw(out, self.generators, name, op.function, op.options["first"], options))
            case "call":
                self.calls.append(Python(self._call(op, args, out)))
            case "function":
                self._function(op, args, out)
            case _:
                self._ufunc(op, args, out)

    def _function(self, op: Op, args: list[Any], out: Array) -> None:
        function, options = op.function, op.options
        if function is converted:
            self.calls.append(Copy(out, args[0]))
        elif function is np.where and not self.exact:
            condition, a, b = args
            if not any(isinstance(x, np.ndarray) and np.may_share_memory(x, out) for x in (condition, a)):
                self.calls += [Copy(out, b), Copy(out, a, condition)]
                return
            self.calls.append(Python(lambda: np.copyto(out, np.where(condition, a, b), casting="unsafe")))
        elif function is gathered and args[0].ndim == 2 and len(args) == 3:
            self.calls.append(Pick(out, args[0], (args[1], args[2])))
        elif function is gathered and len(args) == 2 and (runs := _runs(op.inputs[1])):
            self.calls += [Copy(out[at], args[0][rows]) for at, rows in runs]
        elif function is of_list and options["function"] is np.concatenate and options.keys() <= JOINING:
            self.calls += _joined(out, args, *options["rest"], **{k: v for k, v in options.items() if k == "axis"})
        else:
            self.calls.append(Python(lambda: np.copyto(out, function(*args, **options))))

    def _ufunc(self, op: Op, args: list[Any], out: Array) -> None:
        ufunc, method = op.function
        if method == "__call__" and not self.exact:
            if ufunc is np.matmul and len(op.shape) == 2 and all(getattr(a, "dtype", None) == op.dtype for a in args):
                self.products[op] = self._multiply(args[0], args[1], out, 1.0, 0.0)
                return
            if ufunc is np.add and self._adds_a_column(op, args, out):
                return
            number = _number(ufunc, args)
            args = self._as_floats(ufunc, _quicker(ufunc, args, op), op)
            self.calls.append(Ufunc(ufunc, method, args, out, op.options, number))
            return
        self.calls.append(Ufunc(ufunc, method, args, out, op.options, _number(ufunc, args)))

    def _multiply(
        self, A: Array, B: Array, C: Array, scale: float | Number, keep: float | Number, count: int | None = None
    ) -> int:
        """Append a product in its parts, or in `count`; in how many."""
        count = count or parts.of(A, B)
        for i, part in enumerate(parts.rows(len(C), count)):
            self.calls.append(Multiply(prepare(A[part], B, C[part]), scale, keep, self.numbers, (i, count)))
        return count

    def _as_floats(self, ufunc: np.ufunc, args: list[Any], op: Op) -> list[Any]:
        """A mask as numbers beforehand: NumPy converts it by itself, but in small arrays that takes longer than to multiply."""
        if ufunc is not np.multiply or op.dtype.kind != "f" or op.nbytes > SMALL:
            return args
        converted_ = []
        for a in args:
            if isinstance(a, np.ndarray) and a.dtype.kind == "b" and a.ndim:
                mask, a = a, np.empty(a.shape, op.dtype)
                self.calls.append(Copy(a, mask))
            converted_.append(a)
        return converted_

    def _adds_a_column(self, op: Op, args: list[Any], out: Array) -> bool:
        """Ω h + β as a second product, β 1ᵀ, onto the first one: several times quicker than NumPy's broadcast."""
        for product, column in ((op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])):
            if not isinstance(product, Op) or product not in self.products:
                continue
            if isinstance(column, Op) and column.shape == (op.shape[0], 1):
                there, beta = self.get(product), self.get(column)
                if there.ctypes.data == out.ctypes.data and there.strides == out.strides and beta.dtype == out.dtype:
                    ones = np.ones((1, op.shape[1]), out.dtype)
                    self._multiply(beta, ones, out, 1.0, 1.0, self.products[product])
                    return True
        return False

    def land(self, land: Land) -> None:
        """Append the call of a landing."""
        target = self.sources[land.target]
        if land.fused:
            inputs = [self.get(x) for x in land.value.inputs]
            A, B = inputs if len(inputs) == 2 else (inputs[0], np.ones((inputs[0].shape[1], 1), inputs[0].dtype))
            self._multiply(A, B, target.reshape(len(A), -1), land.scale, land.keep)
            return
        x = self.get(land.value)
        if is_number(land.keep, 0) and is_number(land.scale, 1):
            self.calls.append(Copy(target, x))
        else:
            self.calls.append(Scale(target, land.scale, x, land.keep, self.numbers))

    def _call(self, op: Op, args: list[Any], out: Array) -> Play:
        """A pass of a layer or loss of one's own, on copies: what it keeps, it keeps."""
        kind, *where = op.function
        part = self.part(where[0] if where else "loss.")  # type: ignore[misc]
        held, ready, key = self.held, self.ready, op.function

        def run() -> None:
            match kind:
                case "forward":
                    f = ready.pop(key) if key in ready else forward(part, np.array(args[0]))
                    np.copyto(out, _same_shape(f"{part.label}.forward", f, out.shape))
                case "backward":
                    dL_dh, held[where[0]] = ready.pop(key) if key in ready else backward(part, np.array(args[0]))
                    np.copyto(out, dL_dh)
                case "gradient":
                    np.copyto(out, held[where[0]][where[1]])
                case "total":
                    f, y, share = args
                    out[()] = ready.pop(key) if key in ready else total_on_copies(part, f, y, share)
                case "slope":
                    np.copyto(out, ready.pop(key) if key in ready else slope(part), casting="unsafe")

        return run


def _share(plays: Sequence[Play], helpers: Sequence[Pool | None]) -> None:
    """Play the parts of a product, each thread some of them."""
    (pool,) = helpers
    n = pool.n if pool is not None else 1
    mine = (plays[len(plays) * t // n : len(plays) * (t + 1) // n] for t in range(n))
    run_all([partial(run_in_turn, some) for some in mine if some], pool)


def _number(ufunc: np.ufunc, args: Sequence[Any]) -> float | None:
    """The number that a maximum or minimum is of, beside an array."""
    return args[-1] if ufunc in (np.maximum, np.minimum) and type(args[-1]) in (int, float) else None


def _quicker(ufunc: np.ufunc, args: list[Any], op: Op) -> list[Any]:
    """The same call, spelled so that NumPy spends less on finding out what it is."""
    like = next((a.dtype for a in args if isinstance(a, np.ndarray)), op.dtype)
    if ufunc is np.power or like.kind != "f":
        return args
    # NumPy's maximum is vectorized for two arrays only: a row of numbers is three times as quick as one number.
    shape = op.shape[-1:] if ufunc in (np.maximum, np.minimum) else ()
    return [np.full(shape, a, like) if type(a) in (int, float) else a for a in args]


def _joined(out: Array, parts: Sequence[Array], axis: int = 0) -> Iterator[Copy]:
    """np.concatenate, as a copy for each part."""
    start, whole = 0, np.moveaxis(out, axis, 0)
    for part in parts:
        size = part.shape[axis]
        yield Copy(np.moveaxis(whole[start : start + size], 0, axis), part)
        start += size


def _runs(rows: Any) -> list[tuple[slice, slice]]:
    """What goes where in x[rows], for constant rows in few runs: evenly spaced, or one again and again."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or (rows < 0).any():
        return []
    runs = list[tuple[slice, slice]]()
    start, steps = 0, np.diff(rows)
    while start < len(rows) and len(runs) <= MOST_RUNS:
        step = max(0, int(steps[start])) if start < len(steps) else 0
        end = start + 1
        while end < len(rows) and steps[end - 1] == step:
            end += 1
        first, last = int(rows[start]), int(rows[end - 1])
        runs.append((slice(start, end), slice(first, last + 1, step or 1)))
        start = end
    return runs if start == len(rows) else []


def part_at(net: Layer, loss: Loss | None, path: str) -> Any:
    """The layer or loss at a path of keys."""
    found: Any = net
    if path.startswith("loss."):
        found, path = loss, path.removeprefix("loss.")
    for key in path.split(".")[:-1]:
        children = found.children if isinstance(found, Layer) else {}
        found = children[key] if key in children else getattr(found, key)
    return found


def _same_shape(who: str, f: Array, shape: tuple[int, ...]) -> Array:
    """What a layer of one's own returns in each step of this size. Raises ValueError for another shape than the first time."""
    if f.shape != shape:
        raise ValueError(checks.message(who, f"shape {shape}, as in the first step", f"shape {f.shape}"))
    return f
