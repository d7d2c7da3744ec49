"""The order of rows from disk: an epoch is read at a few places at once, in windows that are shuffled. Each row comes once.

    line      the row groups, in an order by (seed, epoch), one after another
    streams   the line cut into S: shard s of every batch takes the next rows of stream s
    lanes     each stream cut into equal parts, so that all streams together have at least PLACES of them
    window    so many rows of each lane of a stream, shuffled together by (seed, epoch, s, number of the window)

S is the trainer's `shards`, or 1 where it may choose them. A rank of a team reads only the streams of its own shards; of the
others it knows which rows come when, for the weights that were handed in. Nothing
has length N: places are made up when they are asked for, and what was read of a row group that is larger than its part of a
window waits in a temporary file.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Any, Protocol

import numpy as np

from backprop.checks import Array

PLACES = 16  # at which an epoch is read at least: docs/train/tables.md has what fewer and more of them give


class Blocks(Protocol):
    """What row groups are read from: see `rows.Source`."""

    shape: tuple[int, int]
    starts: Array

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, slice | None, Array]]:
        """Rows as they are decoded."""


class Pool(Protocol):
    """Where the rows of all windows are, each at a place."""

    source: Any
    n: int

    def room(self, places: int) -> None:
        """Have so many places."""

    def move(self, start: int, stop: int, to: int) -> None:
        """Copy rows from places to others before them."""

    def name(self, places: Array, first_row: int) -> None:
        """Hear which rows, beginning with this one, belong to places."""

    def put(self, places: Array, first_row: int, X: Array, y: Array | None) -> None:
        """Write rows, which begin with this one, to places."""

    def loaded(self, places: slice, read: bool) -> None:
        """Hear that a window is whole, and whether its rows were read."""


class Spool:
    """Rows start … stop − 1 of a row group, decoded once: in memory if they are few, else in a file without a name."""

    def __init__(self, source: Blocks, start: int, stop: int, left: int, room: int) -> None:
        self.start, self.left = start, left  # rows that are still to be read
        self._D = source.shape[1]
        self._file: Any = SpooledTemporaryFile(max(1, room))  # noqa: SIM115
        self.close = weakref.finalize(self, self._file.close)
        self._parts: list[tuple[slice | None, Any, int, int]] = []  # columns, dtype, how many, and where they begin
        for row, columns, block in source.blocks(start, stop):
            if row == start:
                self._parts.append((columns, block.dtype, block[0].size, self._file.tell()))
            try:
                self._file.write(np.ascontiguousarray(block).data.cast("B"))
            except OSError as error:
                advice = "Set TMPDIR to a folder with room, or write smaller row groups with `backprop shuffle`."
                error.add_note(f"Rows wait in temporary files in {gettempdir()}. {advice}")
                raise

    def read(self, start: int, stop: int) -> tuple[Array, Array | None]:
        """X (n, D), and the target (n,) if there is one."""
        n, y = stop - start, None
        X = np.empty((n, self._D), self._parts[0][1])
        for columns, dtype, width, begin in self._parts:
            self._file.seek(begin + (start - self.start) * width * dtype.itemsize)
            block = np.frombuffer(self._file.read(n * width * dtype.itemsize), dtype)
            if columns is None:
                y = block
            else:
                X[:, columns] = block.reshape(n, width)
        return X, y


class Order:
    """The rows of one epoch as places in a pool: `order[start:stop]` reads what is not there yet.

    Places are good until the next ones are asked for. Asked for in their order, rows are read once; from elsewhere on, as when an
    epoch was left, the windows that hold them are read again, and are the same.
    """

    def __init__(
        self,
        pool: Pool,
        key: tuple[int, ...],
        batch_size: int,
        S: int,
        rows: int,
        in_order: bool,
        mine: Sequence[int] | None = None,
    ) -> None:
        self.pool, self.key, self.batch_size, self.in_order = pool, key, batch_size, in_order
        starts = pool.source.starts
        S, K = (1, 1) if in_order else (S, -(-PLACES // S))
        self.reads = np.isin(np.arange(S), range(S) if mine is None or in_order else mine)
        groups = np.arange(len(starts) - 1)
        self._line = groups if in_order else np.random.default_rng(key).permutation(groups)
        self._ends = np.cumsum(np.diff(starts)[self._line])
        self._whole, rest = divmod(pool.n, batch_size)
        self._cuts = shares(batch_size, S), shares(rest, S)  # where the parts of a whole batch begin, and of the last …
        self._parts = np.diff(self._cuts[0]), np.diff(self._cuts[1])  # … and how long they are
        lengths = self._whole * self._parts[0] + self._parts[1]
        first = np.cumsum(lengths) - lengths
        self._lanes = first[:, None] + lengths[:, None] * np.arange(K + 1) // K  # where they begin and end in the line
        self.width = max(1, rows // (S * K))  # of a window in a lane
        self.window = K * self.width
        self._windows = np.minimum(lengths, self.window)  # the largest of each stream
        self._in_memory = rows // (S * K)  # rows of a row group up to which it waits there
        self._room = np.zeros(S, int)  # places of each stream: a window, and what a batch takes
        self._spools: dict[int, Spool] = {}  # by place in the line
        self._head = self._tail = self._room  # rows that were read and not yet taken
        self._at = -1
        self._last: tuple[int, int, Array] | None = None

    def __len__(self) -> int:
        return self.pool.n

    def __getitem__(self, part: slice) -> Array:
        start, stop, _ = part.indices(len(self))
        if self._last and self._last[:2] == (start, stop):
            return self._last[2]
        need = self._before(max(start, stop)) - self._before(start)
        at, self._at, self._last = self._at, -1, None  # what ends half way begins anew
        if at != start or (self._windows + need > self._room).any():
            self._seek(start, need)
        for s in np.flatnonzero(need):
            while self._tail[s] - self._head[s] < need[s]:
                self._load(int(s))
        places = self._take(start, stop)
        self._at, self._last = stop, (start, stop, places)
        return places

    def there(self) -> Array:
        """The places of all rows that are in windows now."""
        ends = zip(self._base[self.reads], self._tail[self.reads], strict=True)
        return np.concatenate([np.arange(a, b) for a, b in ends])

    def close(self) -> None:
        """Let go of temporary files."""
        while self._spools:
            self._spools.popitem()[1].close()

    def _before(self, row: int) -> Array:
        """How many of the first rows of the epoch, up to this one, come from each stream."""
        batches, within = divmod(row, self.batch_size)
        before = batches * self._parts[0]
        if within:
            last = batches >= self._whole
            before += np.clip(within - self._cuts[last][:-1], 0, self._parts[last])
        return before

    def _take(self, start: int, stop: int) -> Array:
        """Places of rows, batch by batch: of each stream the next ones."""
        found, heads = [np.empty(0, int)], self._head
        for batch in range(start // self.batch_size, -(-stop // self.batch_size)):
            first, last = max(start, batch * self.batch_size), min(stop, (batch + 1) * self.batch_size)
            after = heads + self._before(last) - self._before(first)
            found += map(np.arange, heads, after)
            heads = after
        self._head = heads
        return np.concatenate(found)

    def _seek(self, row: int, need: Array) -> None:
        """Go on from this row of the epoch, with places for so many rows of each stream at once."""
        self._room = np.maximum(self._room, self._windows + need)
        self._base = np.cumsum(self._room) - self._room
        self.pool.room(int(self._room.sum()))
        self._head, self._tail = self._base.copy(), self._base.copy()
        # Of the next window, and what of it is done.
        self._number, self._skip = np.divmod(self._before(row), self.window)
        self._now = np.minimum(self._lanes[:, :-1] + self._number[:, None] * self.width, self._lanes[:, 1:])
        self.close()

    def _load(self, s: int) -> None:
        """Read the next window of a stream to the places behind what is left of the one before."""
        base, left = self._base[s], self._tail[s] - self._head[s]
        self.pool.move(self._head[s], self._tail[s], base)
        self._head[s], begin = base, base + left
        n = int((np.minimum(self._now[s] + self.width, self._lanes[s, 1:]) - self._now[s]).sum())
        places = begin + np.arange(n)
        if not self.in_order:
            np.random.default_rng([*self.key, s, int(self._number[s])]).shuffle(places)
        at = 0
        for lane in range(len(self._now[s])):
            end = min(self._now[s, lane] + self.width, self._lanes[s, lane + 1])
            while self._now[s, lane] < end:
                at += self._read(s, lane, int(end), places[at:])
        self.pool.loaded(slice(begin, begin + n), bool(self.reads[s]))
        self._tail[s], self._head[s] = begin + n, self._head[s] + self._skip[s]
        self._number[s], self._skip[s] = self._number[s] + 1, 0

    def _read(self, s: int, lane: int, end: int, places: Array) -> int:
        """Rows of a lane from where it is, up to the end of a window or a row group; returns how many."""
        now = int(self._now[s, lane])
        g = int(np.searchsorted(self._ends, now, side="right"))
        n = min(end, int(self._ends[g])) - now
        row = now + self._shift(g)
        self.pool.name(places[:n], row)
        if self.reads[s]:
            spool = self._spools.get(g) or self._decode(g)
            self.pool.put(places[:n], row, *spool.read(row, row + n))
            spool.left -= n
            if not spool.left:
                self._spools.pop(g).close()
        self._now[s, lane] += n
        return n

    def _decode(self, g: int) -> Spool:
        """What lanes have still to read of a row group, by its place in the line."""
        begin = self._ends[g - 1] if g else 0
        low, high = np.maximum(self._now, begin), np.minimum(self._lanes[:, 1:], self._ends[g])
        ours = (low < high) & self.reads[:, None]
        first, last = int(low[ours].min()), int(high[ours].max())
        source, shift, left = self.pool.source, self._shift(g), int((high - low)[ours].sum())
        room = self._in_memory * source.shape[1] * source.dtype.itemsize
        spool = self._spools[g] = Spool(source, first + shift, last + shift, left, room)
        return spool

    def _shift(self, g: int) -> int:
        """From places in the line to rows of the data."""
        return int(self.pool.source.starts[self._line[g] + 1] - self._ends[g])


def shares(n: int, S: int) -> Array:
    """Where the shards of a batch of n begin, as the engine cuts it, and n; shards that it has not are empty."""
    cuts = np.linspace(0, n, min(S, n) + 1).astype(int)
    return np.append(cuts, np.full(S + 1 - len(cuts), n))
