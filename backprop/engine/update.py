"""The update: what a rule does once a gradient has landed, on pieces of φ that stay in cache, for each thread."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from backprop.checks import Array
from backprop.engine.calls import Call, Numbers, Scale
from backprop.engine.plan import ALIGNMENT
from backprop.engine.planning import PIECE, Plans
from backprop.engine.play import Bound
from backprop.engine.threads import Pool, run_all, run_in_turn
from backprop.layers import Layer
from backprop.optimizers import Optimizer

LEAST_PIECES = 3  # below that, updating φ on one thread is quicker than handing half of it over


class Update:
    """The rest of a rule, as calls; called with α and t it moves φ and the state. `g` is where gradients land, if it is a vector
    of its own.
    """

    def __init__(self, net: Layer, rule: Optimizer | None, plans: Plans, g: Array, threads: int) -> None:
        self._net, self.rule, self._g, self._threads = net, rule, g, threads
        self.plan, self.mixes, self._moves = plans.update, plans.mixes, plans.moves
        self._by_itself = plans.landed == "g"
        self.numbers = Numbers()
        self._calls: list[list[Call]] | None = None  # for each thread
        self._jobs: list[Callable[[], object]] = []
        self._of: list[Array] = []  # φ and state
        inputs = () if self.plan is None else self.plan.inputs
        self._penalties = {name: rule.penalty(name) for name in ("weight_decay", "l1") if name in inputs}  # type: ignore[union-attr]

    @property
    def by_hand(self) -> bool:
        """Whether the rule is one of one's own, which only its `update` knows."""
        return self._by_itself and self.plan is None

    @property
    def useful_threads(self) -> int:
        """How many threads it has work for, of those allowed."""
        return len(self._starts(PIECE))

    @property
    def length(self) -> int:
        """How many calls it makes, once they are made."""
        return sum(map(len, self._calls or []))

    def __call__(self, alpha: float, t: int, pool: Pool | None) -> None:
        """What the rule does once the gradient has landed."""
        rule = self.rule
        if rule is None:
            return
        if self.by_hand:
            rule.step(self._net.phi, self._g)
            return
        if rule.clips:
            rule.clip(self._g)
        self.calls()
        self.numbers.set(alpha, t)
        run_all(self._jobs, pool)
        rule.t += 1

    def calls(self) -> list[list[Call]]:
        """The rule as calls for each thread, bound to the state as it is."""
        rule, phi = self.rule, self._net.phi
        vectors = [phi, *rule.state.values()]  # type: ignore[union-attr]
        if self._calls is None or not same_objects(vectors, self._of):
            named = {"phi": phi, "g": self._g, **state_of(rule, phi)}
            self.numbers = Numbers()
            self._calls = self._rule_on_pieces(named) if self._by_itself else self._moves_on_pieces(named)
            self._jobs = [partial(run_in_turn, [call.bind() for call in calls]) for calls in self._calls]
            self._of = [phi, *rule.state.values()]  # type: ignore[union-attr]
        return self._calls

    def _starts(self, step: int) -> list[range]:
        """Where the pieces of φ begin that each thread updates."""
        starts = range(0, self._net.phi.size, step)
        threads = self._threads if len(starts) >= LEAST_PIECES and (self._moves or self._by_itself) else 1
        return [starts[len(starts) * t // threads : len(starts) * (t + 1) // threads] for t in range(threads)]

    def _moves_on_pieces(self, vectors: dict[str, Array]) -> list[list[Call]]:
        """What a rule does whose gradient has landed: a few vectors added, piece by piece."""
        return [
            [
                Scale(vectors[y][start : start + PIECE], a, vectors[x][start : start + PIECE], 1.0, self.numbers)
                for start in starts
                for y, x, a in self._moves
            ]
            for starts in self._starts(PIECE)
        ]

    def _rule_on_pieces(self, vectors: dict[str, Array]) -> list[list[Call]]:
        """The rule on pieces of φ that stay in cache, for each thread, with an arena of its own."""
        plan, size = self.plan, self._net.phi.size
        vectors |= self._penalties
        step = size if self.mixes else PIECE
        made: list[list[Call]] = []
        for starts in self._starts(step):
            arena, calls = np.empty(plan.nbytes + ALIGNMENT, np.uint8), []  # type: ignore[union-attr]
            for start in starts:
                part = {name: vector[start : start + step] for name, vector in vectors.items()}
                length = min(step, size - start)
                calls += Bound(plan, part, arena=arena, numbers=self.numbers, length=length).calls  # type: ignore[arg-type]
            made.append(calls)
        return made


def state_of(rule: Optimizer | None, phi: Array) -> dict[str, Array]:
    """The rule's vectors by name, those too that it has no use for since a setting was changed in mid-epoch."""
    if rule is None:
        return {}
    rule.prepare(phi)
    return rule.state


def same_objects(xs: Sequence[object], ys: Sequence[object]) -> bool:
    """Whether two lists hold the very same objects."""
    return len(xs) == len(ys) and all(map(operator.is_, xs, ys))


def add_piece(left: Array, right: Array, piece: slice) -> None:
    """Add a piece of the right vector to that of the left one."""
    np.add(left[piece], right[piece], out=left[piece])


def for_pieces(size: int, function: Callable[[slice], object], pool: Pool | None) -> None:
    """Call function(piece) for the cache-sized pieces of a vector, split over the threads where that pays."""
    pieces = [slice(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]
    threads = pool.n if pool is not None and len(pieces) >= LEAST_PIECES else 1

    def work(thread: int) -> None:
        for piece in pieces[len(pieces) * thread // threads : len(pieces) * (thread + 1) // threads]:
            function(piece)

    run_all([partial(work, thread) for thread in range(threads)], pool)
