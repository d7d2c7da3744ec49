"""A whole step as operations: rows picked, both passes of each shard, their sum, and the rule; one list for each thread.

Where there are more threads than shards, several play one shard together, a group.

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
from backprop.engine.calls import Call, Copy, Draw, Numbers, Ufunc
from backprop.engine.native import player
from backprop.engine.native.fuse import fused
from backprop.engine.native.keys import keys
from backprop.engine.native.loops import FINITE, HERE, LOSS, MEET, NORM, NUMBER, RECORD, ROWS, STOP, Unknown, own_loops
from backprop.engine.native.lower import Operations
from backprop.engine.native.spread import Spread
from backprop.engine.planning import PIECE
from backprop.engine.play import Bound
from backprop.engine.step import Batch
from backprop.engine.team import Enough
from backprop.engine.threads import Pool, run_all
from backprop.engine.trace import CLIP, Number

TIME = re.compile(r"\bt\b")
BROKEN, _LOST, COMMITTING, DONE = range(4)  # of what threads share


INPUTS = 4  # rows, X, y and shares; behind them the keys of draws


class Played:
    """What a call came to: the losses of the steps that are done, and what ended it before the last one."""

    def __init__(self, losses: Array, team: Array) -> None:
        self._losses, self._team = losses, team
        self.error: BaseException | None = None
        self.enough = False  # whether the team stops here

    @property
    def done(self) -> int:
        """Whole steps."""
        return int(self._team[DONE])

    @property
    def committing(self) -> bool:
        """Whether the step that it ended in had begun to change φ, state or statistics."""
        return bool(self._team[COMMITTING])

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
    """The steps of a batch that NumPy has played at least once, as one call for this number of threads."""

    def __init__(self, batch: Batch, steps: Steps, threads: int) -> None:
        self.batch, self.steps, self.made_for = batch, steps, self._now(batch, steps)
        self.threads = threads
        self.values: list[float | Number] = []
        self.open = ExitStack()  # generators that were started anew for a step
        self.drawn: list[tuple[int, ...]] = []  # of each draw, the shard and the place of its layer
        self._shard_now, self._by_python = 0, set[str]()
        self.lists = [Operations(self.values, self._set, self._key_of) for _ in range(threads)]
        rule = [] if batch.rule is None or batch.update.by_hand else batch.update.calls()
        self.lists[0].store(batch.update.numbers)
        for group in self._groups():
            self._passes(*group)
        self._sum()
        self._rule(rule)
        self._meet()
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

    def play(self, steps: Steps, pool: Pool | None) -> Played:
        """Play the steps, each list in a thread of its own."""
        self.steps, count = steps, len(steps.alphas)
        rows = np.ascontiguousarray(steps.rows, np.int64)
        X, y = (steps.X, steps.y) if picked_from(steps.X, steps.y) else (rows, rows)
        of_draws = [keys(*steps.key, count, where) for where in self.drawn]
        data = [rows, X, y, rows if steps.shares is None else steps.shares, *of_draws]
        inputs = np.array([array.ctypes.data for array in data], np.uint64)
        team, losses = np.zeros(player.TEAM // 4, np.int32), np.zeros((count, self.batch.S))
        self.losses = losses
        given = self.table(steps.alphas, steps.key[1]), losses, inputs, self.batch.shape.n
        played = Played(losses, team)
        calls = [
            partial(player.play, self.packed[i], ops.python, team, not i, *given, count)
            for i, ops in enumerate(self.lists)
        ]
        try:
            run_all(calls, pool, lambda: team.__setitem__(BROKEN, 1))  # nobody waits for the others any longer
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

    def _groups(self) -> list[tuple[list[int], list[int]]]:
        """The threads that play together, and what they play: the shards of these, as the NumPy player has them."""
        p, own = self.threads, self.batch.threads
        if p <= own:
            return [([t], [*range(own * t // p, own * (t + 1) // p)]) for t in range(p)]
        return [([*range(p * w // own, p * (w + 1) // own)], [w]) for w in range(own)]

    def _meet(self, threads: Sequence[int] | None = None) -> None:
        """Let these threads meet, or all."""
        mine = range(self.threads) if threads is None else threads
        point = 0 if len(mine) == self.threads else 1 + mine[0]
        for thread in mine if len(mine) > 1 else ():
            self.lists[thread].op(MEET, n=[point, len(mine), 0])

    def _passes(self, threads: list[int], own: list[int]) -> None:
        """Both passes of the shards of some threads, and the sum of their gradients as far as they have them.

        All lists meet, and may stop, at the same places.
        """
        batch = self.batch
        spread = Spread([self.lists[thread] for thread in threads], partial(self._meet, threads))
        if not threads[0]:
            spread.extend(Copy(before, batch.net.buffers[name]) for name, before in batch.spared.items())
        for worker in own:
            for what, i, depth in batch.tree.own[worker]:
                if what == "shard":
                    self._shard(spread, i, batch.bound(i, worker, depth))
                else:
                    left = batch.vector(worker, i)
                    spread.extend([Ufunc(np.add, "__call__", [left, batch.vector(worker, depth)], left)])
        spread.close()

    def _stop(self, commits: bool, lost: bool = False) -> None:
        """The end of a step whose loss is not finite, or its gradient, where `lost`; behind it φ or statistics may change."""
        self._meet()
        for ops in self.lists:
            ops.op(STOP, n=[commits, lost, 0])

    def _shard(self, spread: Spread, s: int, bound: Bound) -> None:
        batch, mine = self.batch, slice(self.batch.bounds[s], self.batch.bounds[s + 1])
        first = spread.lists[0]
        spread.meet()  # nobody still reads the last shard
        self._fill(spread, mine, bound.sources)
        if batch.draws_by_itself:
            first.call(lambda step: self.open.enter_context(batch.reseeded((*self._key(step), s))))
        draws = [call for call in bound.calls if isinstance(call, Draw)]
        self._shard_now, self._by_python = s, {call.name for call in draws if not _is_plain(call)}
        if self._by_python:
            first.call(lambda step: setattr(bound.generators, "key", (*self._key(step), s)))
        first.store(bound.numbers)
        spread.note(0, [array for _, array in bound.numbers.arrays])
        spread.extend(bound.calls[: bound.turn])
        spread.meet()
        losses = [ops.op(LOSS, bound.L, n=[s, 0, i]) for i, ops in enumerate(spread.lists)]  # type: ignore[arg-type]
        if batch.whole:
            self._stop(batch.landed != "g" or batch.moves_buffers)
        spread.extend([*bound.calls[bound.turn :], *batch.watching(s, bound)])
        spread.close()
        if batch.draws_by_itself:
            first.call(lambda step: self.open.close())
        for loss, ops in zip(losses, spread.lists, strict=True):
            if not batch.whole:  # one that is not finite has no way back
                loss["until"] = ops.op(HERE)

    def _key_of(self, draw: Draw) -> int:
        """Where the keys of a draw are among the inputs. Raises Unknown where Python draws."""
        if draw.name in self._by_python:
            raise Unknown
        self.drawn.append((self._shard_now, *draw.generators.places[draw.name]))
        return INPUTS + len(self.drawn) - 1

    def _key(self, step: int) -> tuple[int, int]:
        """What the draws of a step are started from."""
        seed, t = self.steps.key
        return seed, t + step

    def _set(self, numbers: Numbers, step: int) -> None:
        """Compute the numbers of a step, for what Python plays."""
        numbers.set(self.steps.alphas[step], self.steps.key[1] + step)

    def _fill(self, spread: Spread, mine: slice, arrays: Any) -> None:
        n, start, X, first = mine.stop - mine.start, mine.start, arrays["X"], spread.lists[0]
        share, kind, threads = arrays["share"], picked_from(self.steps.X, self.steps.y), len(spread.lists)
        if not kind or (kind != X.dtype.char and kind + X.dtype.char not in own_loops()):
            first.call(lambda step: self.steps.fill(step, mine, arrays))
            spread.note(0, [X, arrays["y rows"], share])
            return
        picked = X if kind == X.dtype.char else np.empty(X.shape, kind)
        for t, ops in enumerate(spread.lists):
            of_thread = slice(n * t // threads, n * (t + 1) // threads)
            if of_thread.start < of_thread.stop:
                self._pick_rows(ops, of_thread, start, [picked, arrays["y rows"]])
                if picked is not X:
                    ops.convert(picked[of_thread], X[of_thread])
                spread.note(t, [each[of_thread] for each in (picked, X, arrays["y rows"])])
        if not share.ndim:
            first.op(NUMBER, share, scale=first.place(self.batch.mean))
        else:
            at = [start * share.itemsize, self.batch.shape.n * share.itemsize, 3]
            first.op(RECORD, share, n=at, strides=[[share.nbytes]])
        spread.note(0, [share])

    @staticmethod
    def _pick_rows(ops: Operations, rows: slice, start: int, to: list[Array]) -> None:
        """Copy these rows of a shard that begins at `start` from the data."""
        for number, array in enumerate(to, start=1):
            n = [rows.stop - rows.start, start + rows.start, number]
            ops.op(ROWS, array[rows], n=n, strides=[[array.nbytes // len(array)]])

    def _sum(self) -> None:
        """The sum over the shards, each level in pieces for the threads; and whether it is finite."""
        batch = self.batch
        if not batch.whole:
            if batch.shared:
                self._once(lambda step: batch.tell_losses(self.losses[step]))
            self._stop(commits=False)
            for level in batch.tree.joins:
                for thread, ops in enumerate(self.lists):
                    piece = self._piece(thread)
                    for left, right in level:
                        a, b = batch.vector(*left)[piece], batch.vector(*right)[piece]
                        ops.add(Ufunc(np.add, "__call__", [a, b], a))
                self._meet()
            if batch.shared:
                self._once(lambda step: batch.tell_gradients())
                self._meet()
            self.lists[0].extend(batch.statistics())
        elif batch.landed == "g":
            self._meet()
        if batch.landed == "g":
            for thread, ops in enumerate(self.lists):
                g = batch.g[self._piece(thread)]
                ops.op(FINITE, g, n=[len(g), 0, 0])
            self._stop(commits=True, lost=True)

    def _once(self, call: Callable[[int], object]) -> None:
        """A call of Python in the first thread, when all have come so far."""
        self._meet()
        self.lists[0].call(call)

    def _piece(self, thread: int) -> slice:
        """The entries of φ that a thread adds up."""
        size, pieces = self.batch.net.size, -(-self.batch.net.size // PIECE)
        start, end = (pieces * i // self.threads * PIECE for i in (thread, thread + 1))
        return slice(start, min(end, size))

    def _rule(self, calls: Sequence[Sequence[Call]]) -> None:
        batch, rule, first = self.batch, self.batch.rule, self.lists[0]
        if rule is None:
            return
        if batch.landed != "g" and any(calls):
            self._meet()
        elif rule.clips and not batch.update.by_hand:
            self._clip(first, batch.g)
            self._meet()
        if batch.is_opaque:
            first.call(lambda step: batch.commit())
        if batch.update.by_hand:  # which counts its steps by itself
            first.call(lambda step: rule.step(batch.net.phi, batch.g))
        for i, mine in enumerate(calls):
            ops = self.lists[i * self.threads // len(calls)]
            before = len(ops.rows)
            ops.extend(mine)
            if not batch.update.mixes:
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


def _is_plain(draw: Draw) -> bool:
    """Whether a draw is one that the player knows: numbers from [0, 1), the first ones of the step."""
    dense = draw.out.flags.c_contiguous and draw.out.dtype.char in "fd"
    return dense and draw.first and draw.method == "random" and draw.options.keys() <= {"dtype"}


def same(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether two lists hold the same arrays and the same numbers."""
    return len(before) == len(now) and all(
        a is b or (isinstance(a, float | str | bool) and a == b) for a, b in zip(before, now, strict=True)
    )
