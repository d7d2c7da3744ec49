"""The binary tree over the shards of a batch: who computes which shard, and in which order gradients are added.

    S shards by position in the batch     S depends on the network and the batch size only, never on the machine
    a binary tree over all S by index     node (level, k) is the sum of the shards k 2ˡ … (k + 1) 2ˡ − 1, of those there are
    a thread, or a rank of a team         adds its contiguous shards like a binary counter, and hands on whole nodes

So any number of threads and ranks gives the same bits. A vector is named by its thread and its depth on that thread's stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

Vector = tuple[int, int]  # thread, depth
Step = tuple[str, int, int]  # ("shard", s, depth) or ("add", depth, depth + 1)
Node = tuple[int, int]  # level, index
Place = TypeVar("Place")
Joins = tuple[tuple[tuple[Place, Place], ...], ...]  # by level: the right one is added to the left one


@dataclass(frozen=True)
class Tree:
    """What each thread does with its shards, how the threads' vectors are then added, and the whole nodes that are left.

    Of all shards that is one, the sum of the batch.
    """

    own: tuple[tuple[Step, ...], ...]  # by thread
    joins: Joins[Vector]
    nodes: Mapping[Node, Vector]


@cache
def tree(S: int, threads: int, shards: range | None = None) -> Tree:
    """The tree of S shards, or of some neighbors among them, on this many threads."""
    shards = range(S) if shards is None else shards
    own: list[tuple[Step, ...]] = []
    nodes: dict[Node, Vector] = {}
    for thread in range(threads):
        steps, stack = _own(part(shards, thread, threads))
        own.append(steps)
        nodes |= {node: (thread, depth) for depth, node in enumerate(stack)}
    joins, nodes = joined(nodes, S)
    return Tree(tuple(own), joins, nodes)


def part(shards: range, i: int, parts: int) -> range:
    """Those of the i-th of so many threads or ranks."""
    return shards[len(shards) * i // parts : len(shards) * (i + 1) // parts]


def joined(nodes: Mapping[Node, Place], S: int) -> tuple[Joins[Place], dict[Node, Place]]:
    """Which of these nodes of the tree of S shards are added to which, and the largest nodes that this gives."""
    nodes, joins, level, count = dict(nodes), [], 0, S
    while count > 1:
        pairs = []
        for k in range(0, count, 2):
            if (level, k) in nodes and ((level, k + 1) in nodes or k + 1 == count):
                left = nodes[level + 1, k // 2] = nodes.pop((level, k))
                pairs += [(left, nodes.pop((level, k + 1)))] if k + 1 < count else []
        joins += [tuple(pairs)] if pairs else []
        level, count = level + 1, (count + 1) // 2
    return tuple(joins), nodes


def _own(shards: range) -> tuple[tuple[Step, ...], list[Node]]:
    """The steps of one thread, adding like a binary counter, and the whole nodes it is left with."""
    steps: list[Step] = []
    stack: list[Node] = []
    for s in shards:
        steps.append(("shard", s, len(stack)))
        stack.append((0, s))
        while len(stack) > 1 and stack[-2] == (stack[-1][0], stack[-1][1] - 1) and stack[-1][1] % 2:
            level, index = stack.pop()
            steps.append(("add", len(stack) - 1, len(stack)))
            stack[-1] = level + 1, index // 2
    return tuple(steps), stack
