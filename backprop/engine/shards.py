"""The binary tree over the shards of a batch: who computes which shard, and in which order gradients are added.

    S shards by position in the batch     S depends on the network and the batch size only, never on the machine
    a binary tree over all S by index     a thread adds its shards like a binary counter: at most log₂ S + 1 vectors

So any number of threads gives the same bits. A vector is named by its thread and its depth on that thread's stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

Vector = tuple[int, int]  # thread, depth
Step = tuple[str, int, int]  # ("shard", s, depth) or ("add", depth, depth + 1)


@dataclass(frozen=True)
class Tree:
    """What each thread does with its shards, and how the threads' vectors are then added, level by level."""

    own: tuple[tuple[Step, ...], ...]  # by thread
    joins: tuple[tuple[tuple[Vector, Vector], ...], ...]  # by level: the right one is added to the left one
    total: Vector


@cache
def tree(S: int, threads: int) -> Tree:
    """The tree of S shards on this many threads."""
    own: list[tuple[Step, ...]] = []
    nodes: dict[tuple[int, int], Vector] = {}
    for thread in range(threads):
        steps, stack = _own(range(S * thread // threads, S * (thread + 1) // threads))
        own.append(steps)
        nodes |= {node: (thread, depth) for depth, node in enumerate(stack)}
    joins, level, count = [], 0, S
    while count > 1:
        pairs = []
        for k in range(0, count, 2):
            left, right = nodes.pop((level, k), None), nodes.pop((level, k + 1), None)
            if left is not None:
                nodes[level + 1, k // 2] = left
                pairs += [] if right is None else [(left, right)]
        joins += [tuple(pairs)] if pairs else []
        level, count = level + 1, (count + 1) // 2
    return Tree(tuple(own), tuple(joins), nodes[level, 0])


def _own(shards: range) -> tuple[tuple[Step, ...], list[tuple[int, int]]]:
    """The steps of one thread, adding like a binary counter, and the whole nodes it is left with, by (level, index)."""
    steps: list[Step] = []
    stack: list[tuple[int, int]] = []
    for s in shards:
        steps.append(("shard", s, len(stack)))
        stack.append((0, s))
        while len(stack) > 1 and stack[-2] == (stack[-1][0], stack[-1][1] - 1) and stack[-1][1] % 2:
            level, index = stack.pop()
            steps.append(("add", len(stack) - 1, len(stack)))
            stack[-1] = level + 1, index // 2
    return tuple(steps), stack
