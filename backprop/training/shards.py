"""One training step: a batch cut into logical shards, run on replicas, its gradients landed and added.

    S shards by position in the batch      S depends on the network and the batch size only, never on the machine
    G = min(S, 4) groups of shards         within a group each shard's gradient lands on top of the one before it
    sum over groups in a fixed binary tree

Whatever thread runs a group, its numbers are the same, so any number of threads gives the same bits. With S = 1 the gradient
lands straight in the optimizer's target and is never written anywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from backprop.blas import Landing
from backprop.checks import Array
from backprop.layers import Layer
from backprop.losses import Loss
from backprop.optimizers import PIECE
from backprop.sequential import Sequential
from backprop.training.data import Examples
from backprop.training.tape import Recording, Tape, TapedLanding
from backprop.training.threads import Pool

GROUPS = 4  # gradients held at the same time; also the most threads one step can use
LEAST_PIECES = 3  # below that, updating φ on one thread is quicker than handing half of it over
LEAST_FLOPS = 2e8  # a shard with less work costs more to hand over than it saves


def automatic_shards(net: Sequential, batch_size: int) -> int:
    """S for a network and a batch size: 2 from 512 examples, 4 from 2,048, … where a shard is worth a thread.

    Layers that couple the examples of a batch keep S = 1.
    """
    if net.couples_examples or batch_size < 512:
        return 1
    S: int = 2 ** int(math.log2(math.sqrt(batch_size / 128)))
    while S > 1 and 6.0 * net.size * batch_size / S < LEAST_FLOPS:
        S //= 2
    return S


class Memory:
    """What one thread works with: a replica and the arrays a batch is copied to.

    A replica of this replica shares its arrays, so a thread has one set of activations, however many shards it runs.
    """

    def __init__(self, net: Sequential, loss: Loss) -> None:
        self.net, self.loss = net.replica(), loss.replica()
        self._inputs: dict[int, tuple[Array, Array, Array, Array | None]] = {}

    def inputs(self, examples: Examples, n: int) -> tuple[Array, Array, Array, Array | None]:
        """For n examples: the array to fill, h (D, n) as a view of it, y and the weights."""
        if n not in self._inputs:
            y = np.empty((n, *examples.y.shape[1:]), examples.y.dtype)
            w = None if examples.w is None else np.empty(n, examples.dtype)
            self._inputs[n] = (*examples.inputs(n), y, w)
        return self._inputs[n]


class Shard:
    """The tape of one pass over n examples in a thread's memory."""

    def __init__(self, memory: Memory, examples: Examples, n: int, divisor: float) -> None:
        self.memory, self.divisor = memory, divisor
        self.inputs, self.h, self.y, self.w = memory.inputs(examples, n)
        self.tape: Tape | None = None
        self.target: Array | None = None  # what the tape's backward pass lands in
        self.setting = (1.0, 0.0)

    def run(self, land: Callable[[], Landing], key: tuple[int, ...] | None) -> float:
        """Forward and backward; returns this shard's part of L.

        Only when L is finite is `land` asked where the gradient goes, and a backward pass made: NaN never lands. `key` starts the
        randomness of layers that have some.
        """
        recording = self.tape is None
        if self.tape is None:
            net, loss = self.memory.net.replica(), self.memory.loss.replica()
            net.leave_out_the_data()
            self.tape, self.net = Tape(), net
            self.landings = {name: TapedLanding(None, tape=self.tape) for name in net.parameters}
            net.land_in(dict(self.landings))
            self.pass_ = Recording(net, loss, self.tape)
        if key is not None:
            self.net.reseed(*key)
        if recording:
            self.total = self.pass_.forward(self.h, self.y.T, self.w, self.divisor)
        else:
            self.tape.play_forward()
        L = float(self.total[0]) / self.divisor
        if math.isfinite(L):
            self._backward(land())
        elif recording:
            self.tape = None  # half a recording is none
        return L

    def _backward(self, to: Landing) -> None:
        if to.target is None or self.tape is None:
            raise ValueError("a step needs a landing with a target")
        if (to.scale, to.keep) != self.setting:
            self.setting = to.scale, to.keep
            for landing in self.landings.values():
                landing.scale, landing.keep = self.setting
        if self.target is to.target:
            self.tape.play_backward()
            return
        del self.tape.calls[self.tape.turn :]
        self.target = to.target
        for name, view in self.net.views(to.target).items():
            self.landings[name].target = view
        self.pass_.backward()


class Step:
    """All that one batch size needs: shards, groups, and the memory of each thread."""

    def __init__(self, net: Sequential, loss: Loss, examples: Examples, n: int, S: int, threads: int) -> None:
        self.n, self.net, self.loss = n, net, loss
        self.bounds = np.linspace(0, n, min(S, n) + 1).astype(int).tolist()
        self.random = any(type(leaf).reseed is not Layer.reseed for leaf in net.leaves())
        self._weights = None if examples.w is None else np.empty(n)
        self.divisor = 1.0 if loss.reduction == "sum" or self._weights is not None else float(n)
        self.groups = min(len(self.bounds) - 1, GROUPS)
        if net.buffers:
            threads = 1  # each shard moves the running statistics: in their order, or the bits are those of a race
        self._memory = [Memory(net, loss) for _ in range(min(threads, self.groups))]
        self._shards: dict[tuple[int, int], Shard] = {}
        self._gradients = list(np.empty((self.groups if self.S > 1 else 0, net.size), net.phi.dtype))

    @property
    def S(self) -> int:
        """Number of shards."""
        return len(self.bounds) - 1

    @property
    def buffer(self) -> Array:
        """A vector (P,) for a gradient that may not land anywhere else yet; with S > 1, the one `run` fills."""
        if not self._gradients:
            self._gradients = [np.empty(self.net.size, self.net.phi.dtype)]
        return self._gradients[0]

    def run(
        self, examples: Examples, rows: Array, key: tuple[int, ...], land: Callable[[], Landing], pool: Pool | None
    ) -> float:
        """Run the batch of these rows and return L. With S = 1 the gradient lands in `land()`, else it is left in `buffer`.

        `key` starts the randomness of layers that have some. Where L is not finite, no gradient is left anywhere.
        """
        w = self._weights
        if w is not None and examples.w is not None:
            examples.w.take(rows, out=w, mode="clip")
            if self.loss.reduction == "mean":
                w /= w.sum()
        if self.S == 1:
            return self._run(0, 0, examples, rows, w, key, land)
        losses = [0.0] * self.S

        def work(thread: int) -> None:
            for group in range(thread, self.groups, threads):
                first, end = self.S * group // self.groups, self.S * (group + 1) // self.groups
                for s in range(first, end):
                    onto = partial(Landing, self._gradients[group], 1.0, float(s > first))
                    losses[s] = self._run(s, group, examples, rows, w, key, onto)

        threads = len(self._memory)
        run_all([partial(work, thread) for thread in range(threads)], pool)
        L = sum(losses)
        if math.isfinite(L):
            for_pieces(self.net.size, self._add, pool)
        return L

    def _run(
        self,
        s: int,
        group: int,
        examples: Examples,
        rows: Array,
        w: Array | None,
        key: tuple[int, ...],
        land: Callable[[], Landing],
    ) -> float:
        mine = slice(self.bounds[s], self.bounds[s + 1])
        n = mine.stop - mine.start
        shard = self._shards.get((group, n))
        if shard is None:
            memory = self._memory[group % len(self._memory)]
            shard = self._shards[group, n] = Shard(memory, examples, n, self.divisor)
        examples.fill(rows[mine], shard.inputs, shard.y)
        if w is not None and shard.w is not None:
            shard.w[...] = w[mine]
        return shard.run(land, (*key, s) if self.random else None)

    def _add(self, piece: slice) -> None:
        """Add the groups' gradients in a binary tree; the sum ends in the first."""
        parts = [gradient[piece] for gradient in self._gradients]
        while len(parts) > 1:
            pairs = list(zip(parts[::2], parts[1::2], strict=False))
            parts = [np.add(a, b, out=a) for a, b in pairs] + parts[2 * len(pairs) :]


def run_all(jobs: list[Callable[[], object]], pool: Pool | None) -> None:
    """Run the jobs on the pool's threads, or one after another."""
    if pool is not None and len(jobs) > 1:
        pool.run(jobs)
    else:
        for job in jobs:
            job()


def for_pieces(size: int, function: Callable[[slice], object], pool: Pool | None) -> None:
    """Call function(piece) for the cache-sized pieces of a vector, split over the threads where that pays."""
    if size <= PIECE:
        function(slice(0, size))
        return
    pieces = [slice(start, start + PIECE) for start in range(0, size, PIECE)]
    threads = pool.n if pool is not None and len(pieces) >= LEAST_PIECES else 1

    def work(thread: int) -> None:
        for piece in pieces[len(pieces) * thread // threads : len(pieces) * (thread + 1) // threads]:
            function(piece)

    run_all([partial(work, thread) for thread in range(threads)], pool)
