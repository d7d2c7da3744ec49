"""Examples at the door: checked once, then copied batch by batch into the trainer's arrays."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from backprop import checks
from backprop.checks import Array
from backprop.engine.team import ALONE, Team
from backprop.losses import Loss
from backprop.sequential import Sequential

BLOCK_BYTES = 1 << 22  # data that is not an array in memory is read in blocks of about this size


class Examples:
    """Rows X (N, D), their targets and weights, checked against a network and a loss.

    X may be any array of numbers, a memory map, or any object with `shape`, `dtype` and slices (such as an HDF5 data set): it is
    read block by block and never copied whole. y may be None where X has `targets` of its own, which are then read. Raises
    TypeError or ValueError; data that does not fit changes nothing.
    """

    by_shards = False  # whether a rank of a team has the rows of its own shards only

    def __init__(self, who: str, net: Sequential, loss: Loss, X: Any, y: object, sample_weight: object = None) -> None:
        self.X = X = checks.rows(who, X, net.in_features)
        require_targets(who, X, y)
        self.n, self.dtype = X.shape[0], net.phi.dtype
        self.block = _rows_per_block(X)
        for start in range(0, self.n, self.block):
            rows = np.asarray(X[start : start + self.block])
            checks.finite(who, "X", rows, start, self.dtype)
            if not start:
                self.first = rows[:256].copy()  # for a look at them: reading what is no array is dear
        if isinstance(X, np.ndarray) and X.ndim == 2 and not X.flags.c_contiguous:
            # Once: to gather rows from columns costs twice as much in each epoch.
            self.X = np.ascontiguousarray(X, self.dtype)
        K = net.out_features or len(net.infer(np.asarray(X[:1]).T.astype(self.dtype)))
        columns = loss.from_rows(who, X.targets() if y is None else y, K, self.n)
        checks.finite(who, "y", columns.T, dtype=self.dtype)
        if columns.dtype.kind == "f":
            columns = columns.astype(self.dtype, copy=False)
        self.y = np.ascontiguousarray(columns.T)
        self.w = None
        if sample_weight is not None:
            self.w = checks.weights(who, sample_weight, self.n).astype(np.float64, copy=False)
        self._slab: tuple[int, Array] | None = None
        self._fingerprint: dict[str, Any] = {}

    def order(self, seed: int, epoch: int, batch_size: int = 1, in_order: bool = False) -> Any:
        """The rows of one epoch, whose slices are arrays: as they are, or shuffled by (seed, epoch) alone.

        What can only be sliced is shuffled in two steps, the blocks and then the rows of each, so that each block is read once.
        """
        if in_order:
            return np.arange(self.n)
        generator = np.random.default_rng([seed, epoch])
        if isinstance(self.X, np.ndarray):
            return generator.permutation(self.n)
        starts = generator.permutation(np.arange(0, self.n, self.block))
        blocks = [start + generator.permutation(min(self.block, self.n - start)) for start in starts]
        return np.concatenate(blocks)

    def weights(self, order: Any) -> Array | None:
        """The weights of all rows, if there are any."""
        return None if self.w is None else self.w[order]

    def stretch(self, batch_size: int) -> int:
        """How many rows may be asked for at once."""
        return self.n

    def ahead(self, seed: int, epoch: int, batch_size: int, in_order: bool) -> None:
        """Read what the first steps of an epoch need, where that is not in memory."""

    def some(self, most: int) -> tuple[Array, Array, Array | None]:
        """X (m, D), y and weights of at most so many examples, which are spread evenly over the data.

        Of what can only be sliced, they are the first ones, for it is read block by block.
        """
        m = min(self.n, most)
        if isinstance(self.X, np.ndarray):
            rows = np.linspace(0, self.n - 1, m).astype(int)
            X = self.X[rows]
        else:
            rows = np.arange(min(m, len(self.first)))
            X = self.first[rows]
        return X, self.y[rows], None if self.w is None else self.w[rows]

    def answers(self) -> Array:
        """Some 2,000 targets, or all, spread evenly over the data."""
        return self.y[:: max(1, self.n // 2048)]

    def disorder(self) -> str:
        """What says that the rows lie in an order that shuffling does not undo; or nothing."""
        return ""

    def whole(self) -> Examples:
        """The same examples, for measures of all of them."""
        return self

    def present(self, rows: Array, net: Sequential) -> Array:
        """The rows, those of weight 0 replaced by one that counts: an absent example may overflow on its way through the network.

        Where examples are coupled, as in BatchNorm, each has its part in the others, whatever it weighs.
        """
        if self.w is None or net.couples_examples:
            return rows
        there = self.w[rows] > 0
        return rows if there.all() else np.where(there, rows, rows[np.argmax(there)])

    def fingerprint(self) -> dict[str, Any]:
        """What makes these examples these: shapes, types, and the SHA-256 of every number, in one pass over X the first time.

        How X is read is part of it: blocks are shuffled in another way than the rows of an array.
        """
        if not self._fingerprint:
            self._fingerprint = {
                "shape of X": list(self.X.shape),
                "dtype of X": str(self.X.dtype),
                "way to read X": "at once" if isinstance(self.X, np.ndarray) else f"in blocks of {self.block} rows",
                "SHA-256 of X": sha256(self.X, self.block),
                "shape of y": list(self.y.shape),
                "dtype of y": str(self.y.dtype),
                "SHA-256 of y": sha256(self.y, self.n),
                "SHA-256 of sample_weight": "none" if self.w is None else sha256(self.w, self.n),
            }
        return self._fingerprint

    def columns(self, rows: Array) -> Array:
        """H (D, n) of these rows, in the network's type."""
        h = np.empty((len(rows), self.X.shape[1]), self.dtype)
        self.fill(rows, h, np.empty((len(rows), *self.y.shape[1:]), self.y.dtype))
        return h.T

    def __deepcopy__(self, memo: Any) -> Examples:
        return self  # nothing in it changes

    def fill(self, rows: Array, inputs: Array, y: Array) -> None:
        """Copy the given rows into the trainer's arrays, in the network's dtype."""
        X = self.X
        if not isinstance(X, np.ndarray):
            inputs[...] = self._sliced(rows)
        elif X.dtype == self.dtype and X.flags.c_contiguous:
            X.take(rows, axis=0, out=inputs, mode="clip")
        else:
            inputs[...] = X[rows]
        self.y.take(rows, axis=0, out=y, mode="clip")

    def predictions(self, net: Sequential, team: Team = ALONE) -> Array:
        """Outputs (K, N) of a network for all examples, computed block by block; each rank of a team computes some."""
        if team.size > 1:
            return self._by_turns(net, team)
        for start in range(0, self.n, self.block):
            of_block = self._outputs(net, start)
            if not start:
                f = np.empty((len(of_block), self.n), of_block.dtype)
            f[:, start : start + self.block] = of_block
        return f

    def _by_turns(self, net: Sequential, team: Team) -> Array:
        blocks = range(0, self.n, self.block)
        like = net.infer(np.asarray(self.X[:1]).T.astype(self.dtype, copy=False))
        of_rank = team.shards(len(blocks))
        mine = np.zeros((len(of_rank[team.rank]), self.block, len(like)), like.dtype)
        for of_block, block in zip(mine, of_rank[team.rank], strict=True):
            f = self._outputs(net, blocks[block]).T
            of_block[: len(f)] = f
        rows = team.all_rows(mine.reshape(len(mine), self.block * len(like)), of_rank).reshape(-1, len(like))
        return np.ascontiguousarray(rows[: self.n].T)

    def _outputs(self, net: Sequential, start: int) -> Array:
        """Those of the block that begins there."""
        rows = np.asarray(self.X[start : start + self.block])
        return net.infer(rows.T.astype(self.dtype, copy=False))

    def _sliced(self, rows: Array) -> Array:
        found = np.empty((len(rows), self.X.shape[1]), self.dtype)
        of_block = rows // self.block
        for b in dict.fromkeys(of_block.tolist()):
            slab = self._slab  # one read: another shard's thread may put a block of its own there meanwhile
            if slab is None or slab[0] != b:
                slab = self._slab = b, np.asarray(self.X[b * self.block : (b + 1) * self.block])
            mine = of_block == b
            found[mine] = slab[1][rows[mine] - b * self.block]
        return found


def knows_target(X: Any) -> bool:
    """Whether these are rows that bring their targets along, as `ParquetRows(…, target=…)` do."""
    return isinstance(getattr(X, "target", None), str) and callable(getattr(X, "targets", None))


def require_targets(who: str, X: Any, y: object) -> None:
    """Refuse rows without targets, and those with two. Raises TypeError, ValueError."""
    if y is None and not knows_target(X):
        advice = "Rows that bring their own are ParquetRows(…, target=…)."
        raise TypeError(checks.message(who, "y: numbers, a target for each row of X", "None", advice))
    if y is not None and knows_target(X):
        raise ValueError(checks.message(who, f"either y or rows that bring their target {X.target!r}", "both"))


def sha256(array: Any, block: int) -> str:
    """SHA-256 of the rows of an array, in order, whatever its layout in memory."""
    digest = hashlib.sha256()
    for start in range(0, array.shape[0], block):
        digest.update(np.ascontiguousarray(array[start : start + block]))
    return digest.hexdigest()


def _rows_per_block(X: Any) -> int:
    """About BLOCK_BYTES; where X is stored in chunks (as in HDF5), whole chunks, so that an epoch reads each of them once."""
    rows = max(1, BLOCK_BYTES // max(1, X.shape[1] * X.dtype.itemsize))
    chunk = (getattr(X, "chunks", None) or [1])[0]
    return -(-rows // chunk) * chunk if isinstance(chunk, int) else rows
