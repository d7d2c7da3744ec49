"""Running statistics of a batch in shards: a pass keeps what it has seen, and the statistics then move shard after shard.

    seen     the operations of a pass that do not depend on the statistics, and that what becomes of these reads
    plan     the rest of them: the statistics after the shard, from those before it and what it has seen

So shards may be computed in any order, by any thread or rank. For BatchNorm, mean and variance are seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backprop.engine.operations import Op
from backprop.engine.plan import Plan, make, needed


@dataclass(eq=False)
class Statistics:
    """What a pass sees, and the plan that moves statistics by it, in which that is called "seen 0", "seen 1", …"""

    seen: tuple[Op, ...]
    plan: Plan

    @property
    def width(self) -> int:
        """Numbers that are seen."""
        return sum(count(op) for op in self.seen)


def count(op: Op) -> int:
    """Entries of an output."""
    return op.nbytes // op.dtype.itemsize


def statistics(writes: Mapping[Op, Op], used: Iterable[Op]) -> Statistics | None:
    """What `writes`, from statistics to what becomes of them, is apart from the pass; None where what is `used` reads them."""
    order, moved = needed(writes.values()), set(writes)
    for op in order:
        if moved.intersection(op.ops):
            moved.add(op)
    if moved.intersection(needed(used)) or any(op.is_effect for op in order if op in moved):
        return None
    seen: dict[Op, Op] = {}
    copies: dict[Op, Op] = {place: place for place in writes}

    def apart(x: Any) -> Any:
        if not isinstance(x, Op):
            return x
        if x not in moved:
            return seen.setdefault(x, Op(0, "input", f"seen {len(seen)}", (), {}, x.shape, x.dtype))
        return copies[x]

    for op in order:
        if op in moved:
            copies[op] = replace(op, inputs=tuple(map(apart, op.inputs)))
    after = {place: apart(value) for place, value in writes.items()}
    return Statistics(tuple(seen), make(None, [], after))
