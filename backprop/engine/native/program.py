"""A whole step as operations: rows picked, both passes of each shard, their sum, and the rule; one list for each thread.

Made of the calls that the NumPy player makes, once it has bound them; the numbers of each step come in a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backprop.checks import Array
from backprop.engine.blas import address
from backprop.engine.calls import Call, Copy, Numbers, Ufunc
from backprop.engine.native import player
from backprop.engine.native.fuse import fused
from backprop.engine.native.loops import FINITE, HERE, LOSS, MEET, NORM, NUMBER, RECORD, ROWS, STOP, own_loops
from backprop.engine.native.lower import Operations
from backprop.engine.planning import PIECE
from backprop.engine.play import Bound
from backprop.engine.step import Batch, run_all
from backprop.engine.team import Enough
from backprop.engine.threads import Pool
from backprop.engine.trace import CLIP, Number

TIME = re.compile(r"\bt\b")


class Played:
    """What a call came to: the losses of the steps that are done, and what ended it before the last one."""

    def __init__(self, losses: Array, team: Array) -> None:
        self._losses, self._team = losses, team
        self.error: BaseException | None = None
        self.enough = False  # whether the team stops here

    @property
    def done(self) -> int:
        """Whole steps."""
        return int(self._team[5])

    @property
    def committing(self) -> bool:
        """Whether the step that it ended in had begun to change φ, state or statistics."""
        return bool(self._team[4])

    @property
    def losses(self) -> list[float]:
        """L of each whole step."""
        return [self._sum(row) for row in self._losses[: self.done].tolist()]

    @property
    def last(self) -> float:
        """L of the step that it ended in: where it is finite, the gradient is not."""
        return self._sum(self._losses[self.done].tolist())

    @staticmethod
    def _sum(of_shards: list[float]) -> float:
        L = of_shards[0]
        for loss in of_shards[1:]:
            L += loss
        return L


@dataclass(eq=False)
class Steps:
    """The steps of a call: rows (steps, n) of X and y, what each example counts (steps, n) where they have weights, α of each
    step, seed and t of the first. `fill` copies what the player cannot pick: of a step, a part of the batch, to these arrays.
    """

    rows: Array
    X: Any
    y: Array
    shares: Array | None
    fill: Callable[[int, slice, dict[str, Array]], None]
    alphas: Sequence[float]
    key: tuple[int, int]


def picked_from(X: Any, y: Array) -> str:
    """The type of X, if the player can pick its rows; "" where Python has to."""
    usable = isinstance(X, np.ndarray) and X.ndim == 2 and X.flags.c_contiguous and X.flags.aligned and X.dtype.isnative
    return X.dtype.char if usable and y.flags.c_contiguous else ""


class Program:
    """The steps of a batch that NumPy has played at least once, as one call. Raises Unplayable where there is none."""

    def __init__(self, batch: Batch, steps: Steps) -> None:
        self.batch, self.steps, self.made_for = batch, steps, self._now(batch, steps)
        rule = [] if batch.rule is None or batch.by_hand else batch.update_calls()
        self.threads = max(batch.threads, len(rule))
        self.values: list[float | Number] = []
        self.open = ExitStack()  # generators that were started anew for a step
        self.lists = [Operations(self.values, self._set) for _ in range(self.threads)]
        for thread, ops in enumerate(self.lists):
            self._passes(ops, thread)
            self._sum(ops, thread)
            self._rule(ops, thread, rule)
            self._meet(ops)
        self.packed = [ops.packed() for ops in self.lists]

    def is_current(self, steps: Steps) -> bool:
        """Whether the arrays and settings are those that it was made for."""
        return same(self.made_for, self._now(self.batch, steps))

    @staticmethod
    def _now(batch: Batch, steps: Steps) -> list[Any]:
        """What its addresses and constants come from."""
        rule = batch.rule
        of_rule = [] if rule is None else [rule.clip_value, rule.clip_norm, *rule.state.values()]
        kind = picked_from(steps.X, steps.y)
        return [kind, steps.shares is None, batch.mean, batch.net.phi, *of_rule, *batch.bound_now()]

    def play(self, steps: Steps, pool: Pool | None, *, together: bool = False) -> Played:
        """Play the steps: each list in a thread of its own, or `together`, by turns in this one."""
        together = together or pool is None or pool.n < self.threads
        self.steps, count = steps, len(steps.alphas)
        data: list[Array] = [np.ascontiguousarray(steps.rows, np.int64)]
        if picked_from(steps.X, steps.y):
            data += [steps.X, steps.y, *([] if steps.shares is None else [steps.shares])]
        inputs = np.array([array.ctypes.data for array in data], np.uint64)
        team, losses = np.zeros(16, np.int32), np.zeros((count, self.batch.S))
        self.losses = losses
        given = self.table(steps.alphas, steps.key[1]), losses, inputs, self.batch.shape.n
        lists = [(packed, ops.python) for packed, ops in zip(self.packed, self.lists, strict=True)]
        played, turns = Played(losses, team), [lists] if together else [[each] for each in lists]
        calls = [partial(player.play, mine, team, self.threads, not i, *given, count) for i, mine in enumerate(turns)]
        try:
            run_all(calls, pool, lambda: team.__setitem__(2, 1))  # "broken": nobody waits for the others any longer
        except Enough:
            played.enough = True
        except BaseException as error:
            played.error = error
        finally:
            self.open.close()
        return played

    def table(self, alphas: Sequence[float], t: int) -> Array:
        """The numbers of each step (steps, numbers)."""
        made = np.empty((len(alphas), len(self.values)))
        alike = len(set(alphas)) == 1
        for i, value in enumerate(self.values):
            if not isinstance(value, Number):
                made[:, i] = value
            elif alike and not TIME.search(value.text):
                made[:, i] = value.value(alphas[0], t)
            else:
                made[:, i] = [value.value(alpha, t + j) for j, alpha in enumerate(alphas)]
        return made

    def _meet(self, ops: Operations) -> None:
        if self.threads > 1:
            ops.op(MEET)

    def _passes(self, ops: Operations, thread: int) -> None:
        """Both passes of the shards of a thread, and the sum of their gradients as far as it has them.

        All lists meet, and may stop, at the same places.
        """
        batch = self.batch
        for name, before in batch.spared.items() if not thread else ():
            ops.add(Copy(before, batch.net.buffers[name]))
        for what, i, depth in batch.tree.own[thread] if thread < batch.threads else ():
            if what == "shard":
                self._shard(ops, i, batch.bound(i, thread, depth))
            else:
                left = batch.vector(thread, i)
                ops.add(Ufunc(np.add, "__call__", [left, batch.vector(thread, depth)], left))
        if batch.whole and thread:
            self._stop(ops, batch.landed != "g" or batch.moves_buffers)

    def _stop(self, ops: Operations, commits: bool, lost: bool = False) -> None:
        """The end of a step whose loss is not finite, or its gradient, where `lost`; behind it φ or statistics may change."""
        self._meet(ops)
        ops.op(STOP, n=[commits, lost, 0])

    def _shard(self, ops: Operations, s: int, bound: Bound) -> None:
        batch, mine = self.batch, slice(self.batch.bounds[s], self.batch.bounds[s + 1])
        self._fill(ops, mine, bound.sources)
        if batch.draws_by_itself:
            ops.call(lambda step: self.open.enter_context(batch.reseeded((*self._key(step), s))))
        if bound.generators.places:
            ops.call(lambda step: setattr(bound.generators, "key", (*self._key(step), s)))
        ops.store(bound.numbers)
        ops.extend(bound.calls[: bound.turn])
        loss = ops.op(LOSS, bound.L, n=[s, 0, 0])  # type: ignore[arg-type]
        if batch.whole:
            self._stop(ops, batch.landed != "g" or batch.moves_buffers)
        ops.extend(bound.calls[bound.turn :])
        for copy in batch.watching(s, bound):
            ops.add(copy)
        if batch.draws_by_itself:
            ops.call(lambda step: self.open.close())
        if not batch.whole:  # a loss that is not finite has no way back
            loss["until"] = ops.op(HERE)

    def _key(self, step: int) -> tuple[int, int]:
        """What the draws of a step are started from."""
        seed, t = self.steps.key
        return seed, t + step

    def _set(self, numbers: Numbers, step: int) -> None:
        """Compute the numbers of a step, for what Python plays."""
        numbers.set(self.steps.alphas[step], self.steps.key[1] + step)

    def _fill(self, ops: Operations, mine: slice, arrays: Any) -> None:
        n, start, X = mine.stop - mine.start, mine.start, arrays["X"]
        kind = picked_from(self.steps.X, self.steps.y)
        if not kind or (kind != X.dtype.char and kind + X.dtype.char not in own_loops()):
            ops.call(lambda step: self.steps.fill(step, mine, arrays))
            return
        picked = X if kind == X.dtype.char else np.empty(X.shape, kind)
        for number, to in ((1, picked), (2, arrays["y rows"])):
            ops.op(ROWS, to, n=[n, start, number], strides=[[to.nbytes // n]])
        if picked is not X:
            ops.convert(picked, X)
        share = arrays["share"]
        if not share.ndim:
            ops.op(NUMBER, share, scale=ops.place(self.batch.mean))
        else:
            at = [start * share.itemsize, self.batch.shape.n * share.itemsize, 3]
            ops.op(RECORD, share, n=at, strides=[[share.nbytes]])

    def _sum(self, ops: Operations, thread: int) -> None:
        """The sum over the shards, each level in pieces for the threads; and whether it is finite."""
        batch, piece = self.batch, self._piece(thread)
        if not batch.whole:
            if batch.shared:
                self._once(ops, thread, lambda step: batch.tell_losses(self.losses[step]))
            self._stop(ops, commits=False)
            for level in batch.tree.joins:
                for left, right in level:
                    a, b = batch.vector(*left)[piece], batch.vector(*right)[piece]
                    ops.add(Ufunc(np.add, "__call__", [a, b], a))
                self._meet(ops)
            if batch.shared:
                self._once(ops, thread, lambda step: batch.tell_gradients())
                self._meet(ops)
            if not thread:
                ops.extend(batch.statistics())
        elif batch.landed == "g":
            self._meet(ops)
        if batch.landed == "g":
            ops.op(FINITE, batch.g[piece], n=[len(batch.g[piece]), 0, 0])
            self._stop(ops, commits=True, lost=True)

    def _once(self, ops: Operations, thread: int, call: Callable[[int], object]) -> None:
        """A call of Python in the first thread, when all have come so far."""
        self._meet(ops)
        if not thread:
            ops.call(call)

    def _piece(self, thread: int) -> slice:
        """The entries of φ that a thread adds up."""
        size, pieces = self.batch.net.size, -(-self.batch.net.size // PIECE)
        start, end = (pieces * i // self.threads * PIECE for i in (thread, thread + 1))
        return slice(start, min(end, size))

    def _rule(self, ops: Operations, thread: int, calls: Sequence[Sequence[Call]]) -> None:
        batch, rule = self.batch, self.batch.rule
        if rule is None:
            return
        if rule.clips and not batch.by_hand:
            if not thread:
                self._clip(ops, batch.g)
            self._meet(ops)
        if batch.is_opaque and not thread:
            ops.call(lambda step: batch.commit())
        if batch.by_hand and not thread:  # which counts its steps by itself
            ops.call(lambda step: rule.step(batch.net.phi, batch.g))
        elif thread < len(calls):
            ops.store(batch.numbers)
            before = len(ops.rows)
            ops.extend(calls[thread])
            if not batch.mixes:
                ops.rows[before:] = fused(ops.rows[before:], [batch.net.phi, *rule.state.values()])

    def _clip(self, ops: Operations, g: Array) -> None:
        """As `Optimizer.clip`."""
        most, norm = self.batch.rule.clip_value, self.batch.rule.clip_norm  # type: ignore[union-attr]
        if most is not None:
            ops.add(Ufunc(CLIP, "__call__", [g, np.array(-most, g.dtype), np.array(most, g.dtype)], g))
        if norm is not None:
            factor = np.zeros((), g.dtype)
            ops.op(NORM, g, factor, function=address(g.dtype.char + "nrm2"), size=[g.size, 0, 0], scale=ops.place(norm))
            ops.add(Ufunc(np.multiply, "__call__", [g, factor], g))


def same(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether two lists hold the same arrays and the same numbers."""
    return len(before) == len(now) and all(
        a is b or (isinstance(a, float | str | bool) and a == b) for a, b in zip(before, now, strict=True)
    )
