"""A training step: its shards, and what one batch size needs of memory.

With S = 1 the gradient lands where the rule needs it: in φ, in the velocity, or in a vector of its own; else each shard has a
vector of its own, and they are added up. The order of a step: L first; if it is finite, the way back, statistics, φ and state in
one closing stretch.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from backprop import checks
from backprop.around.boundary import is_traced
from backprop.around.nesting import draws, inside, reseeded, views
from backprop.checks import Array
from backprop.engine.calls import Call, Copy
from backprop.engine.live import Generators, Live, NotFinite
from backprop.engine.plan import Plan
from backprop.engine.planning import Plans, Shape, make_plans, plans_for, rule_plans
from backprop.engine.play import Bound, part_at
from backprop.engine.shards import tree
from backprop.engine.statistics import count
from backprop.engine.team import ALONE, Enough, Team
from backprop.engine.threads import Pool, run_all, run_in_turn
from backprop.engine.twins import Missing, same_setting
from backprop.engine.update import Update, add_piece, for_pieces, state_of
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.optimizers import Optimizer

LEAST_FLOPS = 2e8  # a shard with less work costs more to hand over than it saves
MOST_SIZES = 4  # batch sizes whose memory is kept


def automatic_shards(net: Layer, batch_size: int) -> int:
    """S for a network and a batch size: 2 from 512 examples, 4 from 2,048, … where a shard is worth a thread.

    Layers that couple the examples of a batch keep S = 1.
    """
    if net.couples_examples or batch_size < 512:
        return 1
    S: int = 2 ** int(math.log2(math.sqrt(batch_size / 128)))
    while S > 1 and 6.0 * net.size * batch_size / S < LEAST_FLOPS:
        S //= 2
    return S


def _places(layer: Layer, path: str = "", place: tuple[int, ...] = ()) -> dict[str, tuple[int, ...]]:
    """Generators of traced layers by the name they have in a list, with the place of their layer."""
    found = {f"generator {path}{k}": place for k, v in vars(layer).items() if isinstance(v, np.random.Generator)}
    for i, (key, child) in enumerate(layer.children.items()):
        found |= _places(child, f"{path}{key}.", (*place, i))
    return found


def _opaque(layer: Layer, place: tuple[int, ...] = ()) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    """The outermost layers of one's own, with their places."""
    if not is_traced(layer):
        yield layer, place
        return
    for i, child in enumerate(layer.children.values()):
        yield from _opaque(child, (*place, i))


def _outermost(layer: Layer) -> Iterator[Layer]:
    """A layer and those inside it, but none inside a layer of one's own."""
    yield layer
    for child in layer.children.values() if is_traced(layer) else ():
        yield from _outermost(child)


class Sources(dict[str, Array]):
    """Arrays by name; those that layers keep as attributes are looked up when they are asked for."""

    def __init__(self, arrays: dict[str, Array], kept: Callable[[str], Array]) -> None:
        super().__init__(arrays)
        self.kept = kept

    def __missing__(self, name: str) -> Array:
        return self.kept(name)


class Memory:
    """What one thread works with: an arena for all its shards, and the arrays that a batch is copied to."""

    def __init__(self) -> None:
        self.arena = np.empty(0, np.uint8)
        self.inputs: dict[Shape, dict[str, Array]] = {}

    def arrays(self, shape: Shape) -> dict[str, Array]:
        """X (n, D), y in rows and the shares of a shard of this shape."""
        if shape not in self.inputs:
            kind, y = shape.y
            made = {"X": np.empty((shape.n, shape.D), shape.dtype), "y rows": np.empty(kind[::-1], y)}
            made["share"] = np.empty((shape.n,) if shape.weighted else (), shape.dtype)
            made["y"] = made["y rows"].T
            self.inputs[shape] = made
        return self.inputs[shape]

    def room(self, nbytes: int) -> Array:
        """An arena of at least this size."""
        if self.arena.nbytes < nbytes + 64:
            self.arena = np.empty(nbytes + 64, np.uint8)
        return self.arena


class Batch:
    """Steps of n examples of one kind: bound plans, in the memory of each thread."""

    def __init__(
        self,
        net: Layer,
        loss: Loss,
        rule: Optimizer | None,
        shape: Shape,
        S: int,
        threads: int,
        land: bool,
        team: Team = ALONE,
    ) -> None:
        self.net, self.loss, self.rule, self.shape, self.team = net, loss, rule, shape, team
        self.size = net.size
        self._cut(S)
        self.land = land and self.whole
        self.now = (0.0, 0)  # α and t of the step
        self._pool: Pool | None = None
        self.is_opaque = not is_traced(loss) or not all(map(is_traced, _outermost(net)))
        sizes = sorted({end - start for start, end in pairwise(self.bounds)})
        # What a layer of one's own returns is known when it has been called: its plans are made in the first step.
        self.plans = {} if self.is_opaque else {n: self._plans(n) for n in sizes}
        main = next(iter(self.plans.values()), None) or Plans(None, "g", *rule_plans(rule, net.size, shape.dtype))
        self.landed = main.landed
        self._have_seen()
        self._layers, self._phi = [id(layer) for layer in inside(net)], net.phi
        # A layer of one's own sees shard after shard, and so do statistics that move with the passes.
        alone = self.is_opaque or self._together
        self.threads, self.cores = 1 if alone else max(1, min(threads, len(self.mine))), threads
        self.tree = tree(self.S, self.threads, self.mine)
        self.memories = [Memory() for _ in range(self.threads)]
        self.g = np.empty(self.size if self.landed == "g" else 0, net.phi.dtype)
        self._bound: dict[tuple[int, int, int], Bound] = {}
        self._made: dict[tuple[int, int], Array] = {(0, 0): self.g}
        self._losses = [0.0] * self.S
        self._random = [(layer, where) for layer, where in _opaque(net) if draws(layer)]
        self._noted: list[tuple[Any, str, Any]] = []
        self._keeps: list[tuple[str, Bound]] = []
        self.committing, self.on_commit = False, _nothing
        self._landed_in: Array | None = None  # the array of the state that gradients land in
        self.update = Update(net, rule, main, self.g, threads)

    def _cut(self, S: int) -> None:
        """Which examples are which shard, and whose."""
        n, team = self.shape.n, self.team
        self.bounds = np.linspace(0, n, min(S, n) + 1).astype(int).tolist()
        # Where S is 1 a batch is played by every rank, as a whole: the last one of an epoch, if it is small.
        self.whole, self.shared = S == 1, S > 1 and team.size > 1
        of_rank = team.shards(S) if self.shared else (range(S),)
        # Of a small batch each rank has those of its shards that there are: whoever reads their rows has no others.
        self.of_rank = tuple(range(min(each.start, self.S), min(each.stop, self.S)) for each in of_rank)
        self.mine = self.of_rank[team.rank if self.shared else 0]

    def _have_seen(self) -> None:
        """Room for what each shard sees for running statistics. Raises ValueError where a rank could not tell the others."""
        apart, buffers = [plans.statistics for plans in self.plans.values()], self.net.buffers
        self.moves_buffers = bool(buffers) and not self.is_opaque and self.whole
        spared = not self.whole or self.is_opaque
        self.spared = {name: buffer.copy() for name, buffer in buffers.items()} if spared else {}
        alone = bool(buffers) and (self.is_opaque or None in apart)
        self._together = alone and not self.whole  # statistics move with the passes
        if self._together and self.shared:
            expected = "running statistics that can be moved after the passes"
            got = "a layer or loss of one's own beside them, or passes that read them"
            advice = "What says `traced = True` of its passes can be beside them; see assert_layer and assert_loss."
            raise ValueError(checks.message("Trainer with a team", expected, got, advice))
        self.seen = np.zeros((self.S, max((each.width for each in apart if each), default=0)))
        self._moving: list[Callable[[], object]] = []  # of statistics

    @property
    def S(self) -> int:
        """Number of shards."""
        return len(self.bounds) - 1

    def was_played(self) -> bool:
        """Whether all of it is bound to the arrays that there are."""
        self._look_at_state()
        shards = [(thread, *each) for thread, own in enumerate(self.tree.own) for each in own if each[0] == "shard"]
        return all(
            (self.bounds[s + 1] - self.bounds[s], thread, depth) in self._bound for thread, _, s, depth in shards
        )

    def _look_at_state(self) -> None:
        """Bind anew where somebody has put another array in the place of the one that gradients land in."""
        if self._landed_in is not None and self.rule.state.get(self.landed) is not self._landed_in:  # type: ignore[union-attr]
            self._bound.clear()
            self._keeps.clear()

    @property
    def useful_threads(self) -> int:
        """How many threads a step has work for, of those allowed."""
        parts = 1 if self.is_opaque else max((plans.passes.parts for plans in self.plans.values()), default=1)
        return max(min(self.cores, self.threads * parts), self.update.useful_threads)

    @property
    def length(self) -> int:
        """How many calls a step makes, about."""
        return sum(len(bound.calls) for bound in self._bound.values()) + self.update.length

    @property
    def draws_by_itself(self) -> bool:
        """Whether a layer of one's own draws random numbers."""
        return bool(self._random)

    def bound_now(self) -> list[Bound]:
        """The bound plans that a step plays."""
        return list(self._bound.values())

    @property
    def mean(self) -> float:
        """What each example counts in L, without weights."""
        return 1 / self.shape.n if self.loss.reduction == "mean" else 1.0

    def _plans(self, n: int) -> Plans:
        return plans_for(self.net, self.loss, self.rule, self.shape.of(n), self.land, apart=not self.whole)

    @property
    def passes(self) -> Plan:
        """The plan of both passes, to be looked at."""
        return (next(iter(self.plans.values()), None) or self._plans(self.bounds[1])).passes

    def is_current(self) -> bool:
        """Whether nothing that the plans were made for has changed: layers, settings, and arrays that layers keep."""
        if self._layers != list(map(id, inside(self.net))) or self._phi is not self.net.phi:
            return False
        noted = self._noted or self._note()
        if not all(same_setting(getattr(part, name, Missing), value) for part, name, value in noted):
            return False
        return all(self._kept_array(name) is bound.sources[name] for name, bound in self._keeps)

    def _note(self) -> list[tuple[Any, str, Any]]:
        """The settings of all plans, with the parts that have them."""
        for plans in self.plans.values():
            for (path, name), value in plans.settings.items():
                part = self.rule if path == "rule." else part_at(self.net, self.loss, path)
                self._noted.append((part, name, value))
        return self._noted

    def run(
        self,
        fill: Callable[[slice, dict[str, Array]], None],
        alpha: float,
        t: int,
        key: tuple[int, ...],
        pool: Pool | None,
    ) -> float:
        """Both passes over the batch: L, with the gradient landed. `fill` writes examples of the batch into arrays.

        Where L is not finite, nothing has changed.
        """
        self.now = alpha, t
        self._pool = pool if self.threads == 1 else None  # else the shards have its threads
        self._look_at_state()
        for name, buffer in (self.net.buffers if self.spared else {}).items():
            np.copyto(self.spared[name], buffer)
        if self.whole:
            L = self._shard(0, 0, 0, fill, key)
            if not math.isfinite(L):
                self.restore()
            return L
        run_all([partial(self._thread, thread, fill, key) for thread in range(self.threads)], pool)
        if self.shared:
            self.tell_losses(losses := np.array(self._losses))
            self._losses = losses.tolist()
        L = self._losses[0]
        for loss in self._losses[1:]:  # not `sum`, which rounds in other ways from Python 3.12 on
            L += loss
        if math.isfinite(L):
            self._join(pool)
            self._moving = self._moving or [call.bind() for call in self.statistics()]
            run_in_turn(self._moving)
        else:
            self.restore()
        return L

    def commit(self) -> None:
        """φ, state and statistics are written from here on."""
        self.committing = True
        self.on_commit()

    def restore(self) -> None:
        """Put running statistics back as they were before the batch."""
        for name, before in self.spared.items():
            np.copyto(self.net.buffers[name], before)

    def _thread(self, thread: int, fill: Any, key: tuple[int, ...]) -> None:
        """Run the shards of one thread, and add their gradients."""
        for what, i, depth in self.tree.own[thread]:
            if what == "shard":
                self._losses[i] = self._shard(i, thread, depth, fill, key)
            else:
                left = self.vector(thread, i)
                np.add(left, self.vector(thread, depth), out=left)

    def _join(self, pool: Pool | None) -> None:
        """Add what the threads have; the sum ends in `g`."""
        for level in self.tree.joins:
            for left, right in level:
                for_pieces(self.g.size, partial(add_piece, self.vector(*left), self.vector(*right)), pool)
        if self.shared:
            self.tell_gradients()

    def own(self, rows: Array) -> Array:
        """Of the rows of a batch those that this rank computes with."""
        return rows[self.bounds[self.mine.start] : self.bounds[self.mine.stop]]

    def tell_losses(self, losses: Array) -> None:
        """Exchange what is known of the shards before anything changes: their losses (S,), and what they have seen.

        Raises Enough where training is to end with the step before.
        """
        if self.team.stops(()):
            raise Enough
        self.team.losses(losses, self.of_rank)
        if self.seen.size:
            self.seen[:] = self.team.all_rows(self.seen[self.mine.start : self.mine.stop], self.of_rank)

    def tell_gradients(self) -> None:
        """Exchange what the ranks have of the tree; `g` is the sum over all shards."""
        self.team.add({node: self.vector(*place) for node, place in self.tree.nodes.items()}, self.of_rank, self.g)

    def vector(self, thread: int, depth: int) -> Array:
        """What a gradient of a shard lands in, and is added up in; that of the first thread at the bottom is `g`."""
        if (thread, depth) not in self._made:
            self._made[thread, depth] = np.empty_like(self.g)
        return self._made[thread, depth]

    def _shard(self, s: int, thread: int, depth: int, fill: Any, key: tuple[int, ...]) -> float:
        """Both passes over one shard; a part of L. What layers of one's own draw is that of the step and the shard, too."""
        if not self._random:
            return self._passes(s, thread, depth, fill, key)
        with self.reseeded((*key, s)):
            return self._passes(s, thread, depth, fill, key)

    @contextmanager
    def reseeded(self, key: tuple[int, ...]) -> Iterator[None]:
        """Layers of one's own that draw, started from a key of the step and the shard."""
        with ExitStack() as stack:
            for layer, where in self._random:
                stack.enter_context(reseeded(layer, *key, *where))
            yield

    def bound(self, s: int, thread: int, depth: int) -> Bound:
        """The plan of a shard in the memory of a thread. Raises KeyError before it has been played there."""
        return self._bound[self.bounds[s + 1] - self.bounds[s], thread, depth]

    def _passes(self, s: int, thread: int, depth: int, fill: Any, key: tuple[int, ...]) -> float:
        mine = slice(self.bounds[s], self.bounds[s + 1])
        place = mine.stop - mine.start, thread, depth
        bound = self._bound.get(place)
        if bound is None:
            try:
                bound = self._bind(*place, partial(fill, mine), (*key, s))
            except NotFinite as known:
                return known.L
        fill(mine, bound.sources)
        if bound.numbers.numbers:
            bound.numbers.set(*self.now)
        if bound.generators.places:
            bound.generators.key = (*key, s)
        bound.helpers[0] = self._pool
        run_in_turn(bound.first)
        L = float(bound.L)  # type: ignore[arg-type]
        if math.isfinite(L):
            if self.landed != "g" or self.moves_buffers:
                self.commit()
            run_in_turn(bound.rest)
            for copy_ in self.watching(s, bound) if bound.results else ():
                copy_.bind()()
        return L

    def watching(self, s: int, bound: Bound) -> list[Call]:
        """Calls that keep what a shard has seen, before the next one comes to this memory."""
        return [Copy(place, array) for place, array in zip(self._places_of(s), bound.results, strict=True)]

    def _places_of(self, s: int) -> list[Array]:
        """What a shard has seen, in `seen`."""
        statistics, places, at = self.plans[self.bounds[s + 1] - self.bounds[s]].statistics, [], 0
        for op in statistics.seen if statistics is not None else ():
            places.append(self.seen[s, at : at + count(op)].reshape(op.shape))
            at += count(op)
        return places

    def statistics(self) -> list[Call]:
        """Calls that move running statistics by what all shards have seen, in their order."""
        calls: list[Call] = []
        for s, (start, end) in enumerate(pairwise(self.bounds)) if self.seen.size else ():
            statistics = self.plans[end - start].statistics
            inputs = {f"seen {i}": np.empty(op.shape, op.dtype) for i, op in enumerate(statistics.seen)}  # type: ignore[union-attr]
            calls += [Copy(array, place) for array, place in zip(inputs.values(), self._places_of(s), strict=True)]
            bound = self._bound_to_kept(statistics.plan, self.net.buffers | inputs)  # type: ignore[union-attr]
            calls += bound.calls
        return calls

    def _bind(
        self, n: int, thread: int, depth: int, fill: Callable[[dict[str, Array]], None], key: tuple[int, ...]
    ) -> Bound:
        """The plan of a shard of n examples in the memory of a thread, made with the numbers of this very step if need be."""
        memory, part = self.memories[thread], partial(part_at, self.net, self.loss)
        inputs = memory.arrays(self.shape.of(n))
        results: dict[Any, Any] = {}
        if n not in self.plans:
            self.plans[n], results = self._live_plans(n, inputs, fill, key)
        plans = self.plans[n]
        sources = inputs | self._arrays(plans, self.vector(thread, depth))
        bound = Bound(
            plans.passes,
            sources,
            arena=memory.room(plans.passes.nbytes),
            part=part,
            exact=self.is_opaque,
            results=results,
        )
        self._bound[n, thread, depth] = bound
        self._keeps += [(name, bound) for name in plans.passes.inputs if ":" in name]
        self._noted = []
        return bound

    def _live_plans(
        self, n: int, inputs: dict[str, Array], fill: Any, key: tuple[int, ...]
    ) -> tuple[Plans, dict[Any, Any]]:
        """Plans with layers of one's own, whose passes are called once, and what they returned."""
        fill(inputs)
        places = _places(self.net)
        generators = Generators(places)
        generators.key = key
        arrays = inputs | self.net.parameters | {name: buffer.copy() for name, buffer in self.net.buffers.items()}
        live = Live(Sources(arrays, self._kept_array), generators)
        plans = make_plans(self.net, self.loss, self.rule, self.shape.of(n), False, True, False, live)
        return plans, live.results

    def _arrays(self, plans: Plans, g: Array) -> dict[str, Array]:
        """Parameters, buffers, the vector that gradients land in, and arrays that layers keep as attributes, by name."""
        arrays = self.net.parameters | self.net.buffers
        if plans.landed != "phi":
            vector = g if plans.landed == "g" else state_of(self.rule, self.net.phi)[plans.landed]
            self._landed_in = None if plans.landed == "g" else vector
            arrays |= {f"{plans.landed} {name}": view for name, view in views(self.net, vector).items()}
        return arrays | {name: self._kept_array(name) for name in plans.passes.inputs if ":" in name}

    def _bound_to_kept(self, plan: Plan, sources: dict[str, Array]) -> Bound:
        """A plan bound to these arrays, and to those that layers keep as attributes."""
        kept = {name: self._kept_array(name) for name in plan.inputs if ":" in name}
        bound = Bound(plan, sources | kept)
        self._keeps += [(name, bound) for name in kept]
        return bound

    def _kept_array(self, name: str) -> Array:
        path, _, attribute = name.rpartition(":")
        return getattr(part_at(self.net, self.loss, path), attribute)


def _nothing() -> None:
    """Where nobody waits for it."""


class Engine:
    """Batches of one network, loss and rule: what each batch size needs, kept for the sizes that were used last."""

    def __init__(self, net: Layer, loss: Loss, rule: Optimizer | None, team: Team = ALONE) -> None:
        self.net, self.loss, self.rule, self.team = net, loss, rule, team
        self._batches: OrderedDict[Any, Batch] = OrderedDict()

    def __deepcopy__(self, memo: Any) -> Engine:
        """An engine without batches, for the copies of its parts: those are made anew where they are needed."""
        net, loss, rule = (copy.deepcopy(part, memo) for part in (self.net, self.loss, self.rule))
        return type(self)(net, loss, rule, self.team)  # type: ignore[arg-type]

    def batch(self, shape: Shape, shards: int | str, threads: int, *, land: bool = True) -> Batch:
        """What a batch of this shape needs, for the settings as they are now."""
        S = automatic_shards(self.net, shape.n) if isinstance(shards, str) else shards
        clips = self.rule is not None and self.rule.clips
        key = shape, S, threads, land, clips
        batch = self._batches.get(key)
        if batch is None or not batch.is_current():
            self._batches.pop(key, None)
            while len(self._batches) >= MOST_SIZES:
                self._batches.popitem(last=False)
            batch = self._batches[key] = Batch(self.net, self.loss, self.rule, shape, S, threads, land, self.team)
        self._batches.move_to_end(key)
        return batch
